//! What a build is made from (moby/buildkit, `solver/pb/ops.proto`), as far as it is about files that are copied.

mod copies;
mod upon;

pub(super) use copies::{Below, Copy, Step, copied_layers};
pub(in crate::docker) use upon::Upon;

use std::collections::{BTreeMap, HashMap};

use prost::bytes::Bytes;
use prost::{DecodeError, Message};

use crate::reference::Digest;

const FOLDER: &str = "local://";
const IMAGE: &str = "docker-image://";
/// In the place of a mode or a time: that of the source.
const AS_IT_IS: i64 = -1;
/// Among the descriptions of an operation: what its vertex is called.
const VERTEX_NAME: &str = "llb.customname";

/// All that is made on the way to this vertex of a definition.
///
/// # Errors
/// When it is none.
pub(super) fn up_to(vertex: &str, definition: &Bytes) -> Result<Definition, DecodeError> {
    let mut definition = Definition::decode(definition.clone())?;
    definition.end_with(vertex);
    Ok(definition)
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Definition {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    ops: Vec<Bytes>,
    /// By operation: what it is called, and what it needs of a builder.
    #[prost(map = "string, bytes", tag = "2")]
    metadata: HashMap<String, Bytes>,
}

impl Definition {
    fn add(&mut self, name: &str, op: &Op) -> Input {
        let op = Bytes::from(op.encode_to_vec());
        let digest = Digest::of(&op).to_string();
        let description = BTreeMap::from([(VERTEX_NAME.to_owned(), name.to_owned())]);
        self.metadata
            .insert(digest.clone(), OpMetadata { description }.encode_to_vec().into());
        self.ops.push(op);
        Input::of(&digest)
    }

    fn name_of(&self, vertex: &str) -> Option<String> {
        let mut metadata = OpMetadata::decode(self.metadata.get(vertex)?.clone()).ok()?;
        metadata.description.remove(VERTEX_NAME)
    }

    /// The last operation names what is made.
    fn end_with(&mut self, made: &str) {
        let inputs = vec![Input::of(made)];
        self.ops.push(Op { inputs, ..Op::default() }.encode_to_vec().into());
    }
}

#[derive(Clone, PartialEq, Message)]
struct OpMetadata {
    #[prost(btree_map = "string, string", tag = "2")]
    description: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
struct Op {
    #[prost(message, repeated, tag = "1")]
    inputs: Vec<Input>,
    #[prost(message, optional, tag = "3")]
    source: Option<Source>,
    #[prost(message, optional, tag = "4")]
    file: Option<FileOp>,
    #[prost(message, optional, tag = "10")]
    platform: Option<Platform>,
}

impl Op {
    fn source<const N: usize>(identifier: String, attrs: [(&str, String); N]) -> Self {
        let attrs = attrs.map(|(name, value)| (name.to_owned(), value)).into();
        Self {
            source: Some(Source { identifier, attrs }),
            ..Self::default()
        }
    }

    fn files<const N: usize>(inputs: [Input; N], action: Action) -> Self {
        Self {
            inputs: inputs.into(),
            file: Some(FileOp { actions: vec![action] }),
            ..Self::default()
        }
    }
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Platform {
    #[prost(string, tag = "1")]
    architecture: String,
    #[prost(string, tag = "2")]
    os: String,
    #[prost(string, tag = "3")]
    variant: String,
}

impl Platform {
    /// `os/architecture[/variant]`
    pub(super) fn named(name: &str) -> Self {
        let mut parts = name.split('/').map(str::to_owned);
        let (os, architecture, variant) = (parts.next(), parts.next(), parts.next());
        Self {
            architecture: architecture.unwrap_or_default(),
            os: os.unwrap_or_default(),
            variant: variant.unwrap_or_default(),
        }
    }
}

#[derive(Clone, PartialEq, Message)]
struct Input {
    #[prost(string, tag = "1")]
    digest: String,
}

impl Input {
    fn of(vertex: &str) -> Self {
        Self { digest: vertex.to_owned() }
    }
}

#[derive(Clone, PartialEq, Message)]
struct Source {
    #[prost(string, tag = "1")]
    identifier: String,
    #[prost(btree_map = "string, string", tag = "2")]
    attrs: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
struct FileOp {
    #[prost(message, repeated, tag = "2")]
    actions: Vec<Action>,
}

#[derive(Clone, PartialEq, Message)]
struct Action {
    /// Below zero: nothing.
    #[prost(int64, tag = "1")]
    input: i64,
    #[prost(int64, tag = "2")]
    source: i64,
    #[prost(message, optional, tag = "4")]
    copy: Option<FileCopy>,
    #[prost(message, optional, tag = "6")]
    folder: Option<MakeFolder>,
}

#[derive(Clone, PartialEq, Message)]
struct MakeFolder {
    #[prost(string, tag = "1")]
    path: String,
    #[prost(int32, tag = "2")]
    mode: i32,
    #[prost(bool, tag = "3")]
    makes_parents: bool,
    #[prost(message, optional, tag = "4")]
    owner: Option<Owner>,
    #[prost(int64, tag = "5")]
    timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
#[expect(clippy::struct_excessive_bools, reason = "as the protocol has it")]
struct FileCopy {
    #[prost(string, tag = "1")]
    from: String,
    #[prost(string, tag = "2")]
    to: String,
    #[prost(message, optional, tag = "3")]
    owner: Option<Owner>,
    #[prost(int32, tag = "4")]
    mode: i32,
    #[prost(bool, tag = "6")]
    contents: bool,
    #[prost(bool, tag = "7")]
    unpacks: bool,
    #[prost(bool, tag = "8")]
    creates_folders: bool,
    #[prost(bool, tag = "9")]
    allow_wildcard: bool,
    #[prost(int64, tag = "11")]
    timestamp: i64,
    #[prost(string, repeated, tag = "12")]
    includes: Vec<String>,
    #[prost(string, repeated, tag = "13")]
    excludes: Vec<String>,
    #[prost(string, tag = "15")]
    symbolic_mode: String,
}

#[derive(Clone, PartialEq, Message)]
struct Owner {}
