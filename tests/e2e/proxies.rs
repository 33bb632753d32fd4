//! The proxies of Docker's `config.json`, which builds are given.

use crate::keys::everything;
use crate::support::{Project, Ran, provided};

const LOGIN: &str = "kevin:pr0xy-passw0rd";

/// Two proxies by default, and another one for the daemon at `daemon`.
fn project(keys: &str, daemon: &str) -> Project {
    let config = format!(
        r#"{{"proxies": {{
            "default": {{"httpProxy": "http://{LOGIN}@proxy.invalid:3128", "noProxy": "localhost,.invalid"}},
            "{daemon}": {{"httpsProxy": "https://{LOGIN}@other.invalid"}}
        }}}}"#
    );
    let project = Project::new(&format!("images:\n  api: {{ context: api{keys} }}\n"));
    // BuildKit carries out once what two builds do at the same time, whatever their proxies
    let own = project.registry.to_string();
    let project = project
        .file("docker/config.json", config)
        .file("api/own", own)
        .busybox("api/busybox")
        .file("api/Dockerfile", "FROM scratch\nCOPY . /\nRUN [\"/busybox\", \"env\"]\n");
    let folder = project.path("docker").display().to_string();
    project.with("DOCKER_CONFIG", folder)
}

/// The proxies that a build's step saw, by what it printed.
fn seen(ran: &Ran) -> Vec<&str> {
    let words = ran.stderr.lines().flat_map(str::split_whitespace);
    let mut seen: Vec<_> = words
        .filter(|word| {
            word.to_ascii_lowercase()
                .split_once('=')
                .is_some_and(|(name, _)| name.ends_with("_proxy"))
        })
        .collect();
    seen.sort_unstable();
    seen
}

#[test]
fn proxies_reach_the_build_and_not_the_image() {
    let project = project("", "unix:///elsewhere/docker.sock");
    let ran = project.run(&["push-all", "-v", "--no-cache"]).ok();
    assert_eq!(
        seen(&ran),
        [
            "HTTP_PROXY=http://***@proxy.invalid:3128",
            "NO_PROXY=localhost,.invalid",
            "http_proxy=http://***@proxy.invalid:3128",
            "no_proxy=localhost,.invalid",
        ]
    );
    assert!(
        !everything(&ran, &project.home()).contains(LOGIN),
        "the password is written somewhere"
    );
    let config = project.registry.config("kevin-api").to_string();
    assert!(!config.contains(".invalid"), "{config}");
}

#[test]
fn the_error_of_a_build_does_not_tell_their_passwords() {
    let project = project("", "unix:///elsewhere/docker.sock");
    project.write("api/Dockerfile", "FROM scratch\nARG HTTP_PROXY\nCOPY x${HTTP_PROXY} /x\n");
    let ran = project.run(&["build"]).ended(1).says(&["error: building api", "***@proxy.invalid"]);
    assert!(
        !everything(&ran, &project.home()).contains(LOGIN),
        "the password is written somewhere: {}",
        ran.stderr
    );
}

#[test]
fn a_daemon_can_have_proxies_of_its_own() {
    let project = project("", &provided("DOCKER_HOST"));
    let ran = project.run(&["build", "--no-cache"]).ok();
    let expected = ["HTTPS_PROXY=https://***@other.invalid", "https_proxy=https://***@other.invalid"];
    assert_eq!(seen(&ran), expected);
}

#[test]
fn the_manifest_goes_before_the_configuration() {
    let own = ", args: { HTTP_PROXY: \"http://own.invalid\", no_proxy: \".own\" }";
    let project = project(own, "unix:///elsewhere/docker.sock");
    let ran = project.run(&["build", "--no-cache"]).ok();
    let seen = seen(&ran);
    assert!(
        seen.contains(&"HTTP_PROXY=http://own.invalid") && seen.contains(&"no_proxy=.own"),
        "{seen:?}"
    );
    assert!(seen.iter().all(|arg| arg.contains("own")), "{seen:?}");
}
