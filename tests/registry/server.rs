//! Real registries of a test's own, and clients of them.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lattice_images::credentials::{Credentials, HELPER_TIMEOUT};
use lattice_images::docker_config::{AuthEntry, DockerConfig, Secret};
use lattice_images::reference::Repository;
use lattice_images::registry::{Client, Manifest, Options, Remote};
use tempfile::TempDir;

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// Debian's docker-registry on a loopback port. It stops with the test.
pub struct Registry {
    child: Child,
    pub host: String,
    pub dir: TempDir,
}

/// What of the registry's configuration a test chooses.
#[derive(Clone, Copy)]
pub struct Setup<'a> {
    /// Lines of YAML at the top level, in which `DIR` is a folder with the files.
    pub config: &'a str,
    /// Below `http`.
    pub http: &'a str,
    pub deletes: bool,
    pub files: &'a [(&'a str, &'a [u8])],
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Self {
            config: "",
            http: "",
            deletes: true,
            files: &[],
        }
    }
}

impl Registry {
    pub fn start() -> Self {
        Self::with(Setup::default())
    }

    pub fn with(setup: Setup<'_>) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = dir.path().to_str().expect("UTF-8");
        for (name, content) in setup.files {
            fs::write(dir.path().join(name), content).expect("written");
        }
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let host = format!("127.0.0.1:{port}");
        let Setup { config, http, deletes, .. } = setup;
        let config = format!(
            "version: 0.1\nlog: {{ accesslog: {{ disabled: false }} }}\nstorage: {{ filesystem: {{ rootdirectory: {folder}/data }}, delete: {{ enabled: {deletes} }} }}\nhttp:\n  addr: \"{host}\"\n{http}\n{config}\n"
        )
        .replace("DIR", folder);
        fs::write(dir.path().join("config.yml"), config).expect("written");
        let binary = std::env::var("LATTICE_TEST_REGISTRY_BIN").expect("LATTICE_TEST_REGISTRY_BIN is set: run the tests with `make test`");
        let log = File::create(dir.path().join("log")).expect("created");
        let mut command = Command::new(binary);
        command.arg("serve").arg(dir.path().join("config.yml")).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("cloned")).stderr(log);
        let child = command.spawn().expect("the registry starts");
        let started = Self { child, host, dir };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(&started.host).is_err() {
            assert!(Instant::now() < deadline, "the registry does not answer: {}", started.log());
            std::thread::yield_now();
        }
        started
    }

    pub fn port(&self) -> u16 {
        self.host.rsplit(':').next().expect("a port").parse().expect("a number")
    }

    pub fn repository(&self, path: &str) -> Repository {
        repository(&self.host, path)
    }

    pub fn remote(&self, path: &str) -> Remote {
        anonymous().repository(&self.repository(path))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).expect("read")
    }

    /// How many requests the log has that hold all `parts`.
    pub fn requests(&self, parts: &[&str]) -> usize {
        let log = self.log();
        log.lines()
            .filter(|line| line.contains(" HTTP/") && line.starts_with(|c: char| c.is_ascii_digit()))
            .filter(|line| parts.iter().all(|part| line.contains(part)))
            .count()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn repository(host: &str, path: &str) -> Repository {
    format!("{host}/{path}").parse().expect("a repository")
}

pub fn anonymous() -> Client {
    client(&[], Options::default())
}

/// A client with these credentials by host.
pub fn client(auths: &[(&str, AuthEntry)], options: Options) -> Client {
    let mut config = DockerConfig::default();
    config.auths = auths.iter().map(|(host, entry)| ((*host).to_owned(), entry.clone())).collect();
    Client::new(Credentials::new(&config, Some("/nowhere".into()), HELPER_TIMEOUT), options).expect("valid options")
}

pub fn password(username: &str, password: &str) -> AuthEntry {
    AuthEntry {
        username: username.to_owned(),
        password: Secret::new(password),
        ..AuthEntry::default()
    }
}

/// An image of these layers, its blobs uploaded.
pub async fn image(remote: &Remote, media_type: &str, layers: &[&[u8]]) -> Manifest {
    let config = format!("{{\"architecture\":\"amd64\",\"os\":\"linux\",\"of\":\"{}\"}}", layers.len());
    let blobs = std::iter::once(config.as_bytes()).chain(layers.iter().copied());
    let mut descriptors = Vec::new();
    for (position, blob) in blobs.enumerate() {
        let digest = lattice_images::reference::Digest::of(blob);
        remote.upload(&digest, blob.to_vec()).await.expect("uploaded");
        let kind = if position == 0 { "config.v1+json" } else { "layer.v1.tar" };
        descriptors.push(format!(
            "{{\"mediaType\":\"application/vnd.oci.image.{kind}\",\"digest\":\"{digest}\",\"size\":{}}}",
            blob.len()
        ));
    }
    let (config, layers) = descriptors.split_first().expect("a config");
    Manifest::new(
        media_type,
        format!(
            "{{\"schemaVersion\":2,\"mediaType\":\"{media_type}\",\"config\":{config},\"layers\":[{}]}}\n",
            layers.join(",")
        ),
    )
}

/// An index of these manifests.
pub fn index(media_type: &str, children: &[&Manifest]) -> Manifest {
    let children: Vec<_> = children
        .iter()
        .zip(["amd64", "arm64"])
        .map(|(child, architecture)| {
            format!(
                "{{\"mediaType\":\"{}\",\"digest\":\"{}\",\"size\":{},\"platform\":{{\"os\":\"linux\",\"architecture\":\"{architecture}\"}}}}",
                child.media_type(),
                child.digest(),
                child.bytes().len()
            )
        })
        .collect();
    Manifest::new(
        media_type,
        format!(
            "{{\"schemaVersion\":2,\"mediaType\":\"{media_type}\",\"manifests\":[{}]}}\n",
            children.join(",")
        ),
    )
}

/// What openssl prints, for keys and certificates.
pub fn openssl(folder: &Path, arguments: &[&str]) -> Vec<u8> {
    let ran = Command::new("openssl")
        .args(arguments)
        .current_dir(folder)
        .output()
        .expect("openssl runs");
    assert!(
        ran.status.success(),
        "openssl {arguments:?}: {}",
        String::from_utf8_lossy(&ran.stderr)
    );
    ran.stdout
}
