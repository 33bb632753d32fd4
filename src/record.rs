//! The record of a channel: what is in it, who put it there and when. `docs/record.md` describes it field by field.
//!
//! In the registry it is an OCI artifact (OCI image specification, "Guidelines for Artifact Usage"): a manifest whose
//! only layer is the record as JSON. The layer's descriptor embeds it (`data`), so that one request reads it.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, SubsecRound, Utc};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;

use crate::fingerprint::Fingerprint;
use crate::git::Revision;
use crate::machine;
use crate::problem::{Problem, printable};
use crate::reference::{Digest, ImageName};

/// Raised when a tool that knows only what came before could do harm by writing over it.
pub const FORMAT: u32 = 1;
pub const MEDIA_TYPE: &str = "application/vnd.lattice-images.record.v1+json";
pub const MANIFEST_MEDIA_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const EMPTY_MEDIA_TYPE: &str = "application/vnd.oci.empty.v1+json";
/// The configuration of an artifact without one (OCI image specification, "Guidance for an Empty Descriptor").
pub const EMPTY: &[u8] = b"{}";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub format: u32,
    /// Registry and name of the channel, e.g. `gcr.io/lattice-dev/stable`.
    #[serde(deserialize_with = "clean")]
    pub channel: String,
    /// 1 for a channel's first record.
    pub sequence: u64,
    pub act: Act,
    pub writer: Writer,
    /// The digest of the record before this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<Digest>,
    /// The state of the sources that the channel as a whole was published from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<Revision>,
    /// The newest revision that a rollback took out of the channel; what contains no more than it is not published again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rolled_back: Option<Revision>,
    /// The other channel that was published by the same act.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub together_with: Option<String>,
    pub images: BTreeMap<ImageName, Entry>,
    /// What this act moved: the digest that each `latest` had before, `null` where there was none.
    pub before: BTreeMap<ImageName, Option<Digest>>,
}

/// What made a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Act {
    Push,
    /// The images of another channel, as they were in its record `sequence`.
    Copy {
        from: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        sequence: Option<u64>,
    },
    /// The images as they were in the record `to`.
    Rollback {
        to: u64,
    },
    /// Images that the manifest no longer has were taken out.
    Clean,
}

/// Who wrote it, from where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writer {
    #[serde(deserialize_with = "clean")]
    pub user: String,
    #[serde(deserialize_with = "clean")]
    pub host: String,
    pub pid: u32,
    /// Which system's process that is, where this is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids_of: Option<String>,
    /// RFC 3339, UTC, whole seconds.
    pub at: DateTime<Utc>,
    /// The version of the tool.
    #[serde(deserialize_with = "clean")]
    pub tool: String,
}

/// An image of a channel: what it is, and where that came from. It is kept while others of the channel are replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub digest: Digest,
    /// Of what it was built from; absent where another tool pushed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Fingerprint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<Revision>,
    pub platforms: Vec<String>,
    /// Images of elsewhere that it stands on and whose digests were not from their registries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unresolved: Vec<String>,
    /// Who published it first in this channel, and when.
    pub writer: Writer,
}

impl Writer {
    #[must_use]
    pub fn new(user: String, host: String) -> Self {
        Self {
            user,
            host,
            pid: std::process::id(),
            pids_of: machine::pids(),
            at: Utc::now().trunc_subsecs(0),
            tool: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// The same, at this moment.
    #[must_use]
    pub fn now(&self) -> Self {
        Self {
            at: Utc::now().trunc_subsecs(0),
            ..self.clone()
        }
    }
}

/// A record as the registry holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// The bytes of the manifest.
    pub manifest: Vec<u8>,
    pub digest: Digest,
    /// What the manifest names beside [`EMPTY`], to be uploaded before it.
    pub layer: (Digest, Vec<u8>),
}

impl Record {
    /// What stands for the record of a channel that has none.
    #[must_use]
    pub fn of_nothing(channel: String) -> Self {
        Self {
            format: FORMAT,
            channel,
            sequence: 0,
            act: Act::Push,
            writer: Writer::new(String::new(), String::new()),
            previous: None,
            revision: None,
            rolled_back: None,
            together_with: None,
            images: BTreeMap::new(),
            before: BTreeMap::new(),
        }
    }

    #[must_use]
    pub fn encode(&self) -> Artifact {
        let record = serde_json::to_vec_pretty(self).expect("a record is JSON");
        let (record_digest, empty_digest) = (Digest::of(&record), Digest::of(EMPTY));
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_MEDIA_TYPE,
            "artifactType": MEDIA_TYPE,
            "config": { "mediaType": EMPTY_MEDIA_TYPE, "digest": empty_digest, "size": EMPTY.len(), "data": STANDARD.encode(EMPTY) },
            "layers": [{
                "mediaType": MEDIA_TYPE,
                "digest": record_digest,
                "size": record.len(),
                "data": STANDARD.encode(&record),
                "annotations": { "org.opencontainers.image.title": "record.json" },
            }],
            "annotations": { "org.opencontainers.image.created": self.writer.at },
        });
        let manifest = serde_json::to_vec(&manifest).expect("a manifest is JSON");
        Artifact {
            digest: Digest::of(&manifest),
            manifest,
            layer: (record_digest, record),
        }
    }

    /// # Errors
    /// When `manifest` holds no record, or one of a format that this tool does not know.
    pub fn decode(manifest: &[u8]) -> Result<Self, Problem> {
        let json = embedded(manifest).ok_or_else(|| Problem::failed("what is there is no record of a channel"))?;
        let Format { format } = serde_json::from_slice(&json).map_err(|error| damaged(&error))?;
        if format > FORMAT {
            return Err(Problem::failed(format!(
                "the channel's record has format {format}, and this tool knows up to {FORMAT}"
            ))
            .hint("a newer lattice-images wrote it: update this one"));
        }
        serde_json::from_slice(&json).map_err(|error| damaged(&error))
    }
}

/// Whoever may write to the registry may write a record: what is only shown cannot hold what a terminal obeys.
fn clean<'d, D: Deserializer<'d>>(text: D) -> Result<String, D::Error> {
    Ok(printable(&String::deserialize(text)?))
}

fn damaged(error: &serde_json::Error) -> Problem {
    Problem::failed(format!("the channel's record cannot be read: {}", printable(&error.to_string())))
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

fn embedded(manifest: &[u8]) -> Option<Vec<u8>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Manifest {
        layers: Vec<Layer>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Layer {
        media_type: String,
        digest: Digest,
        data: String,
    }
    let manifest: Manifest = serde_json::from_slice(manifest).ok()?;
    let [layer] = manifest.layers.as_slice() else { return None };
    let json = STANDARD.decode(&layer.data).ok()?;
    (layer.media_type == MEDIA_TYPE && Digest::of(&json) == layer.digest).then_some(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_does_not_come_out_of_a_record() {
        let writer = Writer::new("kevin\u{1b}]0;x\u{7}".into(), "ho\u{9b}2Jst".into());
        let record = Record {
            writer: writer.clone(),
            ..Record::of_nothing("gcr.io/x/kevin\u{1b}[2J".into())
        };
        let read = Record::decode(&record.encode().manifest).expect("a record");
        assert_eq!(read.writer.user, "kevin?]0;x?");
        assert_eq!(read.writer.host, "ho?2Jst");
        assert_eq!(read.channel, "gcr.io/x/kevin?[2J");
        assert_eq!((read.writer.pid, read.writer.pids_of), (writer.pid, writer.pids_of));
    }
}
