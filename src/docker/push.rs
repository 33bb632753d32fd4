//! Pushes through the daemon.

use std::collections::BTreeMap;

use anyhow::Error;
use bollard::errors::Error as BollardError;
use bollard::models::PushImageInfo;
use bollard::query_parameters::PushImageOptionsBuilder;
use futures_util::StreamExt;

use super::{Daemon, said};
use crate::credentials::{Credential, forbidden_hint, missing_credential_hint};
use crate::problem::Problem;
use crate::reference::{Digest, Reference};

#[derive(Clone, Debug)]
pub struct Pushed {
    /// Of the manifest, as the registry has it.
    pub digest: Digest,
    /// What was uploaded, in uncompressed bytes of layers; what the registry had is not in it.
    pub bytes: u64,
}

impl Daemon {
    /// # Errors
    /// What the registry or the daemon said, with what to do where that is known. Failures come under HTTP 200 as well.
    pub async fn push(&self, reference: &Reference) -> Result<Pushed, Error> {
        let (credential, sent) = self.credentials(reference.host()).await?;
        let options = PushImageOptionsBuilder::default().tag(reference.tag().as_str()).build();
        let mut answers = self.docker.push_image(reference.repository().as_str(), Some(options), Some(sent));
        let mut digest = None;
        // the daemon's progress names no layer here, but each has a size of its own
        let mut uploads: BTreeMap<i64, i64> = BTreeMap::new();
        while let Some(answer) = answers.next().await {
            let info = answer.map_err(|error| explained(error, reference, &credential))?;
            if let Some((total, current)) = uploaded(&info) {
                let most = uploads.entry(total).or_default();
                *most = current.min(total).max(*most);
            }
            digest = info.status.as_deref().and_then(final_digest).or(digest);
        }
        let digest = digest.ok_or_else(|| Problem::failed(format!("the daemon ended the push of {reference} without a digest")))?;
        let bytes = uploads.values().filter_map(|bytes| u64::try_from(*bytes).ok()).sum();
        Ok(Pushed { digest, bytes })
    }
}

fn uploaded(info: &PushImageInfo) -> Option<(i64, i64)> {
    let detail = info
        .progress_detail
        .as_ref()
        .filter(|_| info.status.as_deref() == Some("Pushing"))?;
    Some((detail.total?, detail.current?))
}

/// `latest: digest: sha256:... size: 527` (moby, `distribution/push_v2.go`).
fn final_digest(status: &str) -> Option<Digest> {
    status.split_once("digest: ")?.1.split_whitespace().next()?.parse().ok()
}

fn explained(error: BollardError, reference: &Reference, credential: &Credential) -> Error {
    let said = said(error).to_string();
    let lower = said.to_lowercase();
    let any = |parts: &[&str]| parts.iter().any(|part| lower.contains(part));
    let host = reference.host();
    let problem = Problem::failed(format!("{reference}: {said}"));
    let anonymous = matches!(credential, Credential::Anonymous);
    if any(&[
        "no such host",
        "connection refused",
        "i/o timeout",
        "no route to host",
        "network is unreachable",
        "connection reset",
        "eof",
    ]) {
        problem
            .hint(format!(
                "the daemon cannot reach the registry {host}: is it up, is --registry right?"
            ))
            .into()
    } else if anonymous
        && any(&[
            "unauthorized",
            "no basic auth",
            "denied",
            "forbidden",
            "authentication required",
            "401",
            "403",
        ])
    {
        problem.hint(missing_credential_hint(host)).into()
    } else if any(&[
        "unauthorized",
        "no basic auth",
        "authentication required",
        "incorrect username or password",
        "401",
    ]) {
        problem
            .hint(format!(
                "the registry does not accept the credentials that Docker has for {host}: docker login {host}"
            ))
            .into()
    } else if any(&["denied", "forbidden", "403"]) {
        problem.hint(forbidden_hint(host, reference.repository().as_str())).into()
    } else if any(&["server gave http response to https client"]) {
        problem
            .hint(format!(
                "{host} speaks plain HTTP: list it under `insecure-registries` of the daemon"
            ))
            .into()
    } else {
        problem.into()
    }
}

#[cfg(test)]
mod tests {
    use super::final_digest;

    #[test]
    fn the_digest_is_in_the_last_status() {
        let digest = format!("sha256:{}", "0".repeat(64));
        assert_eq!(
            final_digest(&format!("latest: digest: {digest} size: 527"))
                .expect("found")
                .as_str(),
            digest
        );
        assert!(final_digest("Pushed").is_none());
    }
}
