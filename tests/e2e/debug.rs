//! Debug variants: the normal build plus one layer.

use serde_json::Value;

use crate::support::Project;

const UTILITIES: &str = "debug: { utilities: ./busybox }\n";

fn project(dockerfile: &str, keys: &str) -> Project {
    Project::new(&format!("{UTILITIES}images: {{ api: {{ context: api{keys} }} }}"))
        .busybox("busybox")
        .file("api/Dockerfile", dockerfile)
        .file("api/data", "data")
}

fn run(project: &Project, image: &str, arguments: &[&str]) -> String {
    let reference = format!("{}/{image}:latest", project.registry);
    project.docker(
        &[
            &["run", "--rm", "--network", "none", "--entrypoint", "/busybox/sh", &reference, "-c"],
            arguments,
        ]
        .concat(),
    )
}

#[test]
fn it_is_the_normal_build_plus_one_layer() {
    let project = project(
        "FROM scratch\nCOPY data /data\nCOPY data /own\nENV PATH=/own:/x\\\"y A=1\nUSER 12:34\nWORKDIR /somewhere\nENTRYPOINT [\"/own\", \"-a\"]\nCMD [\"b\"]\nLABEL l=m\nEXPOSE 80\nVOLUME /v\nSTOPSIGNAL SIGINT\n",
        "",
    );
    project.run(&["push-all", "--with-debug"]).ok();
    let (normal, debug) = (project.registry.layers("kevin-api"), project.registry.layers("kevin-debug-api"));
    assert_eq!(debug[..normal.len()], normal);
    assert_eq!(debug.len(), normal.len() + 1);

    let configuration = |image: &str| project.registry.config(image)["config"].clone();
    let (mut normal, mut debug) = (configuration("kevin-api"), configuration("kevin-debug-api"));
    let environment = |config: &Value| {
        config["Env"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|entry| entry.as_str().expect("text").to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(environment(&debug), ["PATH=/own:/x\"y:/busybox", "A=1"]);
    debug["Env"] = normal["Env"].clone();
    // the id of the image it was built from
    for config in [&mut normal, &mut debug] {
        config.as_object_mut().expect("a map").remove("Image");
    }
    assert_eq!(debug, normal);

    let mut files = project.registry.files("kevin-debug-api");
    let added: Vec<_> = files.keys().filter(|path| path.starts_with("busybox")).cloned().collect();
    assert!(added.len() > 200 && added.contains(&"busybox/ls".to_owned()), "{added:?}");
    files.retain(|path, _| !path.starts_with("busybox"));
    assert_eq!(files, project.registry.files("kevin-api"));
}

#[test]
fn its_utilities_run_in_an_image_from_scratch() {
    let project = project("FROM scratch\nCOPY data /data\n", "");
    project.run(&["push-all", "--debug"]).ok();
    assert_eq!(
        run(&project, "kevin-debug-api", &["cat /data; echo; which awk; echo $PATH"]),
        "data\n/busybox/awk\n/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/busybox\n"
    );
    assert!(
        project.registry.digest("kevin-api").is_none(),
        "--debug pushes the debug variant only"
    );
}

#[test]
fn it_is_the_same_again() {
    let project = project("FROM scratch\nCOPY data /data\n", "");
    project.run(&["push-all", "--debug"]).ok();
    let digest = project.registry.digest("kevin-debug-api");
    project.run(&["push-all", "--debug"]).ok();
    assert_eq!(project.registry.digest("kevin-debug-api"), digest);
}

#[test]
fn every_image_gets_the_same_layer() {
    let project = Project::new(&format!(
        "{UTILITIES}images:\n  api: {{ context: api }}\n  web: {{ context: web }}\n"
    ))
    .busybox("busybox")
    .file("api/Dockerfile", "FROM scratch\nCOPY Dockerfile /api\n")
    .file("web/Dockerfile", "FROM scratch\nCOPY Dockerfile /web\n");
    project.run(&["push-all", "--debug", "--no-cache"]).ok();
    let last = |image: &str| project.registry.layers(image).pop().expect("a layer");
    assert_eq!(last("kevin-debug-api"), last("kevin-debug-web"));
}

#[test]
fn debug_keys_of_its_own_replace_it() {
    let project = project(
        "FROM scratch AS normal\nCOPY data /normal\nFROM scratch AS debug\nCOPY data /debug\n",
        ", target: normal, debug: { target: debug }",
    );
    project.run(&["push-all", "--with-debug"]).ok();
    assert_eq!(project.registry.files("kevin-api").into_keys().collect::<Vec<_>>(), ["normal"]);
    assert_eq!(project.registry.files("kevin-debug-api").into_keys().collect::<Vec<_>>(), ["debug"]);
}

#[test]
fn what_its_keys_share_with_the_normal_build_is_built_once() {
    let dockerfile = "FROM scratch AS shared\nCOPY busybox /busybox\nRUN [\"/busybox\", \"sh\", \"-c\", \"/busybox cat /proc/sys/kernel/random/uuid >/id\"]\nFROM shared AS normal\nLABEL a=b\nFROM shared AS debug\nLABEL a=c\n";
    let project = project(dockerfile, ", target: normal, network: none, debug: { target: debug }").busybox("api/busybox");
    project.write("api/own", project.registry.to_string());
    project.write("api/Dockerfile", format!("{dockerfile}# {}\n", project.registry));
    project.run(&["push-all", "--with-debug", "-j4"]).ok();
    let id = |image: &str| project.registry.files(image)["id"].content.clone();
    assert_eq!(id("kevin-api"), id("kevin-debug-api"));
}

#[test]
fn nothing_of_the_image_is_overwritten_or_set_off() {
    let own = project("FROM scratch\nCOPY data /busybox/sh\n", "");
    own.run(&["push-all", "--debug"])
        .ended(1)
        .says(&["a /busybox of its own", "debug: { target: debug }"]);
    let triggers = project("FROM scratch\nCOPY data /data\nONBUILD COPY data /triggered\n", "");
    triggers
        .run(&["push-all", "--debug"])
        .ended(2)
        .says(&["ONBUILD", "debug: { target: debug }"]);
    let containers = own.docker(&[
        "container",
        "ls",
        "--all",
        "--quiet",
        "--filter",
        &format!("ancestor={}/kevin-api", own.registry),
    ]);
    assert_eq!(containers, "", "no container is left");
}

#[test]
fn utilities_can_come_out_of_an_image() {
    let utilities = project("FROM scratch\nCOPY busybox /bin/busybox\n", "").busybox("api/busybox");
    utilities.run(&["push-all"]).ok();
    let image = format!("{}/kevin-api:latest", utilities.registry);
    let project = Project::new(&format!("debug: {{ utilities: '{image}' }}\nimages: {{ web: {{ context: web }} }}"))
        .file("web/Dockerfile", "FROM scratch\nCOPY Dockerfile /d\n");
    project.run(&["push-all", "--debug"]).ok();
    assert_eq!(run(&project, "kevin-debug-web", &["echo it runs"]), "it runs\n");

    let none = Project::new("debug: { utilities: 'registry.invalid/none:1' }\nimages: { web: { context: web } }")
        .file("web/Dockerfile", "FROM scratch\nCOPY Dockerfile /d\n");
    none.run(&["push-all", "--debug"]).ended(1).says(&[
        "the image `registry.invalid/none:1` cannot be resolved",
        "`debug: { utilities: ... }` can be the path of a static one",
        "registry.invalid cannot be reached",
    ]);
}

#[test]
fn the_utilities_of_an_image_are_those_that_its_registry_has() {
    let utilities = project("FROM scratch\nCOPY busybox /bin/busybox\n", "").busybox("api/busybox");
    utilities.run(&["push-all"]).ok();
    let published = std::fs::read(utilities.path("api/busybox")).expect("read");
    // the daemon has another image under the same name
    utilities.write("api/busybox", [&published[..], b"another"].concat());
    utilities.run(&["build"]).ok();
    let image = format!("{}/kevin-api:latest", utilities.registry);
    let project = Project::new(&format!("debug: {{ utilities: '{image}' }}\nimages: {{ web: {{ context: web }} }}"))
        .file("web/Dockerfile", "FROM scratch\nCOPY Dockerfile /d\n");
    project.run(&["push-all", "--debug"]).ok();
    let files = project.registry.files("kevin-debug-web");
    assert!(files["busybox/busybox"].content == published, "the daemon's was taken");
}
