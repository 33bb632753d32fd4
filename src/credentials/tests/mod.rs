mod helpers;

use std::fs;
use std::future::Future;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use tempfile::TempDir;

use super::*;

const SHORT: Duration = Duration::from_millis(300);

/// Docker's configuration and its helpers, each a shell script.
struct Machine {
    folder: TempDir,
    config_json: String,
    auth_variable: Option<String>,
}

impl Machine {
    fn new(config_json: &str) -> Self {
        Self {
            folder: TempDir::new().expect("a folder"),
            config_json: config_json.to_owned(),
            auth_variable: None,
        }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    // written by another process: a fork of a test beside this one would inherit the open
    // file, and running it would fail as busy
    fn with_program(self, name: &str, script: &str) -> Self {
        let mut install = std::process::Command::new("install")
            .args(["-m", "755", "/dev/stdin"])
            .arg(self.path().join(name))
            .stdin(Stdio::piped())
            .spawn()
            .expect("install");
        let mut stdin = install.stdin.take().expect("stdin");
        let script = format!("#!/bin/sh\ncd '{}'\n{script}\n", self.path().display());
        stdin.write_all(script.as_bytes()).expect("written");
        drop(stdin);
        assert!(install.wait().expect("ended").success());
        self
    }

    fn credentials(&self, timeout: Duration) -> Credentials {
        fs::write(self.path().join("config.json"), &self.config_json).expect("a file");
        let config = DockerConfig::load(&|name| match name {
            "DOCKER_CONFIG" => self.path().to_str().map(str::to_owned),
            "DOCKER_AUTH_CONFIG" => self.auth_variable.clone(),
            _ => None,
        });
        let config = config.expect("a valid config.json");
        assert!(config.notes.is_empty(), "{:?}", config.notes);
        Credentials::new(&config, Some(self.path().into()), timeout)
    }

    fn get(&self, host: &str) -> Result<Credential, CredentialError> {
        block_on(self.credentials(HELPER_TIMEOUT).for_host(host))
    }

    fn error(&self, host: &str) -> CredentialError {
        self.get(host).expect_err("a failure")
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(future)
}

fn password(username: &str, password: &str) -> Credential {
    Credential::Password {
        username: username.to_owned(),
        password: Secret::new(password),
    }
}

const ECHO: &str = r#"printf '{"ServerURL":"x","Username":"%s","Secret":"helper"}' "$(cat)""#;

#[test]
fn auths_are_found_however_their_key_is_written() {
    for key in ["h.example", "https://h.example", "http://h.example/v1/", "h.example/v2"] {
        let machine = Machine::new(&format!(r#"{{"auths":{{"{key}":{{"auth":"dTpw"}}}}}}"#));
        assert_eq!(machine.get("h.example"), Ok(password("u", "p")), "{key}");
        assert_eq!(machine.get("h.example:5000"), Ok(Credential::Anonymous));
        assert_eq!(machine.get("x.h.example"), Ok(Credential::Anonymous));
    }
    let machine = Machine::new(r#"{"auths":{"https://h:5000":{"auth":"dTpw"},"h:5000":{"username":"a","password":"b"}}}"#);
    assert_eq!(machine.get("h:5000"), Ok(password("a", "b")), "exact first");
}

#[test]
fn docker_hub_is_kept_under_its_old_index_only() {
    let machine = Machine::new(r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dTpw"}}}"#);
    assert_eq!(machine.get("docker.io"), Ok(password("u", "p")));
    assert_eq!(machine.get("index.docker.io"), Ok(password("u", "p")));
    let machine = Machine::new(r#"{"auths":{"docker.io":{"auth":"dTpw"}}}"#);
    assert_eq!(machine.get("docker.io"), Ok(Credential::Anonymous));
}

#[test]
fn tokens_come_before_passwords() {
    let machine = Machine::new(
        r#"{"auths":{"a":{"auth":"dTo=","identitytoken":"i"},"b":{"auth":"dTpw","registrytoken":"r","identitytoken":"i"},"c":{}}}"#,
    );
    let identity = Credential::IdentityToken(Secret::new("i"));
    let registry = Credential::RegistryToken(Secret::new("r"));
    assert_eq!(machine.get("a"), Ok(identity));
    assert_eq!(machine.get("b"), Ok(registry));
    assert_eq!(machine.get("c"), Ok(Credential::Anonymous));
}

#[test]
fn auth_that_cannot_be_decoded_is_an_error_for_its_host_only() {
    let machine = Machine::new(r#"{"auths":{"a":{"auth":"hunter2"},"b":{"auth":"dTpw"}}}"#);
    let error = machine.error("a");
    let message = error.to_string();
    assert!(message.starts_with("`auth` of a in /"), "{message}");
    assert!(message.contains("config.json is not base64 of"), "{message}");
    assert_eq!(error.hint(), "log in with `docker login a`");
    assert!(!format!("{error} {error:?}").contains("hunter2"));
    assert_eq!(machine.get("b"), Ok(password("u", "p")));
}

#[test]
fn a_helper_of_the_host_goes_before_the_store_and_the_store_before_the_file() {
    let machine = Machine::new(
        r#"{"auths":{"a":{"auth":"dTpw"},"b":{"auth":"dTpw"},"c":{"auth":"dTpw"}},
            "credsStore":"store","credHelpers":{"a":"own","c":""}}"#,
    )
    .with_program("docker-credential-own", r#"echo '{"Username":"own","Secret":"s"}'"#)
    .with_program("docker-credential-store", r#"echo '{"Username":"store","Secret":"s"}'"#);
    assert_eq!(machine.get("a"), Ok(password("own", "s")));
    assert_eq!(machine.get("b"), Ok(password("store", "s")));
    assert_eq!(machine.get("c"), Ok(password("u", "p")), "no helper named");
}

#[test]
fn a_store_that_has_nothing_means_anonymous_whatever_the_file_has() {
    let machine = Machine::new(r#"{"auths":{"a":{"auth":"dTpw"}},"credsStore":"store"}"#)
        .with_program("docker-credential-store", "echo 'credentials not found in native keychain'; exit 1");
    assert_eq!(machine.get("a"), Ok(Credential::Anonymous));
}

#[test]
fn the_files_registry_token_outlives_the_helpers_answer() {
    let machine =
        Machine::new(r#"{"auths":{"a":{"registrytoken":"r"}},"credsStore":"store"}"#).with_program("docker-credential-store", ECHO);
    let registry = Credential::RegistryToken(Secret::new("r"));
    assert_eq!(machine.get("a"), Ok(registry));
    assert_eq!(machine.get("b"), Ok(password("b", "helper")));
}

#[test]
fn the_auth_variable_goes_before_all_and_by_its_exact_key() {
    let mut machine = Machine::new(r#"{"credHelpers":{"a":"own","b":"own"}}"#).with_program("docker-credential-own", ECHO);
    machine.auth_variable = Some(r#"{"auths":{"a":{"auth":"dTpw"},"https://b":{"auth":"dTpw"}}}"#.to_owned());
    assert_eq!(machine.get("a"), Ok(password("u", "p")));
    assert_eq!(machine.get("b"), Ok(password("b", "helper")));
}

#[test]
fn nothing_secret_shows_in_debug() {
    let machine = Machine::new(r#"{"auths":{"h":{"auth":"dTpodW50ZXIy"}}}"#);
    let credentials = machine.credentials(SHORT);
    let credential = block_on(credentials.for_host("h"));
    assert_eq!(credential, Ok(password("u", "hunter2")));
    let debug = format!("{credential:?} {credentials:?}");
    assert!(debug.contains("Secret(..)"));
    assert!(!debug.contains("hunter2") && !debug.contains("dTpodW50ZXIy"), "{debug}");
}
