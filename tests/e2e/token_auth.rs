//! Channels in a registry that wants tokens, which a token server gives for a password or an identity token.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::server;
use crate::support::{NOWHERE, Project, provided};
use crate::tokens::{IDENTITY, TokenServer};

/// A registry, and its token server with a runtime of its own.
struct Realm {
    tokens: Option<TokenServer>,
    registry: server::Registry,
    runtime: Runtime,
}

impl Realm {
    fn start() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let tokens = runtime.block_on(TokenServer::start(0));
        Self {
            registry: tokens.registry(),
            tokens: Some(tokens),
            runtime,
        }
    }

    /// A project whose person's Docker has these `auths` for the registry.
    fn project(&self, auth: &str) -> Project {
        let project = Project::in_registry("images: { api: { context: api }, web: { context: api } }", &self.registry.host)
            .file("api/Dockerfile", "FROM scratch\nCOPY data /data\n")
            .file("api/data", format!("one of {}", self.registry.host));
        fs::create_dir_all(project.home().join(".docker")).expect("created");
        let config = format!("{{\"auths\": {{\"{}\": {auth}}}}}", self.registry.host);
        fs::write(project.home().join(".docker/config.json"), config).expect("written");
        project
    }

    fn scopes(&self) -> Vec<String> {
        self.tokens.as_ref().expect("until it is dropped").scopes()
    }
}

impl Drop for Realm {
    fn drop(&mut self) {
        let _guard = self.runtime.enter();
        drop(self.tokens.take());
    }
}

fn password(user: &str) -> String {
    format!("{{\"auth\": \"{}\"}}", BASE64_STANDARD.encode(format!("{user}:secret")))
}

/// The digests of a channel's images, each `latest` as its record says.
fn digests(project: &Project, channel: &str) -> BTreeMap<String, String> {
    let shown = project.run(&["channels", "show", channel, "--json"]).ok();
    let shown: Value = serde_json::from_str(&shown.stdout).expect("JSON");
    let images = shown["images"].as_object().expect("a map").iter();
    images
        .map(|(image, held)| {
            assert_eq!(held["latest"], held["entry"]["digest"], "{shown}");
            (image.clone(), held["latest"].as_str().expect("a digest").to_owned())
        })
        .collect()
}

/// Push, skip, roll back, copy: what the channels do in a registry that asks for nothing.
fn everything(realm: &Realm, auth: &str) {
    let project = realm.project(auth);
    project.commit_all("master");
    let secrets = [BASE64_STANDARD.encode("kevin:secret"), IDENTITY.to_owned()];
    let ran = project.run(&["-v", "push-all"]).ok();
    assert!(
        secrets.iter().all(|secret| !ran.stderr.contains(secret)),
        "a secret is shown: {}",
        ran.stderr
    );
    let first = digests(&project, "kevin");
    project.write("api/data", format!("two of {}", realm.registry.host));
    project.run(&["push-all"]).ok();
    let second = digests(&project, "kevin");
    assert!(first.iter().all(|(image, digest)| second[image] != *digest));
    project.git(&["commit", "-qam", "two"]);

    let project = project.with("DOCKER_HOST", NOWHERE);
    let before = realm.scopes().len();
    let ran = project.run(&["push-all"]).ok();
    assert_eq!(ran.stdout.matches("up to date").count(), 2, "{}", ran.stdout);
    assert!(
        realm.scopes()[before..].iter().all(|scopes| !scopes.contains("push")),
        "{:?}",
        realm.scopes()
    );
    project.run(&["channels", "rollback", "kevin"]).ok();
    assert_eq!(digests(&project, "kevin"), first);
    project.run(&["channels", "copy", "kevin", "ann"]).ok();
    assert_eq!(digests(&project, "ann"), first);
    assert_eq!(project.run(&["channels", "diff", "ann", "kevin"]).code, 0);
    let list = project.run(&["channels", "list"]).ok();
    assert!(list.stdout.contains("/ann "), "{}", list.stdout);

    let project = project.with("DOCKER_HOST", provided("DOCKER_HOST"));
    project.run(&["push-all", "--stable", "--yes"]).ok();
    let project = project.with("DOCKER_HOST", NOWHERE);
    let ran = project.run(&["push-all", "--user", "bob"]).ok();
    assert_eq!(ran.stdout.matches("copied from stable").count(), 2, "{}", ran.stdout);
    assert_eq!(digests(&project, "bob"), digests(&project, "stable"));
}

#[test]
fn with_a_password() {
    everything(&Realm::start(), &password("kevin"));
}

#[test]
fn with_an_identity_token() {
    everything(&Realm::start(), &format!("{{\"identitytoken\": \"{IDENTITY}\"}}"));
}

#[test]
fn a_run_without_changes_needs_no_token_again_until_the_next_login() {
    let realm = Realm::start();
    let project = realm.project(&password("kevin"));
    project.run(&["push-all"]).ok();
    let project = project.with("DOCKER_HOST", NOWHERE);
    let runs = |asks: bool| {
        let before = realm.scopes().len();
        let ran = project.run(&["push-all"]).ok();
        assert_eq!(ran.stdout.matches("up to date").count(), 2, "{}", ran.stdout);
        assert_eq!(realm.scopes().len() > before, asks, "{:?}", &realm.scopes()[before..]);
    };
    runs(false);
    let kept = project.home().join(".cache/lattice-images/registries");
    for file in fs::read_dir(&kept).expect("a folder").map(|entry| entry.expect("a file").path()) {
        let text = fs::read_to_string(&file).expect("read");
        assert_eq!(fs::metadata(&file).expect("there").mode() & 0o777, 0o600);
        for secret in ["secret", &BASE64_STANDARD.encode("kevin:secret"), "push"] {
            assert!(!text.contains(secret), "{secret}");
        }
    }
    let config = project.home().join(".docker/config.json");
    let text = fs::read(&config).expect("read");
    fs::remove_file(&config).expect("removed");
    fs::write(&config, text).expect("written");
    runs(true);
    runs(false);
    // a damaged file is made anew
    for file in fs::read_dir(&kept).expect("a folder").map(|entry| entry.expect("a file").path()) {
        fs::write(&file, "lattice").expect("written");
    }
    runs(true);
    runs(false);
}

#[test]
fn who_may_only_read_is_told_before_anything_is_built() {
    let realm = Realm::start();
    let project = realm.project(&password("reader"));
    let ran = project.run(&["push-all"]).ended(1);
    assert!(ran.stderr.contains("kevin-api") && !ran.stderr.contains("built"), "{}", ran.stderr);
    let doctor = project.run(&["doctor"]).ended(1);
    for part in ["ok      registry", "not ok  push"] {
        assert!(doctor.stdout.contains(part), "{part}: {}", doctor.stdout);
    }
    assert_eq!(realm.registry.requests(&["PUT"]), 0, "{}", realm.registry.log());
}
