//! What a registry holds, asked over HTTP; and a registry of a test's own.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use flate2::read::MultiGzDecoder;
use lattice_images::reference::Digest;
use serde_json::{Value, json};
use tar::EntryType;

use crate::support::provided;

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.index.v1+json";

/// A path in a registry, e.g. `127.0.0.1:5000/t1`.
#[derive(Clone)]
pub struct Registry {
    host: String,
    path: String,
    credentials: Option<String>,
    /// Which image of an index is meant.
    architecture: String,
}

impl fmt::Display for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.path)
    }
}

impl Registry {
    pub fn new(host: &str, path: &str) -> Self {
        Self {
            host: host.to_owned(),
            path: path.to_owned(),
            credentials: None,
            architecture: "amd64".to_owned(),
        }
    }

    /// That of its project, which is in the names of all images that the project's tests make.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// With `user:password` in base64.
    pub fn with_credentials(&self, credentials: &str) -> Self {
        Self {
            credentials: Some(credentials.to_owned()),
            ..self.clone()
        }
    }

    /// With another architecture's image of each index.
    pub fn of_architecture(&self, architecture: &str) -> Self {
        Self {
            architecture: architecture.to_owned(),
            ..self.clone()
        }
    }

    fn get(&self, repository: &str, what: &str) -> Option<ureq::http::Response<ureq::Body>> {
        let mut request = ureq::get(self.url(repository, what)).header("Accept", MANIFEST);
        if let Some(credentials) = &self.credentials {
            request = request.header("Authorization", format!("Basic {credentials}"));
        }
        match request.call() {
            Ok(response) => Some(response),
            Err(ureq::Error::StatusCode(404)) => None,
            // a tag that is being written at this moment
            Err(ureq::Error::StatusCode(500)) => {
                std::thread::sleep(Duration::from_millis(100));
                self.get(repository, what)
            }
            Err(error) => panic!("{repository}/{what}: {error}"),
        }
    }

    fn json(&self, repository: &str, what: &str) -> Value {
        let response = self
            .get(repository, what)
            .unwrap_or_else(|| panic!("{repository}/{what} is not there"));
        serde_json::from_reader(response.into_body().into_reader()).expect("JSON")
    }

    /// Puts the manifest of `latest` again, as one of long ago, under this tag; gives its digest.
    pub fn put_aged(&self, repository: &str, tag: &str) -> String {
        self.put_of(repository, tag, "2020-01-01T00:00:00Z")
    }

    /// The same, as one of that time.
    pub fn put_of(&self, repository: &str, tag: &str, created: &str) -> String {
        let mut manifest = self.json(repository, "manifests/latest");
        manifest["annotations"] = json!({ "org.opencontainers.image.created": created });
        let media_type = manifest["mediaType"].as_str().expect("a media type").to_owned();
        self.put(
            repository,
            &format!("manifests/{tag}"),
            &media_type,
            manifest.to_string().as_bytes(),
        )
    }

    /// Gives what is there another name.
    pub fn point(&self, repository: &str, tag: &str, digest: &str) {
        let manifest = self.json(repository, &format!("manifests/{digest}"));
        let media_type = manifest["mediaType"].as_str().expect("a media type");
        let bytes = self.get(repository, &format!("manifests/{digest}")).expect("there");
        let bytes = bytes.into_body().read_to_vec().expect("read");
        self.put(repository, &format!("manifests/{tag}"), media_type, &bytes);
    }

    /// Puts an index of long ago that names these manifests; gives its digest.
    pub fn put_index(&self, repository: &str, tag: &str, digests: &[String]) -> String {
        let media_type = "application/vnd.oci.image.index.v1+json";
        let below = digests.iter().map(|digest| {
            let manifest = self.json(repository, &format!("manifests/{digest}"));
            let bytes = self.get(repository, &format!("manifests/{digest}")).expect("there");
            let size = bytes.into_body().read_to_vec().expect("read").len();
            json!({ "mediaType": manifest["mediaType"], "digest": digest, "size": size, "platform": { "os": "linux", "architecture": "amd64" } })
        });
        let index = json!({
            "schemaVersion": 2,
            "mediaType": media_type,
            "manifests": below.collect::<Vec<_>>(),
            "annotations": { "org.opencontainers.image.created": "2020-01-01T00:00:00Z" },
        });
        self.put(repository, &format!("manifests/{tag}"), media_type, index.to_string().as_bytes())
    }

