//! The manifest and the images of this repository.

use std::process::Command;

use crate::support::{Project, Ran};

const BASES: [&str; 3] = ["base-iptables", "base-libstdcxx", "base-libstdcxx-terraform"];
const IMAGES: [&str; 6] = [
    "envoy-prepare",
    "kubernetes-component-builder",
    "kubernetes-envoy-xds-api-rest-per-node",
    "kubernetes-lattice-controller-manager",
    "kubernetes-manager-api-rest",
    "lattice-cli-admin",
];

#[test]
fn the_makefiles_targets_fetch_the_bases_but_for_a_dry_run() {
    let recipe = |target: &str, flags: &str| {
        let mut make = Command::new("make");
        make.current_dir(env!("CARGO_MANIFEST_DIR")).env_remove("MAKEFLAGS");
        make.args(["-n", target, "IMAGE=x", &format!("FLAGS={flags}")]);
        Ran::of(make.output().expect("make runs")).ok().stdout
    };
    for (target, command) in [
        ("docker.push-all-user", "push-all --with-debug"),
        ("docker.push-all-images-stable", "push-all --stable --with-debug"),
        ("docker.push-image-user", "push-image --with-debug"),
        ("docker.push-image-stable-x", "push-image --stable --with-debug"),
    ] {
        let carried_out = recipe(target, "-v");
        assert!(
            carried_out.contains("fetch-bases") && carried_out.contains(&format!("{command} -v")),
            "{carried_out}"
        );
        for flags in ["-n", "-v --dry-run"] {
            let planned = recipe(target, flags);
            assert!(
                !planned.contains("fetch-bases") && planned.contains(&format!("{command} {flags}")),
                "{planned}"
            );
        }
    }
}

#[test]
fn the_shipped_images_are_pushed_and_run() {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/images.yaml");
    let project = Project::new("");
    project.run(&["push-all", "--with-debug", "-q", "-f", manifest]).ok();
    for image in IMAGES {
        let run = |channel: &str| {
            project.docker(&[
                "run",
                "--rm",
                "--network",
                "none",
                &format!("{}/{channel}-{image}", project.registry),
            ])
        };
        let (normal, debug) = (run("kevin"), run("kevin-debug"));
        assert!(
            normal.contains(image) && normal.contains("stand-in") && debug.contains(image),
            "{normal}\n{debug}"
        );
        assert_ne!(normal, debug, "it tells whether utilities are there");
        assert!(debug.contains("/busybox") && !normal.contains("kevin"), "{normal}\n{debug}");
        let layers = project.registry.layers(&format!("kevin-{image}"));
        assert_eq!(project.registry.layers(&format!("kevin-debug-{image}"))[..layers.len()], layers);
    }
    for base in BASES {
        assert!(project.registry.digest(&format!("kevin-{base}")).is_none(), "{base}");
    }
}
