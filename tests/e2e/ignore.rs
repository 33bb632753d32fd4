//! `.dockerignore`, against what a real daemon keeps.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

use crate::support::Project;

/// The cases were observed with Docker's own builder: what it kept of `files` under each `.dockerignore`.
fn cases(name: &str) -> (Vec<String>, Vec<Value>) {
    let path = format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR"));
    let data: Value = serde_json::from_slice(&std::fs::read(path).expect("read")).expect("JSON");
    let files = strings(&data["files"]);
    (files, data["cases"].as_array().expect("cases").clone())
}

fn strings(value: &Value) -> Vec<String> {
    value
        .as_array()
        .expect("a list")
        .iter()
        .map(|text| text.as_str().expect("text").to_owned())
        .collect()
}

fn check(name: &str) {
    let (files, cases) = cases(name);
    let (broken, sound): (Vec<_>, Vec<_>) = cases.iter().partition(|case| !case["error"].is_null());
    let mut manifest = "images:\n".to_owned();
    let mut project = Project::new("");
    for (index, case) in sound.iter().enumerate() {
        writeln!(manifest, "  c{index}: {{ context: c{index} }}").expect("written");
        project = context(project, &format!("c{index}"), &files, case);
    }
    project.write("images.yaml", manifest);
    project.run(&["push-all", "-q"]).ok();
    for (index, case) in sound.iter().enumerate() {
        let image = project.registry.files(&format!("kevin-c{index}"));
        let kept: BTreeMap<_, _> = image.iter().filter(|(_, entry)| entry.kind != tar::EntryType::Directory).collect();
        let mut expected = strings(&case["kept"]);
        expected.sort();
        assert_eq!(
            kept.keys().map(|path| (*path).clone()).collect::<Vec<_>>(),
            expected,
            "{}",
            case["name"]
        );
    }
    for (index, case) in broken.iter().enumerate() {
        let project = context(
            Project::new(&format!("images: {{ b{index}: {{ context: b }} }}")),
            "b",
            &files,
            case,
        );
        project.run(&["build"]).ended(1).says(&["b/.dockerignore:"]);
    }
}

fn context(project: Project, folder: &str, files: &[String], case: &Value) -> Project {
    let project = files
        .iter()
        .fold(project, |project, file| project.file(&format!("{folder}/{file}"), file));
    let ignore = case["ignore"].as_str().expect("text");
    project
        .file(&format!("{folder}/Dockerfile"), "FROM scratch\nCOPY . /\n")
        .file(&format!("{folder}/.dockerignore"), ignore)
}

#[test]
fn every_observed_case() {
    check("dockerignore-cases.json");
}

#[test]
fn every_further_case() {
    check("dockerignore-more-cases.json");
}

#[test]
fn the_file_beside_the_dockerfile_wins() {
    let project = Project::new("images: { api: { context: ., dockerfile: build/Api } }")
        .file("build/Api", "FROM scratch\nCOPY . /\n")
        .file("build/Api.dockerignore", "*\n!kept\n")
        .file(".dockerignore", "kept\n")
        .file("kept", "")
        .file("dropped", "");
    project.run(&["push-all"]).ok();
    assert_eq!(project.registry.files("kevin-api").into_keys().collect::<Vec<_>>(), ["kept"]);
}

#[test]
fn the_rules_can_be_copied_too() {
    let project = Project::new("images:\n  beside: { context: beside }\n  alone: { context: alone }\n  argued: { context: argued }\n");
    // what comes from the cache has the time of then
    let rules = |image: &str| format!("# {image} of {}\ndropped\n", project.registry);
    for (image, copy) in [
        ("beside", "COPY kept .dockerignore /"),
        ("alone", "COPY .dockerignore /\nLABEL kept=no"),
        ("argued", "ARG RULES=.dockerignore\nCOPY $RULES /"),
    ] {
        for name in [".dockerignore", "kept", "dropped"] {
            project.write(&format!("{image}/{name}"), rules(image));
        }
        project.write(&format!("{image}/Dockerfile"), format!("FROM scratch\n{copy}\n"));
    }
    project.run(&["push-all"]).ok();
    for image in ["beside", "alone", "argued"] {
        let files = project.registry.files(&format!("kevin-{image}"));
        assert_eq!(files[".dockerignore"].content, rules(image).as_bytes(), "{image}");
        assert_eq!(files, project.registry.files(&project.docker_build(image, &[])), "{image}");
    }
}
