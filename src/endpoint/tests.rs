use std::os::unix::net::UnixListener;

use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::*;

/// A home folder with Docker's configuration, and the environment.
struct Machine {
    home: TempDir,
    variables: Vec<(String, String)>,
}

impl Machine {
    fn new(variables: &[(&str, &str)]) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self {
            home: TempDir::new().expect("a folder"),
            variables: variables.iter().map(owned).collect(),
        }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.home.path().join(below)
    }

    fn with_file(self, below: &str, text: &str) -> Self {
        let path = self.path(below);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
        self
    }

    fn with_socket(self, below: &str) -> Self {
        let path = self.path(below);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        UnixListener::bind(path).expect("a socket");
        self
    }

    fn with_context(self, name: &str, docker: &str) -> Self {
        let id = format!("{:x}", Sha256::digest(name));
        let meta = format!(r#"{{"Name":"{name}","Metadata":{{"Description":""}},"Endpoints":{{"docker":{docker}}}}}"#);
        self.with_file(&format!(".docker/contexts/meta/{id}/meta.json"), &meta)
    }

    fn with_tls_file(self, context: &str, file: &str) -> Self {
        let id = format!("{:x}", Sha256::digest(context));
        self.with_file(&format!(".docker/contexts/tls/{id}/docker/{file}"), "PEM")
    }

    fn resolve(&self) -> Result<Endpoint, EndpointError> {
        let env = |name: &str| match name {
            "HOME" => self.home.path().to_str().map(str::to_owned),
            name => {
                let found = self.variables.iter().find(|(key, _)| key == name);
                found.map(|(_, value)| value.replace('~', &self.path("").to_string_lossy()))
            }
        };
        let config = DockerConfig::load(&env).expect("a valid config.json");
        resolve_with(&env, &config, &self.path("default.sock"))
    }

    fn found(&self) -> String {
        let endpoint = self.resolve().expect("an endpoint");
        let address = endpoint.address.to_string();
        let home = self.path("");
        format!("{} from {}", address.replace(&*home.to_string_lossy(), "~/"), endpoint.source)
    }

    fn error(&self) -> EndpointError {
        self.resolve().expect_err("no endpoint")
    }
}

const COLIMA: &str = r#"{"Host":"unix:///colima.sock","SkipTLSVerify":false}"#;
const USES_COLIMA: &str = r#"{"currentContext":"colima"}"#;

