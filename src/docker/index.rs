//! One image index over what several builders have pushed, each for platforms of its own.

use anyhow::{Context as _, Error};
use futures_util::future::try_join_all;
use serde_json::{Value, json};

use crate::manifest::canonical;
use crate::reference::Digest;
use crate::registry::{Manifest, Remote};

/// OCI image index.
const OCI: &str = "application/vnd.oci.image.index.v1+json";
/// Docker image manifest version 2, schema 2.
const DOCKER: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// What one builder has pushed.
pub(super) struct Part {
    pub(super) digest: Digest,
    pub(super) platforms: Vec<String>,
}

/// Pushes an index of all parts, by its digest alone. Its manifests are in the order of `platforms`, whoever built them.
pub(super) async fn combined(repository: &Remote, parts: &[Part], platforms: &[String]) -> Result<Digest, Error> {
    let of_part = parts.iter().map(async |part| {
        let manifest = repository.get(&part.digest).await?;
        let manifest = manifest.with_context(|| format!("{}@{} was pushed and is not there", repository.repository(), part.digest))?;
        descriptors(&manifest, &part.platforms)
    });
    let mut descriptors = try_join_all(of_part).await?.concat();
    let place = |descriptor: &Value| platforms.iter().position(|platform| *platform == platform_of(descriptor));
    // what is of no platform, such as an attestation, goes last, as BuildKit puts it
    descriptors.sort_by_key(|descriptor| place(descriptor).unwrap_or(platforms.len()));
    let is_oci = |descriptor: &Value| {
        descriptor["mediaType"]
            .as_str()
            .is_some_and(|kind| kind.starts_with("application/vnd.oci."))
    };
    let media_type = if descriptors.iter().all(is_oci) { OCI } else { DOCKER };
    let index = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": descriptors });
    let index = Manifest::new(media_type, serde_json::to_vec(&index)?);
    repository.put(index.digest(), &index).await?;
    Ok(index.digest().clone())
}

/// Those of an index, or the one of a manifest.
fn descriptors(manifest: &Manifest, platforms: &[String]) -> Result<Vec<Value>, Error> {
    let content: Value = serde_json::from_slice(manifest.bytes())?;
    if let Some(manifests) = content["manifests"].as_array() {
        return Ok(manifests.clone());
    }
    let platform = platforms.first().context("a part is of one platform at least")?;
    let mut parts = platform.splitn(3, '/');
    let mut platform = json!({ "os": parts.next(), "architecture": parts.next() });
    if let Some(variant) = parts.next() {
        platform["variant"] = variant.into();
    }
    Ok(vec![json!({
        "mediaType": manifest.media_type(),
        "digest": manifest.digest().as_str(),
        "size": manifest.bytes().len(),
        "platform": platform,
    })])
}

fn platform_of(descriptor: &Value) -> String {
    let parts = ["os", "architecture", "variant"].map(|key| descriptor["platform"][key].as_str().unwrap_or_default());
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    canonical(&parts.join("/"))
}