    /// Puts another record under a name of a channel's; gives its digest.
    pub fn put_record(&self, channel: &str, name: &str, text: &Value) -> String {
        let mut manifest = self.json(channel, "manifests/record");
        let text = text.to_string();
        let digest = Digest::of(text.as_bytes()).to_string();
        let begun = ureq::post(self.url(channel, "blobs/uploads/")).send_empty().expect("begun");
        let location = begun.headers()["location"].to_str().expect("ASCII").to_owned();
        ureq::put(format!("{location}&digest={digest}"))
            .header("Content-Type", "application/octet-stream")
            .send(&text)
            .expect("uploaded");
        let layer = &mut manifest["layers"][0];
        layer["digest"] = digest.into();
        layer["size"] = text.len().into();
        layer["data"] = BASE64_STANDARD.encode(&text).into();
        let media_type = manifest["mediaType"].as_str().expect("a media type").to_owned();
        self.put(channel, &format!("manifests/{name}"), &media_type, manifest.to_string().as_bytes())
    }

    /// Gives the digest.
    fn put(&self, repository: &str, what: &str, media_type: &str, bytes: &[u8]) -> String {
        let request = ureq::put(self.url(repository, what)).header("Content-Type", media_type);
        let response = request.send(bytes).expect("put");
        response.headers()["docker-content-digest"].to_str().expect("ASCII").to_owned()
    }

    fn url(&self, repository: &str, what: &str) -> String {
        format!("http://{}/v2/{}/{repository}/{what}", self.host, self.path)
    }

    /// Without the one under which a builder pushes what it is not known yet to be.
    pub fn tags(&self, repository: &str) -> Vec<String> {
        let list = self.json(repository, "tags/list");
        let tags = list["tags"].as_array().expect("a list").iter();
        let tags = tags.map(|tag| tag.as_str().expect("text").to_owned());
        tags.filter(|tag| tag != "in-progress").collect()
    }

    pub fn delete(&self, repository: &str, digest: &str) {
        ureq::delete(self.url(repository, &format!("manifests/{digest}")))
            .call()
            .expect("deleted");
    }

    /// The digest that `latest` answers.
    pub fn digest(&self, repository: &str) -> Option<String> {
        self.digest_of(repository, "latest")
    }

    pub fn digest_of(&self, repository: &str, tag: &str) -> Option<String> {
        let response = self.get(repository, &format!("manifests/{tag}"))?;
        Some(response.headers()["docker-content-digest"].to_str().expect("ASCII").to_owned())
    }

    /// The manifest of `latest`, or of its image for the architecture.
    pub fn manifest(&self, repository: &str) -> Value {
        let manifest = self.json(repository, "manifests/latest");
        let Some(images) = manifest["manifests"].as_array() else {
            return manifest;
        };
        let image = images
            .iter()
            .find(|image| image["platform"]["architecture"] == self.architecture.as_str());
        let image = image.unwrap_or_else(|| panic!("{repository} has no image for {}: {manifest}", self.architecture));
        self.json(repository, &format!("manifests/{}", image["digest"].as_str().expect("a digest")))
    }

    pub fn config(&self, repository: &str) -> Value {
        let manifest = self.manifest(repository);
        self.json(
            repository,
            &format!("blobs/{}", manifest["config"]["digest"].as_str().expect("a digest")),
        )
    }

    /// The digests of the layers, the lowest first.
    pub fn layers(&self, repository: &str) -> Vec<String> {
        let manifest = self.manifest(repository);
        let layers = manifest["layers"].as_array().expect("layers");
        layers
            .iter()
            .map(|layer| layer["digest"].as_str().expect("a digest").to_owned())
            .collect()
    }

    /// Every file of the image, with whiteouts applied.
    pub fn files(&self, repository: &str) -> BTreeMap<String, Entry> {
        let mut files = BTreeMap::new();
        for layer in self.layers(repository) {
            let blob = self.get(repository, &format!("blobs/{layer}")).expect("the layer is there");
            let mut archive = tar::Archive::new(MultiGzDecoder::new(blob.into_body().into_reader()));
            for entry in archive.entries().expect("a tar") {
                apply(&mut files, entry.expect("an entry"));
            }
        }
        files
    }
}

/// A file of an image, as far as it makes a difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub kind: EntryType,
    pub mode: u32,
    pub owner: (u64, u64),
    pub mtime: u64,
    /// Of a file its content, of a link its target.
    pub content: Vec<u8>,
    /// Its extended attributes.
    pub attributes: BTreeMap<String, Vec<u8>>,
}