#[test]
fn the_order_is_dockers() {
    let machine = |variables: &[(&str, &str)]| {
        Machine::new(variables)
            .with_file(".docker/config.json", USES_COLIMA)
            .with_context("colima", COLIMA)
            .with_context("other", r#"{"Host":"ssh://me@build"}"#)
            .found()
    };
    assert_eq!(
        machine(&[("DOCKER_HOST", "tcp://h:1"), ("DOCKER_CONTEXT", "other")]),
        "tcp://h:1 from DOCKER_HOST"
    );
    assert_eq!(
        machine(&[("DOCKER_HOST", ""), ("DOCKER_CONTEXT", "other")]),
        "ssh://me@build from context `other` (DOCKER_CONTEXT)"
    );
    assert_eq!(
        machine(&[("DOCKER_CONTEXT", "")]),
        "unix:///colima.sock from context `colima` (docker context use)"
    );
    assert_eq!(machine(&[("DOCKER_CONTEXT", "default")]), "unix://~/default.sock from the default");
    assert_eq!(machine(&[("DOCKER_HOST", " ")]), "unix://~/default.sock from the default");
    assert_eq!(Machine::new(&[]).found(), "unix://~/default.sock from the default");
}

#[test]
fn the_default_is_the_socket_that_docker_has_compiled_in() {
    let endpoint = resolve(&|_| None, &DockerConfig::default()).expect("an endpoint");
    assert_eq!(endpoint.address, Address::Unix("/var/run/docker.sock".into()));
}

#[test]
fn other_sockets_count_where_the_default_one_does_not_exist() {
    let mut machine = Machine::new(&[("XDG_RUNTIME_DIR", "~run")]);
    for (socket, source) in [
        (".colima/default/docker.sock", "Colima's socket"),
        (".docker/desktop/docker.sock", "Docker Desktop's socket"),
        (".docker/run/docker.sock", "Docker Desktop's socket"),
        ("run/docker.sock", "the rootless daemon's socket"),
        ("default.sock", "the default"),
    ] {
        machine = machine.with_socket(socket);
        assert_eq!(machine.found(), format!("unix://~/{socket} from {source}"));
    }
    let machine = Machine::new(&[]).with_file(".colima/default/docker.sock", "no socket");
    assert_eq!(machine.found(), "unix://~/default.sock from the default");
}

#[test]
fn an_unknown_context_is_told_with_the_known_ones() {
    let machine = Machine::new(&[("DOCKER_CONTEXT", "nope")])
        .with_context("colima", COLIMA)
        .with_context("build", COLIMA)
        .with_file(".docker/contexts/meta/junk/meta.json", "{");
    let error = machine.error();
    assert_eq!(
        error.message,
        "context `nope` (DOCKER_CONTEXT) does not exist (contexts: build, colima, default)"
    );
    assert!(error.hint.contains("unset DOCKER_CONTEXT"));
    let machine = Machine::new(&[]).with_file(".docker/config.json", USES_COLIMA);
    let error = machine.error();
    assert_eq!(
        error.to_string(),
        "context `colima` (docker context use) does not exist (contexts: default)"
    );
    assert!(error.hint.contains("`docker context use NAME`"));
}

#[test]
fn a_context_lies_where_docker_puts_it() {
    // `docker context create mine` of docker 28.5 made this folder
    let id = "3fd30542fe3f61b14bd4a4b2dc0b6fb30fa6f63ebce52dd1778aaa8c4dc02cff";
    let meta = r#"{"Name":"mine","Metadata":{},"Endpoints":{"docker":{"Host":"tcp://127.0.0.1:1","SkipTLSVerify":false}}}"#;
    let machine = Machine::new(&[("DOCKER_CONTEXT", "mine")]).with_file(&format!(".docker/contexts/meta/{id}/meta.json"), meta);
    assert_eq!(machine.found(), "tcp://127.0.0.1:1 from context `mine` (DOCKER_CONTEXT)");
}

#[test]
fn a_broken_context_is_named_with_its_line() {
    let id = format!("{:x}", Sha256::digest("c"));
    let broken = |text: &str| {
        Machine::new(&[("DOCKER_CONTEXT", "c")])
            .with_file(&format!(".docker/contexts/meta/{id}/meta.json"), text)
            .error()
            .message
    };
    let message = broken("{\n\"Name\" \"c\"}");
    assert!(message.starts_with("context `c` (DOCKER_CONTEXT) cannot be used, /"), "{message}");
    assert!(message.contains("meta.json:2: not JSON"), "{message}");
    for text in ["", "{}", r#"{"Name":"c","Endpoints":{"kubernetes":{"Host":1}}}"#] {
        assert!(broken(text).ends_with("meta.json: no endpoint `docker`"), "{text}");
    }
}

#[test]
fn a_context_without_a_host_means_the_default_socket() {
    let machine = Machine::new(&[("DOCKER_CONTEXT", "c")]).with_context("c", "{}");
    let endpoint = machine.resolve().expect("an endpoint");
    assert_eq!(endpoint.address, Address::Unix(DEFAULT_SOCKET.into()));
}

#[test]
fn a_context_brings_its_certificates() {
    let docker = r#"{"Host":"tcp://h","SkipTLSVerify":false}"#;
    let machine = Machine::new(&[("DOCKER_CONTEXT", "c")]).with_context("c", docker);
    let endpoint = machine.resolve().expect("plain");
    assert_eq!((endpoint.address.to_string(), endpoint.tls), ("tcp://h:2375".into(), None));

    let machine = ["ca.pem", "cert.pem", "key.pem"]
        .into_iter()
        .fold(machine, |machine, file| machine.with_tls_file("c", file));
    let endpoint = machine.resolve().expect("TLS");
    assert_eq!(endpoint.address.to_string(), "tcp://h:2376");
    let id = format!("{:x}", Sha256::digest("c"));
    let file = |name| machine.path(&format!(".docker/contexts/tls/{id}/docker/{name}"));
    let material = TlsMaterial {
        ca: file("ca.pem"),
        cert: file("cert.pem"),
        key: file("key.pem"),
        verify: true,
        server_name: None,
    };
    assert_eq!(endpoint.tls, Some(material));
}

#[test]
fn a_context_may_have_no_ca_of_its_own() {
    let skips = r#"{"Host":"tcp://h","SkipTLSVerify":true}"#;
    let machine = Machine::new(&[("DOCKER_CONTEXT", "c")]).with_context("c", skips);
    let tls = machine.resolve().expect("TLS").tls;
    assert!(tls.is_some_and(|tls| !tls.verify && !tls.ca.exists()));
    let verifies = r#"{"Host":"tcp://h"}"#;
    let machine = Machine::new(&[("DOCKER_CONTEXT", "c")]).with_context("c", verifies);
    let machine = machine.with_tls_file("c", "key.pem");
    let error = machine.error();
    assert!(
        error.message.contains("docker/cert.pem, which cannot be read: there is only key"),
        "{error}"
    );
    assert!(error.hint.contains("docker context create"));
    let tls = machine.with_tls_file("c", "cert.pem").resolve().expect("TLS").tls;
    assert!(tls.is_some_and(|tls| tls.verify && !tls.ca.exists()));
}

#[test]
fn the_variables_for_tls_count_for_tcp_only() {
    let with = |variables: &[(&str, &str)]| {
        Machine::new(variables)
            .with_file(".docker/ca.pem", "PEM")
            .with_file("certs/ca.pem", "PEM")
            .with_file("certs/cert.pem", "PEM")
            .with_file("certs/key.pem", "PEM")
    };
    let host = ("DOCKER_HOST", "tcp://h");
    let machine = with(&[host, ("DOCKER_TLS_VERIFY", "1")]);
    let endpoint = machine.resolve().expect("TLS");
    assert_eq!(endpoint.address.to_string(), "tcp://h:2376");
    let tls = endpoint.tls.expect("TLS");
    assert_eq!(tls.ca, machine.path(".docker/ca.pem"));
    assert!(tls.verify && !tls.cert.exists());

    let machine = with(&[host, ("DOCKER_TLS", "1"), ("DOCKER_CERT_PATH", "~certs")]);
    let tls = machine.resolve().expect("TLS").tls.expect("TLS");
    assert_eq!(tls.key, machine.path("certs/key.pem"));
    assert!(!tls.verify);

    let verify = ("DOCKER_TLS_VERIFY", "1");
    for host in ["unix:///s", "ssh://h"] {
        let endpoint = with(&[("DOCKER_HOST", host), verify]).resolve();
        assert_eq!(endpoint.expect("an endpoint").tls, None);
    }
    let plain = with(&[host, ("DOCKER_TLS_VERIFY", "")]).resolve().expect("plain");
    assert_eq!((plain.address.to_string(), plain.tls), ("tcp://h:2375".into(), None));
    assert_eq!(
        with(&[verify]).found(),
        "tcp://localhost:2376 from the default with DOCKER_TLS_VERIFY"
    );
}

#[test]
fn missing_certificates_are_named() {
    let error = |machine: Machine| machine.error().message;
    let variables = [("DOCKER_HOST", "tcp://h"), ("DOCKER_TLS_VERIFY", "1")];
    let message = error(Machine::new(&variables));
    assert!(message.contains(".docker/ca.pem, which cannot be read: there is none"), "{message}");
    let machine = Machine::new(&variables).with_file(".docker/ca.pem", "PEM");
    let message = error(machine.with_file(".docker/cert.pem", "PEM"));
    assert!(
        message.contains(".docker/key.pem, which cannot be read: there is only cert.pem"),
        "{message}"
    );
    let env = |name: &str| {
        let found = variables.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    let error = resolve(&env, &DockerConfig::default()).expect_err("no folder");
    assert!(error.hint.contains("DOCKER_CERT_PATH"));
}

#[test]
fn a_malformed_host_is_told_with_what_is_wrong() {
    for (host, reason) in [
        ("something with spaces", "a host has no ` `"),
        ("unknown://", "`unknown` is none of unix, tcp and ssh"),
        ("https://h", "`https` is none of unix, tcp and ssh"),
        ("://", "`` is none of unix, tcp and ssh"),
        ("tcp://:port", "`port` is no port"),
        ("tcp://h:1234567890", "`1234567890` is no port"),
        ("tcp://h/path", "a host and a port, nothing else"),
        ("tcp://::1", "an IPv6 address is written [::1]"),
        ("tcp://[::1", "an IPv6 address is written [::1]"),
        ("tcp://[::1]x", "`x` is no port"),
        ("tcp://unix:///s", "it has two schemes"),
        ("/var/run/docker.sock", "a socket is written unix:///var/run/docker.sock"),
        ("fd://x", "only a daemon can listen there"),
        ("npipe:////./pipe/docker", "named pipes are of Windows"),
        ("ssh://", "there is no host"),
        ("ssh://h?q", "ssh:// takes no query and no fragment"),
        ("ssh://-oProxyCommand=x", "a host has no `=`"),
        ("ssh://-h", "can begin with `-`"),
        ("tcp://h\n:1", "it has a control character"),
    ] {
        let error = Machine::new(&[("DOCKER_HOST", host)]).error();
        let host = host.replace('\n', " ");
        let start = format!("`{host}` from DOCKER_HOST is no address of a daemon: ");
        assert!(error.message.starts_with(&start), "{error}");
        assert!(error.message.ends_with(reason), "{error}");
        assert!(error.hint.contains("unix:///var/run/docker.sock"));
    }
    let machine = Machine::new(&[("DOCKER_CONTEXT", "c")]).with_context("c", r#"{"Host":"x://y"}"#);
    assert!(machine.error().message.starts_with("`x://y` from context `c` (DOCKER_CONTEXT) is"));
}

#[test]
fn a_password_in_an_address_is_refused_and_not_repeated() {
    for host in [
        "ssh://-hunter2@h",
        "ssh://me:hunter2@h",
        "tcp://me:hunter2@h:1",
        "me:hunter2@h",
        "x://hunter2@h@i",
    ] {
        let error = Machine::new(&[("DOCKER_HOST", host)]).error();
        assert!(!format!("{error:?}").contains("hunter2"), "{error}");
        assert!(error.message.contains("://***@"), "{error}");
    }
}
