//! Pushes through the daemon, unless this program is to push.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use anyhow::Error;
use bollard::models::PushImageInfo;
use bollard::query_parameters::PushImageOptionsBuilder;
use futures_util::StreamExt;

use super::meter::metered;
use super::recipe::{Built, Names};
use super::{Access, Daemon, said};
use crate::credentials::{Credential, Right, forbidden_hint, unauthorized_hint};
use crate::event::{Event, Events};
use crate::problem::Problem;
use crate::proxy::is_loopback;
use crate::reference::{Digest, Reference};
use crate::registry::Manifest;

#[derive(Clone, Debug)]
pub struct Pushed {
    /// Of the manifest, as the registry has it, or is to get it.
    pub digest: Digest,
    /// Where this program made it; it is not in the registry yet, but all that it names is.
    pub manifest: Option<Manifest>,
    /// What was uploaded, in uncompressed bytes of layers; what the registry had is not in it. A builder that pushes by
    /// itself does not tell.
    pub bytes: Option<u64>,
}

impl Daemon {
    /// Brings an image to the registry under a name that it does not keep in the daemon.
    pub(super) async fn push_as(&self, built: &Built, reference: &Reference, step: &str, events: &Events) -> Result<Pushed, Error> {
        if self.stages(built, reference.host(), step).await {
            return self.staging.stage(built, reference, step, events).await;
        }
        let pushed = self.push_tagged(built, reference, step, events).await;
        match &pushed {
            Err(error) if self.can_export(built) && self.is_cut_off(error, reference.host()).await => {
                if !self.cut_off.swap(true, Relaxed) {
                    let host = reference.host();
                    events.note(format!(
                        "the daemon cannot reach the registry {host}, and this program can: it pushes instead"
                    ));
                }
                self.staging.stage(built, reference, step, events).await
            }
            _ => pushed,
        }
    }

    /// Whether a push failed because the daemon cannot reach the registry, while we can.
    async fn is_cut_off(&self, error: &Error, host: &str) -> bool {
        let said = format!("{error:#}").to_lowercase();
        NO_CONNECTION.iter().any(|sign| said.contains(sign)) && self.access.registry.ping(host).await.is_ok()
    }

    async fn push_tagged(&self, built: &Built, reference: &Reference, step: &str, events: &Events) -> Result<Pushed, Error> {
        let name = self
            .tag_for_now(&built.id, reference.repository().as_str(), reference.tag().as_str())
            .await?;
        let pushed = self.push(reference, step, events).await;
        self.untag(&name).await;
        pushed
    }

    /// Failures come under HTTP 200 as well.
    async fn push(&self, reference: &Reference, step: &str, events: &Events) -> Result<Pushed, Error> {
        let (credential, sent) = self.credentials(reference.host()).await?;
        let options = PushImageOptionsBuilder::default().tag(reference.tag().as_str()).build();
        let mut answers = self.docker.push_image(reference.repository().as_str(), Some(options), Some(sent));
        let (bytes, total) = (AtomicU64::new(0), AtomicU64::new(0));
        let mut digest = None;
        let reading = async {
            // the daemon's progress names no layer here, but each has a size of its own
            let mut uploads: BTreeMap<u64, u64> = BTreeMap::new();
            let (mut layers, mut longest_wait) = (0, 0);
            while let Some(answer) = answers.next().await {
                let info = answer.map_err(|error| explained(&said(error).to_string(), reference, &credential, Pusher::Daemon))?;
                if let Some((total, current)) = uploaded(&info) {
                    let most = uploads.entry(total).or_default();
                    *most = current.min(total).max(*most);
                }
                layers += usize::from(info.status.as_deref() == Some("Pushed"));
                if let Some(seconds) = info.status.as_deref().and_then(retry_in).filter(|seconds| *seconds > longest_wait) {
                    longest_wait = seconds;
                    let host = reference.host();
                    let text = format!("the registry {host} does not take it: the daemon tries again in {seconds} s");
                    events.note_on(step, text);
                }
                bytes.store(uploads.values().sum(), Relaxed);
                total.store(uploads.keys().sum(), Relaxed);
                digest = info.status.as_deref().and_then(final_digest).or(digest.take());
            }
            let untold = layers.saturating_sub(uploads.len());
            bytes.fetch_add(self.of_equal_size(reference, &uploads, untold).await, Relaxed);
            Ok::<_, Error>(())
        };
        let tell = |sent, total| {
            events.send(Event::Uploading {
                step: step.to_owned(),
                sent,
                total,
            });
        };
        metered(reading, || (bytes.load(Relaxed), total.load(Relaxed)), tell).await?;
        let digest = digest.ok_or_else(|| Problem::failed(format!("the daemon ended the push of {reference} without a digest")))?;
        Ok(Pushed {
            digest,
            manifest: None,
            bytes: Some(bytes.into_inner()),
        })
    }

    /// The bytes of `untold` layers that have the same size as others of `uploads`.
    async fn of_equal_size(&self, reference: &Reference, uploads: &BTreeMap<u64, u64>, mut untold: usize) -> u64 {
        if untold == 0 {
            return 0;
        }
        let history = self.docker.image_history(&reference.to_string()).await.unwrap_or_default();
        let mut bytes = 0;
        for (total, sent) in uploads {
            let others = history
                .iter()
                .filter(|layer| u64::try_from(layer.size) == Ok(*total))
                .count()
                .saturating_sub(1);
            for _ in 0..others.min(untold) {
                bytes += sent;
                untold -= 1;
            }
        }
        bytes
    }
}