fn apply(files: &mut BTreeMap<String, Entry>, mut entry: tar::Entry<'_, impl Read>) {
    let path = String::from_utf8_lossy(&entry.path_bytes()).trim_matches('/').to_owned();
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
    if let Some(removed) = name.strip_prefix(".wh.") {
        let removed = format!("{folder}/{removed}").trim_matches('/').to_owned();
        files.retain(|path, _| *path != removed && !path.starts_with(&format!("{removed}/")));
        return;
    }
    let attributes = attributes(&mut entry);
    let header = entry.header().clone();
    let number = |value: std::io::Result<u64>| value.expect("a number");
    let mut content = Vec::new();
    match header.entry_type() {
        EntryType::Symlink => content = entry.link_name_bytes().expect("a target").into_owned(),
        EntryType::Link => {
            let target = String::from_utf8_lossy(&entry.link_name_bytes().expect("a target"))
                .trim_matches('/')
                .to_owned();
            let linked = files[&target].clone();
            files.insert(path, linked);
            return;
        }
        _ => drop(entry.read_to_end(&mut content).expect("read")),
    }
    let folder = header.entry_type() == EntryType::Directory;
    files.insert(
        path,
        Entry {
            kind: header.entry_type(),
            mode: header.mode().expect("a mode"),
            owner: (number(header.uid()), number(header.gid())),
            // a folder's time is when something was put into it
            mtime: if folder { 0 } else { number(header.mtime()) },
            content,
            attributes,
        },
    );
}

fn attributes(entry: &mut tar::Entry<'_, impl Read>) -> BTreeMap<String, Vec<u8>> {
    let records = entry.pax_extensions().expect("read").into_iter().flatten();
    let records = records.map(|record| record.expect("a record"));
    let attributes = records.filter_map(|record| {
        let name = record.key().ok()?.strip_prefix("SCHILY.xattr.")?;
        Some((name.to_owned(), record.value_bytes().to_owned()))
    });
    attributes.collect()
}

/// A registry of a test's own, which asks for a password. It stops with the test.
pub struct OwnRegistry {
    child: Child,
    pub host: String,
    log: PathBuf,
    dir: tempfile::TempDir,
}

/// `kevin` with the password `pa?>ss~~w`, whose standard and URL-safe base64 differ.
pub const HTPASSWD: &str = "kevin:$2y$05$KTaWD80aiKxEl/zEPrr7RuGAJeZES3PmYVHicaFDAroDMWph8X0hy\n";
pub const PASSWORD: &str = "pa?>ss~~w";

impl OwnRegistry {
    pub fn start(htpasswd: Option<&str>) -> Self {
        Self::with(htpasswd, false)
    }

    /// One that deletes manifests.
    pub fn that_deletes() -> Self {
        Self::with(None, true)
    }

    fn with(htpasswd: Option<&str>, deletes: bool) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let host = format!("127.0.0.1:{port}");
        let mut config = format!(
            "version: 0.1\nlog: {{ accesslog: {{ disabled: false }} }}\nstorage: {{ filesystem: {{ rootdirectory: {} }}, delete: {{ enabled: {deletes} }} }}\nhttp: {{ addr: \"{host}\" }}\n",
            dir.path().join("data").display()
        );
        if let Some(htpasswd) = htpasswd {
            std::fs::write(dir.path().join("htpasswd"), htpasswd).expect("written");
            config.push_str(&format!(
                "auth: {{ htpasswd: {{ realm: test, path: {} }} }}\n",
                dir.path().join("htpasswd").display()
            ));
        }
        std::fs::write(dir.path().join("config.yml"), config).expect("written");
        let log = dir.path().join("log");
        let file = File::create(&log).expect("created");
        let mut command = Command::new(provided("LATTICE_TEST_REGISTRY_BIN"));
        command.arg("serve").arg(dir.path().join("config.yml")).stdin(Stdio::null());
        command.stdout(file.try_clone().expect("cloned")).stderr(file);
        let child = command.spawn().expect("the registry starts");
        let started = Self { child, host, log, dir };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(&started.host).is_err() {
            assert!(Instant::now() < deadline, "the registry does not answer: {}", started.log());
            std::thread::yield_now();
        }
        started
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(Path::new(&self.log)).expect("read")
    }

    /// What a clean-up does to a repository with all that is in it.
    pub fn lose(&self, repository: &str) {
        let repositories = self.dir.path().join("data/docker/registry/v2/repositories");
        std::fs::remove_dir_all(repositories.join(repository)).expect("removed");
    }
}

impl Drop for OwnRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
