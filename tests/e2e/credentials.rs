//! Pushing as somebody: the person's credentials as Docker finds them, and no word of them anywhere.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::builders::{is_classic, push_is_part_of_the_build, the_client_pushes};
use crate::registry::{HTPASSWD, OwnRegistry, PASSWORD};
use crate::support::{Project, provided};

const ENCODED: &str = "a2V2aW46cGE/PnNzfn53";
const WRONG: &str = "a2V2aW46d3Jvbmctc2VjcmV0";

fn project(host: &str, config: &str) -> Project {
    let project =
        Project::in_registry("images: { api: { context: api } }", host).file("api/Dockerfile", "FROM scratch\nCOPY Dockerfile /d\n");
    fs::create_dir(project.home().join(".docker")).expect("created");
    fs::write(project.home().join(".docker/config.json"), config).expect("written");
    project
}

fn helper(project: &Project, name: &str, script: &str) -> String {
    let bin = project.home().join("bin");
    fs::create_dir_all(&bin).expect("created");
    let path = bin.join(format!("docker-credential-{name}"));
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
    format!("{}:{}", bin.display(), env::var("PATH").expect("a path"))
}

#[test]
fn a_password_that_needs_the_url_safe_alphabet_is_accepted() {
    let registry = OwnRegistry::start(Some(HTPASSWD));
    let project = project(
        &registry.host,
        &format!("{{\"auths\": {{\"{}\": {{\"auth\": \"{ENCODED}\"}}}}}}", registry.host),
    );
    let ran = project.run(&["push-all", "-v"]).ok();
    assert!(project.registry.with_credentials(ENCODED).digest("kevin-api").is_some());
    for secret in [PASSWORD, ENCODED] {
        assert!(!ran.stderr.contains(secret) && !ran.stdout.contains(secret), "a secret is shown");
    }
}

#[test]
fn a_helper_for_the_host_goes_before_what_the_file_says_and_is_called_once() {
    let registry = OwnRegistry::start(Some(HTPASSWD));
    let config = format!(
        "{{\"credHelpers\": {{\"{0}\": \"test\"}}, \"credsStore\": \"broken\", \"auths\": {{\"{0}\": {{\"auth\": \"{WRONG}\"}}}}}}",
        registry.host
    );
    let project = project(&registry.host, &config)
        .file("images.yaml", "images: { api: { context: api }, web: { context: api, target: x } }")
        .file("api/Dockerfile", "FROM scratch AS x\nCOPY Dockerfile /d\n");
    let script =
        format!("cat >> \"$HOME/asked\"; echo >> \"$HOME/asked\"; printf '{{\"Username\": \"kevin\", \"Secret\": \"%s\"}}' '{PASSWORD}'");
    let path = helper(&project, "test", &script);
    let project = project.with("PATH", path);
    project.run(&["push-all"]).ok();
    assert_eq!(
        fs::read_to_string(project.home().join("asked")).expect("asked"),
        format!("{}\n", registry.host)
    );
}

#[test]
fn a_wrong_password_and_none_at_all() {
    let registry = OwnRegistry::start(Some(HTPASSWD));
    let wrong = project(
        &registry.host,
        &format!("{{\"auths\": {{\"{}\": {{\"auth\": \"{WRONG}\"}}}}}}", registry.host),
    );
    let ran = wrong.run(&["push-all", "-v"]).ended(1).says(&[
        "the registry does not know you (401",
        "hint: the registry does not accept the credentials",
    ]);
    assert!(!ran.stderr.contains("built"), "before any build: {}", ran.stderr);
    assert!(
        !ran.stderr.contains("wrong-secret") && !ran.stderr.contains(WRONG),
        "a secret is shown"
    );
    let anonymous = project(&registry.host, "{}");
    anonymous
        .run(&["push-all"])
        .ended(1)
        .says(&["the registry does not know you", "hint: ", "docker login"]);
}

#[test]
fn a_helper_that_fails_is_named_with_what_it_said() {
    let project = project("gcr.io", "{\"credsStore\": \"test\"}").with("LATTICE_IMAGES_REGISTRY", "gcr.io/lattice-dev");
    let path = helper(&project, "test", "echo the keychain is locked; exit 1");
    let project = project.with("PATH", path);
    project
        .run(&["push-all"])
        .ended(1)
        .says(&["docker-credential-test", "the keychain is locked"]);
}

#[test]
fn googles_own_helper_without_a_login_is_explained() {
    let project = project("gcr.io", "{\"credHelpers\": {\"gcr.io\": \"gcr\"}}").with("LATTICE_IMAGES_REGISTRY", "gcr.io/lattice-gcr");
    let path = format!("{}:{}", provided("LATTICE_TEST_GCR_HELPER"), env::var("PATH").expect("a path"));
    let project = project.with("PATH", path);
    project.run(&["push-all"]).ended(1).says(&[
        "docker-credential-gcr",
        "could not retrieve GCR's access token",
        "gcloud auth login",
        "gcloud components install docker-credential-gcr",
        "docker-credential-gcr configure-docker",
    ]);
}

#[test]
fn layers_that_images_share_are_sent_once() {
    let registry = OwnRegistry::start(None);
    let project = Project::in_registry(
        "images:\n  base: { context: base, push: false }\n  a: { context: a }\n  b: { context: b }\n  c: { context: c }\n",
        &registry.host,
    )
    .file("base/Dockerfile", "FROM scratch\nCOPY data /data\n")
    .file("base/data", uuid());
    for image in ["a", "b", "c"] {
        project.write(&format!("{image}/Dockerfile"), "FROM base\nCOPY own /own\n");
        project.write(&format!("{image}/own"), format!("{image} {}", uuid()));
    }
    project.run(&["push-all", "-j3"]).ok();
    let log = registry.log();
    let uploads = log
        .lines()
        .filter(|line| line.contains("\"PUT /v2/") && line.contains("/blobs/uploads/") && line.contains(" 201 "))
        // the record goes to the channel's own repository
        .filter(|line| !line.contains("/kevin/blobs/"))
        .count();
    // three configurations, three layers of their own, the base's layer once; its configuration, where it has to be staged
    assert!(uploads == 7 || uploads == 8, "{uploads}: {log}");
}

#[test]
fn layers_of_equal_size_all_count_as_sent() {
    let project = Project::new("images: { api: { context: api } }")
        .file("api/Dockerfile", "FROM scratch\nCOPY a /a\nCOPY b /b\nCOPY c /c\nCOPY d /d\n");
    for (name, size) in [("a", 50_000), ("b", 50_000), ("c", 50_000), ("d", 20_000)] {
        project.write(&format!("api/{name}"), uuid().repeat(size / 37 + 1).split_at(size).0);
    }
    // a build that pushes by itself does not tell
    let project = if push_is_part_of_the_build() {
        project.with("LATTICE_IMAGES_PUSH_BY", "client")
    } else {
        project
    };
    let ran = project.run(&["push-all"]).ok();
    // the client sends what tar makes of them
    let all = if the_client_pushes() || !is_classic() {
        "177.2 kB"
    } else {
        "170.0 kB"
    };
    assert!(ran.stdout.contains(all), "{}", ran.stdout);
    project.write("api/b", uuid().repeat(2000).split_at(50_000).0);
    let ran = project.run(&["push-all"]).ok();
    assert!(ran.stdout.contains(" kB") && !ran.stdout.contains(all), "{}", ran.stdout);
}

fn uuid() -> String {
    fs::read_to_string("/proc/sys/kernel/random/uuid").expect("a random number")
}
