use super::*;
use crate::channel::UserName;
use crate::manifest::{Environment, FILE_NAME};
use crate::reference::Registry;
use std::fs;
use std::path::Path;

/// A manifest of images, each with its Dockerfile and further keys.
fn manifest(images: &[(&str, &str, &str)]) -> Manifest {
    let dir = tempfile::tempdir().expect("a folder");
    let mut text = "images:\n".to_owned();
    for (name, dockerfile, keys) in images {
        fs::create_dir(dir.path().join(name)).expect("created");
        fs::write(dir.path().join(name).join("Dockerfile"), dockerfile).expect("written");
        text.push_str(&format!("  {name}: {{ context: {name}{keys} }}\n"));
    }
    fs::write(dir.path().join(FILE_NAME), text).expect("written");
    Manifest::load(
        Path::new(FILE_NAME),
        Environment {
            lookup: &|_| None,
            current: dir.path(),
        },
    )
    .expect("valid")
}

fn planned(manifest: &Manifest, variants: &[Variant], images: &[&str], purpose: Purpose) -> Result<Plan, Problem> {
    let owner = Owner::User(UserName::clean("kevin").expect("a name"));
    let registry: Registry = "gcr.io/lattice-dev".parse().expect("valid");
    let images: Vec<_> = images.iter().map(|image| (*image).to_owned()).collect();
    plan(
        manifest,
        &registry,
        &Request {
            owner: &owner,
            variants,
            images: &images,
            purpose,
        },
    )
}

/// `label<needs`, with `!` behind what is pushed.
fn shape(plan: &Plan) -> Vec<String> {
    let label = |index: usize| plan.steps[index].label();
    plan.steps
        .iter()
        .map(|step| {
            let needs: Vec<_> = step.needs().into_iter().map(label).collect();
            format!("{}<{}{}", step.label(), needs.join(","), if step.publish { "!" } else { "" })
        })
        .collect()
}

const BOTH: &[Variant] = &[Variant::Normal, Variant::Debug];
const NORMAL: &[Variant] = &[Variant::Normal];
const DEBUG: &[Variant] = &[Variant::Debug];

#[test]
fn what_an_image_is_from_is_built_first_whatever_the_order_of_the_file() {
    let manifest = manifest(&[
        ("api", "FROM base\nCOPY --from=tool /x /x\n", ""),
        ("base", "FROM scratch\n", ", push: false"),
        ("tool", "FROM base:latest AS b\nFROM b\n", ""),
    ]);
    let all = planned(&manifest, NORMAL, &[], Purpose::Publish).expect("planned");
    assert_eq!(shape(&all), ["base<", "tool<base!", "api<base,tool!"]);
    let one = planned(&manifest, NORMAL, &["api"], Purpose::Publish).expect("planned");
    assert_eq!(shape(&one), ["base<", "tool<base", "api<base,tool!"]);
    assert_eq!(one.steps[2].reference.to_string(), "gcr.io/lattice-dev/kevin-api:latest");
}

#[test]
fn a_debug_variant_stands_on_its_own_normal_build_and_siblings_stay_normal() {
    let manifest = manifest(&[("base", "FROM scratch\n", ", push: false"), ("api", "FROM base\n", "")]);
    let plan = planned(&manifest, DEBUG, &[], Purpose::Publish).expect("planned");
    assert_eq!(shape(&plan), ["base<", "api<base", "api:debug<api!"]);
    let plan = planned(&manifest, BOTH, &["api"], Purpose::Publish).expect("planned");
    assert_eq!(shape(&plan), ["base<", "api<base!", "api:debug<api!"]);
    assert_eq!(
        plan.channels.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["kevin", "kevin-debug"]
    );
}

#[test]
fn with_debug_keys_of_its_own_an_image_is_built_twice_and_means_debug_siblings() {
    let manifest = manifest(&[
        ("base", "FROM scratch\n", ", push: false"),
        ("api", "FROM base AS normal\nFROM base AS debug\n", ", debug: { target: debug }"),
    ]);
    let plan = planned(&manifest, BOTH, &["api"], Purpose::Publish).expect("planned");
    assert_eq!(shape(&plan), ["base<", "api<base!", "base:debug<base", "api:debug<base:debug!"]);
}

#[test]
fn build_takes_what_is_not_pushed_too() {
    let manifest = manifest(&[("base", "FROM scratch\n", ", push: false")]);
    assert_eq!(
        shape(&planned(&manifest, BOTH, &["base"], Purpose::Build).expect("planned")),
        ["base<", "base:debug<base"]
    );
    let refused = planned(&manifest, NORMAL, &["base"], Purpose::Publish).expect_err("refused");
    assert!(refused.to_string().contains("images.yaml:2 says `push: false`"), "{refused}");
}