/// What could not be pushed: context of an error.
#[derive(Clone, Debug)]
pub struct PushOf(Reference);

impl fmt::Display for PushOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who pushes, for hints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pusher {
    Daemon,
    Builder,
}

impl Access {
    /// Where a build failed in a push of its own, says so, with what to do about it.
    pub(super) async fn explained<T>(&self, built: Result<T, Error>, names: Names<'_>, pusher: Pusher) -> Result<T, Error> {
        let Err(error) = built else { return built };
        let text = format!("{error:#}");
        // moby/buildkit, `exporter/containerimage`
        let said = |name: &Reference| Some(text.split_once(&format!("failed to push {name}: "))?.1);
        let Some((name, said)) = names.push_as.iter().find_map(|name| Some((name, said(name)?))) else {
            return Err(error);
        };
        Err(match self.credentials.for_host(name.host()).await {
            Ok(credential) => explained(said, name, &credential, pusher),
            Err(error) => Error::from(Problem::failed(error.to_string()).hint(error.hint())).context(PushOf(name.clone())),
        })
    }
}

fn uploaded(info: &PushImageInfo) -> Option<(u64, u64)> {
    let detail = info
        .progress_detail
        .as_ref()
        .filter(|_| info.status.as_deref() == Some("Pushing"))?;
    Some((detail.total?.try_into().ok()?, detail.current?.try_into().ok()?))
}

/// `Retrying in 5 seconds`, counted down each second; each wait is longer than the one before (moby, `distribution/xfer/upload.go`).
fn retry_in(status: &str) -> Option<u32> {
    status.strip_prefix("Retrying in ")?.split(' ').next()?.parse().ok()
}

/// `latest: digest: sha256:... size: 527` (moby, `distribution/push_v2.go`).
fn final_digest(status: &str) -> Option<Digest> {
    status.split_once("digest: ")?.1.split_whitespace().next()?.parse().ok()
}

fn explained(said: &str, reference: &Reference, credential: &Credential, pusher: Pusher) -> Error {
    let problem = Problem::failed(said);
    let problem = match hint(&said.to_lowercase(), reference, credential, pusher) {
        Some(hint) => problem.hint(hint),
        None => problem,
    };
    Error::from(problem).context(PushOf(reference.clone()))
}

/// What is said where no connection comes about.
const NO_CONNECTION: [&str; 5] = [
    "no such host",
    "connection refused",
    "i/o timeout",
    "no route to host",
    "network is unreachable",
];

const PLAIN_HTTP: [&str; 1] = ["server gave http response to https client"];

fn hint(said: &str, reference: &Reference, credential: &Credential, pusher: Pusher) -> Option<String> {
    let any = |parts: &[&str]| parts.iter().any(|part| said.contains(part));
    let host = reference.host();
    let unreachable = any(&NO_CONNECTION) || any(&["connection reset", "eof"]);
    let unknown = any(&[
        "unauthorized",
        "no basic auth",
        "authentication required",
        "incorrect username or password",
        "status: 401",
    ]);
    let forbidden = any(&["denied", "forbidden", "status: 403", "insufficient_scope"]);
    Some(match pusher {
        Pusher::Builder if unreachable && is_loopback(host) => {
            format!("the builder pushes, and {host} is for it on its own machine: is the registry up there?")
        }
        Pusher::Builder if unreachable => format!("the builder cannot reach the registry {host}: is it up, is --registry right?"),
        Pusher::Daemon if unreachable => format!("the daemon cannot reach the registry {host}: is it up, is --registry right?"),
        Pusher::Builder if any(&PLAIN_HTTP) => {
            format!("{host} speaks plain HTTP: list it under `insecure_registries` of the manifest")
        }
        Pusher::Daemon if any(&PLAIN_HTTP) => format!("{host} speaks plain HTTP: list it under `insecure-registries` of the daemon"),
        _ if unknown || forbidden && matches!(credential, Credential::Anonymous) => unauthorized_hint(host, credential),
        _ if forbidden => forbidden_hint(host, reference.repository().as_str(), Right::Push),
        _ if any(&["http status: 5", "500 internal", "502 bad", "503 service", "504 gateway"]) => {
            format!("the registry {host} has a fault of its own: try again later, or ask whoever administers it")
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn a_fault_of_the_registry_is_told_from_one_of_the_person() {
        let registry: crate::reference::Registry = "127.0.0.1:5000/x".parse().expect("valid");
        let reference = registry.reference("a").expect("short");
        let hint = |said: &str| {
            let error = explained(said, &reference, &Credential::Anonymous, Pusher::Daemon);
            error.downcast_ref::<Problem>().expect("a problem").hints().join("\n")
        };
        assert!(hint("received unexpected HTTP status: 500 Internal Server Error").contains("a fault of its own"));
        assert!(hint("received unexpected HTTP status: 503 Service Unavailable").contains("a fault of its own"));
        assert!(hint("denied: requested access").contains("docker login"));
    }
}
