//! Whether what a tool has pushed is the workload: every image is there, whole, and holds the files that it was made of.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Read};

use anyhow::{Context as _, Result, bail, ensure};
use flate2::read::MultiGzDecoder;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use ureq::Agent;

use crate::workload::{Contents, Workload};

pub const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// A channel as it was found.
#[derive(Default)]
pub struct Found {
    /// Repository to the digest of its `latest`.
    pub digests: BTreeMap<String, String>,
    layers: BTreeMap<String, u64>,
}

impl Found {
    /// Of the layers, compressed as they are, each once.
    pub fn bytes(&self) -> u64 {
        self.layers.values().sum()
    }

    /// How many of the images are others in `after`.
    pub fn moved(&self, after: &Self) -> usize {
        self.digests
            .iter()
            .filter(|&(name, digest)| after.digests.get(name) != Some(digest))
            .count()
    }
}

/// Asks the registry itself, so that nothing of it is counted.
pub struct Checker {
    registry: String,
    agent: Agent,
    /// What was read once: the registry has verified the digest.
    layers: HashMap<String, Contents>,
}

impl Checker {
    pub fn new(registry: &str) -> Self {
        Self {
            registry: registry.to_owned(),
            agent: Agent::new_with_defaults(),
            layers: HashMap::new(),
        }
    }

    pub fn channel(&mut self, workload: &Workload, channel: &str) -> Result<Found> {
        let mut found = Found::default();
        for service in &workload.services {
            for &variant in workload.variants.prefixes() {
                let name = format!("{channel}-{variant}{service}");
                let image = self.image(&name, &mut found).with_context(|| name.clone())?;
                is_right(image, workload.contents(service), variant == "debug-").with_context(|| name)?;
            }
        }
        Ok(found)
    }

    fn image(&mut self, name: &str, found: &mut Found) -> Result<Contents> {
        let (mut manifest, digest) = self.manifest(name, "latest")?;
        found.digests.insert(name.to_owned(), digest);
        if let Some(manifests) = manifest["manifests"].as_array() {
            let real: Vec<&Value> = manifests.iter().filter(|entry| entry["platform"]["os"] != "unknown").collect();
            let [only] = real[..] else { bail!("{} platforms", real.len()) };
            manifest = self.manifest(name, only["digest"].as_str().context("a digest")?)?.0;
        }
        let config = self.blob(name, manifest["config"]["digest"].as_str().context("a config")?)?;
        let config: Value = serde_json::from_reader(config)?;
        ensure!(
            config["config"]["Entrypoint"] == serde_json::json!(["/app/server"]),
            "another entrypoint"
        );
        let mut contents = Contents::new();
        for layer in manifest["layers"].as_array().context("layers")? {
            let (digest, size) = (
                layer["digest"].as_str().context("a digest")?,
                layer["size"].as_u64().context("a size")?,
            );
            let url = self.url(name, "blobs", digest);
            let answer = self.agent.head(&url).call().with_context(|| format!("layer {digest}"))?;
            let length = answer.headers().get("content-length").and_then(|length| length.to_str().ok());
            ensure!(length == Some(&size.to_string()), "layer {digest} is not {size} bytes");
            found.layers.insert(digest.to_owned(), size);
            if !self.layers.contains_key(digest) {
                let files = files(self.blob(name, digest)?).with_context(|| format!("layer {digest}"))?;
                self.layers.insert(digest.to_owned(), files);
            }
            contents.extend(self.layers[digest].clone());
        }
        Ok(contents)
    }

    fn url(&self, name: &str, kind: &str, reference: &str) -> String {
        format!("http://{}/v2/bench/{name}/{kind}/{reference}", self.registry)
    }

    fn manifest(&self, name: &str, reference: &str) -> Result<(Value, String)> {
        let mut answer = self
            .agent
            .get(self.url(name, "manifests", reference))
            .header("accept", ACCEPT)
            .call()?;
        let digest = answer
            .headers()
            .get("docker-content-digest")
            .context("no digest")?
            .to_str()?
            .to_owned();
        Ok((serde_json::from_reader(answer.body_mut().as_reader())?, digest))
    }

    fn blob(&self, name: &str, digest: &str) -> Result<impl Read + use<>> {
        let answer = self.agent.get(self.url(name, "blobs", digest)).call();
        Ok(answer.with_context(|| format!("blob {digest}"))?.into_body().into_reader())
    }
}

/// The regular files of a layer.
fn files(blob: impl Read) -> Result<Contents> {
    let mut files = Contents::new();
    for entry in tar::Archive::new(MultiGzDecoder::new(blob)).entries()? {
        let mut entry = entry?;
        if entry.header().entry_type().is_file() {
            let path = entry.path()?.to_string_lossy().trim_start_matches("./").to_owned();
            let mut sum = Sha256::new();
            io::copy(&mut entry, &mut sum)?;
            files.insert(path, format!("{:x}", sum.finalize()));
        }
    }
    Ok(files)
}

fn is_right(mut image: Contents, expected: &Contents, is_debug: bool) -> Result<()> {
    let busybox = image.remove("busybox/busybox");
    ensure!(busybox.is_some() == is_debug, "busybox is there: {}", busybox.is_some());
    let names = |contents: &Contents| contents.keys().cloned().collect::<BTreeSet<_>>();
    let (has, wanted) = (names(&image), names(expected));
    if let Some(other) = has.symmetric_difference(&wanted).next() {
        bail!("{other} is in only one of image and workload");
    }
    if let Some((path, _)) = image.iter().find(|&(path, sum)| expected[path] != *sum) {
        bail!("{path} is not that of the workload");
    }
    Ok(())
}