#[test]
fn an_unknown_image_is_an_error_with_the_nearest_name() {
    let manifest = manifest(&[("envoy-prepare", "FROM scratch\n", "")]);
    let error = planned(&manifest, NORMAL, &["envoy-prepar"], Purpose::Publish).expect_err("refused");
    assert_eq!(
        error.to_string(),
        "image `envoy-prepar` is not in images.yaml (images: envoy-prepare)"
    );
    assert_eq!(error.hints(), ["did you mean `envoy-prepare`?"]);
}

#[test]
fn a_circle_is_printed_with_its_place() {
    let manifest = manifest(&[("a", "FROM b\n", ""), ("b", "\nFROM c\n", ""), ("c", "FROM b\n", "")]);
    let error = planned(&manifest, NORMAL, &["a"], Purpose::Publish)
        .expect_err("refused")
        .to_string();
    assert_eq!(error, "c/Dockerfile:1: the images stand on each other in a circle: b -> c -> b");
}

#[test]
fn a_context_stands_for_a_sibling_however_that_is_written() {
    let manifest = manifest(&[
        ("base", "FROM scratch\n", ""),
        ("api", "FROM base:latest\n", ", additional_contexts: { base: base }"),
    ]);
    let plan = planned(&manifest, NORMAL, &["api"], Purpose::Publish).expect("planned");
    assert_eq!(shape(&plan), ["api<!"]);
}

#[test]
fn args_and_the_platform_can_choose_a_sibling() {
    let manifest = manifest(&[
        ("base-amd64", "FROM scratch\n", ""),
        (
            "api",
            "ARG BASE\nFROM ${BASE}-${TARGETARCH}\nCOPY --from=docker.io/library/base-amd64 /a /b\n",
            ", args: { BASE: base }",
        ),
    ]);
    let plan = planned(&manifest, NORMAL, &["api"], Purpose::Publish).expect("planned");
    assert_eq!(shape(&plan), ["base-amd64<", "api<base-amd64!"]);
    let Work::Build { external, .. } = &plan.steps[1].work else {
        panic!("a build")
    };
    assert_eq!(*external, ["docker.io/library/base-amd64"]);
}

#[test]
fn what_an_image_is_from_has_all_of_its_platforms() {
    let one = ", platforms: [linux/amd64]";
    let two = ", platforms: [linux/amd64, linux/arm64]";
    let refused = |dockerfile: &str, keys: &str| {
        let manifest = manifest(&[("base", "FROM scratch AS normal\n", one), ("api", dockerfile, keys)]);
        planned(&manifest, NORMAL, &["api"], Purpose::Publish).err()
    };
    let error = refused("\nFROM base\n", two).expect("refused");
    assert_eq!(
        error.to_string(),
        "api/Dockerfile:2: for linux/arm64 this needs a `base` for linux/arm64, and images.yaml:2 makes it for linux/amd64"
    );
    assert_eq!(
        error.hints(),
        [
            "give `base` all platforms of what stands on it (`platforms: [linux/amd64, linux/arm64]`), or say which one is meant: `FROM --platform=linux/amd64 base`"
        ]
    );
    assert!(refused("FROM base\n", ", platforms: [linux/arm64/v8]").is_some());
    assert!(refused("FROM base AS x\nFROM x\n", two).is_some());
    for dockerfile in [
        "FROM scratch\nCOPY --from=base /a /a\n",
        "FROM --platform=$BUILDPLATFORM base AS tool\nFROM scratch\nCOPY --from=tool /a /a\n",
        "FROM --platform=linux/amd64 base\n",
        "FROM base AS of-amd64\nFROM scratch AS of-arm64\nFROM of-$TARGETARCH\n",
        "FROM base AS unneeded\nFROM scratch\n",
    ] {
        assert!(refused(dockerfile, two).is_none(), "{dockerfile}");
    }
    assert!(refused("FROM base\n", one).is_none());
}

#[test]
fn a_debug_variant_stands_on_one_that_has_its_platforms() {
    let manifest = manifest(&[
        (
            "base",
            "FROM scratch AS normal\nFROM scratch AS debug\n",
            ", platforms: [linux/amd64, linux/arm64], debug: { target: debug, platforms: [linux/amd64] }",
        ),
        (
            "api",
            "FROM base AS normal\nFROM base AS debug\n",
            ", platforms: [linux/amd64, linux/arm64], debug: { target: debug }",
        ),
    ]);
    assert!(planned(&manifest, NORMAL, &["api"], Purpose::Publish).is_ok());
    assert!(planned(&manifest, DEBUG, &["api"], Purpose::Publish).is_err());
}
