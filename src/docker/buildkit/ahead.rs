//! Sends the files of a context before the build that reads them can begin: it finds them there.
//!
//! BuildKit is asked for the source alone that a Dockerfile frontend has for a context (moby/buildkit, `solver/pb/ops.proto`,
//! `SourceOp`), and keeps what it gets by the same name.

use std::collections::HashMap;

use anyhow::Error;
use bollard::moby::buildkit::v1::SolveRequest;
use prost::Message;
use sha2::{Digest as _, Sha256};
use tracing::debug;

use super::files::{Files, Folder};
use super::session::{Offer, Session};
use super::solve::said;
use super::{BuildKit, CONTEXT, shared};
use crate::context::Reading;
use crate::machine;

impl BuildKit {
    pub(in crate::docker) async fn send_ahead(&self, reading: &Reading, step: &str) -> Result<(), Error> {
        let context = Folder::of_context(reading.context.clone())?;
        let files = Files::new([(CONTEXT.to_owned(), context)], HashMap::new());
        let offer = Offer::of_files(files.clone(), self.access.credentials.clone());
        let session = Session::open(&self.line, &self.control(), machine::random(), self.key(&shared(reading)), offer).await?;
        let mut request = SolveRequest {
            r#ref: machine::random(),
            session: session.id.clone(),
            ..SolveRequest::default()
        };
        request.definition.get_or_insert_default().def = source(CONTEXT, &session.id);
        let solved = self.control().solve(request).await;
        debug!("{step}: {} bytes of context sent ahead", files.sent());
        solved.map_err(|status| said(&status))?;
        Ok(())
    }
}

/// The operations of a build that is a local folder and nothing else; the last one names the result.
fn source(folder: &str, session: &str) -> Vec<Vec<u8>> {
    let attrs = [("local.session", session), ("local.sharedkeyhint", folder)];
    let source = Op {
        inputs: Vec::new(),
        source: Some(Source {
            identifier: format!("local://{folder}"),
            attrs: attrs.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        }),
    };
    let source = source.encode_to_vec();
    let result = Op {
        inputs: vec![Input {
            digest: format!("sha256:{:x}", Sha256::digest(&source)),
        }],
        source: None,
    };
    vec![source, result.encode_to_vec()]
}

#[derive(Clone, PartialEq, Message)]
struct Op {
    #[prost(message, repeated, tag = "1")]
    inputs: Vec<Input>,
    #[prost(message, optional, tag = "3")]
    source: Option<Source>,
}

#[derive(Clone, PartialEq, Message)]
struct Input {
    #[prost(string, tag = "1")]
    digest: String,
}

#[derive(Clone, PartialEq, Message)]
struct Source {
    #[prost(string, tag = "1")]
    identifier: String,
    #[prost(map = "string, string", tag = "2")]
    attrs: HashMap<String, String>,
}
