//! The client's part of a build: it asks the frontend itself, may look into what that made, and hands it to the exporter
//! (moby/buildkit, `frontend/gateway/pb/gateway.proto`). What is only passed on stays bytes here.

use std::collections::HashMap;

use anyhow::{Context as _, Error};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard::fsutil::types::Stat;
use prost::Message;
use prost::bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use tonic::client::Grpc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request};
use tonic_prost::ProstCodec;

use super::LARGEST_ANSWER;
use super::llb::{Definition, Platform, Upon};
use super::solve::said;
use crate::reference::Digest;

/// Tells which build a call is about (moby/buildkit, `client/buildid`).
const BUILD: &str = "buildkit-controlapi-buildid";
/// An image's configuration, in what a frontend answers (moby/buildkit, `exporter/containerimage/exptypes`).
const CONFIG: &str = "containerimage.config";

/// What the frontend is asked for.
#[derive(Clone)]
pub(super) struct Question {
    frontend: &'static str,
    attrs: HashMap<String, String>,
    /// By the names that `input:` has for them.
    inputs: HashMap<String, Bytes>,
    /// What the frontend would make of it.
    upon: Option<Upon>,
}

impl Question {
    pub(super) fn to(frontend: &'static str) -> Self {
        Self {
            frontend,
            attrs: HashMap::new(),
            inputs: HashMap::new(),
            upon: None,
        }
    }

    /// Spares the frontend the work, if that can be done.
    pub(super) fn answer(&mut self, upon: Upon) {
        self.upon = Some(upon);
    }

    pub(super) fn set(&mut self, attribute: String, value: &str) {
        self.attrs.insert(attribute, value.to_owned());
    }

    /// Takes back what [`Self::give`] gave: every name is one of an image.
    pub(super) fn fetch_all(&mut self) {
        for name in self.inputs.drain().map(|(name, _)| name) {
            self.attrs.remove(&format!("context:{name}"));
            self.attrs.remove(&format!("input-metadata:{name}"));
        }
    }

    /// Lets the Dockerfile mean this by `name` (moby/buildkit, `frontend/dockerui`). A frontend that knows no named contexts
    /// takes the name for an image's.
    pub(super) fn give(&mut self, name: &str, made: &Definitions) {
        for (platform, part) in &made.0 {
            let name = if platform.is_empty() {
                name.to_owned()
            } else {
                format!("{name}::{platform}")
            };
            let metadata = part.config.iter().map(|config| (CONFIG, STANDARD.encode(config)));
            let metadata: Value = metadata.collect();
            self.attrs.insert(format!("context:{name}"), format!("input:{name}"));
            self.attrs.insert(format!("input-metadata:{name}"), metadata.to_string());
            self.inputs.insert(name, part.definition.clone());
        }
    }
}

/// What the frontend has made.
pub(super) struct FrontendResult {
    /// For the exporter.
    result: Bytes,
    /// By which the builder knows it.
    one: Option<String>,
    pub(super) definitions: Definitions,
    /// Whether it has the folder that was looked for, if one was.
    pub(super) has_folder: Option<bool>,
}

/// What was made for one platform.
pub(super) struct One {
    pub(super) result: String,
    pub(super) definition: Bytes,
    pub(super) config: Bytes,
}

impl FrontendResult {
    /// Where it is for one platform.
    pub(super) fn one(&self) -> Option<One> {
        let part = self.definitions.0.get("")?;
        Some(One {
            result: self.one.clone()?,
            definition: part.definition.clone(),
            config: part.config.clone()?,
        })
    }

    /// The layers of the image that it is FROM, as far as the frontend tells them.
    pub(super) fn below(&self) -> Vec<Digest> {
        #[derive(Deserialize)]
        struct Config {
            rootfs: RootFs,
        }
        #[derive(Deserialize)]
        struct RootFs {
            diff_ids: Vec<Digest>,
        }
        let config = self.definitions.0.get("").and_then(|part| part.config.as_ref());
        let config = config.and_then(|config| serde_json::from_slice::<Config>(config).ok());
        config.map_or(Vec::new(), |config| config.rootfs.diff_ids)
    }

    /// Leaves it unmade: an exporter is given nothing, so that nothing is carried out.
    pub(super) fn leave(&mut self) {
        let nothing = Answer {
            one: Some(Ref::default()),
            ..Answer::default()
        };
        self.result = nothing.encode_to_vec().into();
    }

    /// Gives the exporter another configuration.
    pub(super) fn set_config(&mut self, config: Bytes) {
        self.result = with_config(&self.result, config);
    }
}

fn with_config(result: &[u8], config: Bytes) -> Bytes {
    let other = Answer {
        metadata: HashMap::from([(CONFIG.to_owned(), config)]),
        ..Answer::default()
    };
    // of messages one after another, the last one counts (Protocol Buffers, encoding)
    [result, &other.encode_to_vec()].concat().into()
}

/// How an image was made, for builds that stand on it: by platform, or under no name where there is one alone.
#[derive(Clone, Debug, Default)]
pub(super) struct Definitions(HashMap<String, Part>);

#[derive(Clone, Debug)]
struct Part {
    definition: Bytes,
    config: Option<Bytes>,
}

/// The line to the build that is under way.
#[derive(Clone)]
pub(super) struct Bridge {
    grpc: Grpc<Channel>,
    build: MetadataValue<Ascii>,
}

impl Bridge {
    pub(super) fn to(channel: Channel, build: &str) -> Result<Self, Error> {
        let grpc = Grpc::new(channel).max_decoding_message_size(LARGEST_ANSWER);
        Ok(Self {
            grpc,
            build: build.parse()?,
        })
    }

    /// Makes what is asked for.
    ///
    /// # Errors
    /// What the frontend said, or the refusal of [`Look::Before`]. [`Look::After`] comes later.
    pub(super) async fn make(&mut self, question: Question, look: Option<Look>) -> Result<FrontendResult, Error> {
        if let Some(Look::Before { stage, folder, refusal }) = look {
            let mut before = question.clone();
            before.set("target".to_owned(), stage);
            let (_, answer) = self.solve(before).await?;
            if self.any_has(&answer, folder).await? {
                return Err(refusal());
            }
        }
        let (result, answer) = self.solve(question).await?;
        Ok(FrontendResult {
            result,
            one: answer.one.as_ref().map(|one| one.id.clone()),
            definitions: answer.definitions(),
            has_folder: None,
        })
    }

    /// Gives what was made to the exporter.
    ///
    /// # Errors
    /// When the build has ended.
    pub(super) async fn export(&mut self, made: &FrontendResult) -> Result<(), Error> {
        let result = made.result.clone();
        self.end(Return { result, error: None }).await
    }

    /// Ends the build.
    ///
    /// # Errors
    /// When it has ended.
    pub(super) async fn give_up(&mut self, error: &Error) -> Result<(), Error> {
        let error = RpcStatus {
            code: Code::Unknown as i32,
            message: format!("{error:#}"),
        };
        self.end(Return {
            result: Bytes::new(),
            error: Some(error),
        })
        .await
    }

    async fn end(&mut self, answer: Return) -> Result<(), Error> {
        let Nothing {} = self.call("Return", answer).await?;
        Ok(())
    }

    async fn solve(&mut self, question: Question) -> Result<(Bytes, Answer), Error> {
        let result = if let Some(result) = self.answered(&question).await? {
            result
        } else {
            let asked = SolveRequest {
                frontend: question.frontend.to_owned(),
                frontend_opt: question.attrs,
                frontend_inputs: question.inputs,
                ..SolveRequest::new()
            };
            self.solved(asked).await?
        };
        let answer = Answer::decode(result.clone())?;
        Ok((result, answer))
    }

    /// What a frontend would come to.
    async fn answered(&mut self, question: &Question) -> Result<Option<Bytes>, Error> {
        let Some(upon) = &question.upon else { return Ok(None) };
        let asked = ResolveImageConfig {
            name: upon.image.clone(),
            platform: Some(upon.platform.clone()),
        };
        let ImageConfig { config } = self.call("ResolveImageConfig", asked).await?;
        let Some(config) = (upon.config)(&config) else { return Ok(None) };
        let result = self.solved(SolveRequest::definition(upon.definition())).await?;
        Ok(Some(with_config(&result, config)))
    }

    async fn solved(&mut self, asked: SolveRequest) -> Result<Bytes, Error> {
        let SolveResponse { result } = self.call("Solve", asked).await?;
        Ok(result)
    }

    /// What was made on the way, by which the builder knows it.
    ///
    /// # Errors
    /// When the build has ended.
    pub(super) async fn step(&mut self, definition: Definition) -> Result<String, Error> {
        let answer = Answer::decode(self.solved(SolveRequest::definition(definition)).await?)?;
        Ok(answer.one.context("the builder made nothing of a part of the build")?.id)
    }

    /// What is in a folder; `named` is a pattern, or nothing for all.
    ///
    /// # Errors
    /// When there is no folder at this path.
    pub(super) async fn list(&mut self, result: &str, folder: String, named: &str) -> Result<Vec<Stat>, Error> {
        let asked = ReadDir {
            r#ref: result.to_owned(),
            dir_path: folder,
            include_pattern: named.to_owned(),
        };
        let listed: Listed = self.call("ReadDir", asked).await?;
        Ok(listed.entries)
    }

    /// Whether there is something of this name in the root of what was made, for any platform.
    ///
    /// # Errors
    /// When it could not be made, or the build has ended.
    pub(super) async fn has_folder(&mut self, made: &FrontendResult, name: &str) -> Result<bool, Error> {
        self.any_has(&Answer::decode(made.result.clone())?, name).await
    }

    async fn any_has(&mut self, answer: &Answer, name: &str) -> Result<bool, Error> {
        // what was made of nothing is none
        for part in answer.all().filter(|part| !part.id.is_empty()) {
            let listed = self.list(&part.id, "/".to_owned(), name).await?;
            if listed.iter().any(|entry| entry.path == name) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn call<Q, A>(&mut self, method: &str, asked: Q) -> Result<A, Error>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        self.grpc.ready().await?;
        let mut request = Request::new(asked);
        request.metadata_mut().insert(BUILD, self.build.clone());
        let path = format!("/moby.buildkit.v1.frontend.LLBBridge/{method}").parse()?;
        let answer = self.grpc.unary(request, path, ProstCodec::default()).await;
        Ok(answer.map_err(|status| said(&status))?.into_inner())
    }
}

/// What is looked for in the root of an image.
#[derive(Clone, Copy, Debug)]
pub(in crate::docker) enum Look {
    /// It must not be in this stage of the Dockerfile.
    Before {
        stage: &'static str,
        folder: &'static str,
        refusal: fn() -> Error,
    },
    /// Whether what was made has it.
    After { folder: &'static str },
}

#[derive(Clone, PartialEq, Message)]
struct SolveRequest {
    #[prost(message, optional, tag = "1")]
    definition: Option<Definition>,
    #[prost(string, tag = "2")]
    frontend: String,
    #[prost(map = "string, string", tag = "3")]
    frontend_opt: HashMap<String, String>,
    #[prost(bool, tag = "5")]
    allow_result_return: bool,
    #[prost(bool, tag = "6")]
    allow_result_array_ref: bool,
    #[prost(map = "string, bytes", tag = "13")]
    frontend_inputs: HashMap<String, Bytes>,
}

impl SolveRequest {
    fn new() -> Self {
        Self {
            allow_result_return: true,
            allow_result_array_ref: true,
            ..Self::default()
        }
    }

    fn definition(definition: Definition) -> Self {
        Self {
            definition: Some(definition),
            ..Self::new()
        }
    }
}

#[derive(Clone, PartialEq, Message)]
struct ResolveImageConfig {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    platform: Option<Platform>,
}

#[derive(Clone, PartialEq, Message)]
struct ImageConfig {
    #[prost(bytes = "bytes", tag = "2")]
    config: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct SolveResponse {
    #[prost(bytes = "bytes", tag = "3")]
    result: Bytes,
}

/// `Result` in the protocol.
#[derive(Clone, PartialEq, Message)]
struct Answer {
    #[prost(message, optional, tag = "3")]
    one: Option<Ref>,
    #[prost(message, optional, tag = "4")]
    by_platform: Option<Refs>,
    #[prost(map = "string, bytes", tag = "10")]
    metadata: HashMap<String, Bytes>,
}

impl Answer {
    fn all(&self) -> impl Iterator<Item = &Ref> {
        self.one.iter().chain(self.by_platform.iter().flat_map(|refs| refs.refs.values()))
    }

    fn definitions(mut self) -> Definitions {
        let mut parts = HashMap::new();
        if let Some(one) = self.one {
            parts.insert(
                String::new(),
                Part {
                    definition: one.definition,
                    config: self.metadata.remove(CONFIG),
                },
            );
        }
        for (platform, part) in self.by_platform.into_iter().flat_map(|refs| refs.refs) {
            let config = self.metadata.remove(&format!("{CONFIG}/{platform}"));
            let definition = part.definition;
            parts.insert(platform, Part { definition, config });
        }
        // where nothing was made, there is nothing to stand on
        parts.retain(|_, part: &mut Part| !part.definition.is_empty());
        Definitions(parts)
    }
}

#[derive(Clone, PartialEq, Message)]
struct Ref {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(bytes = "bytes", tag = "2")]
    definition: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct Refs {
    #[prost(map = "string, message", tag = "1")]
    refs: HashMap<String, Ref>,
}

#[derive(Clone, PartialEq, Message)]
struct Return {
    #[prost(bytes = "bytes", tag = "1")]
    result: Bytes,
    #[prost(message, optional, tag = "2")]
    error: Option<RpcStatus>,
}

/// `google.rpc.Status`
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

#[derive(Clone, PartialEq, Message)]
struct ReadDir {
    #[prost(string, tag = "1")]
    r#ref: String,
    #[prost(string, tag = "2")]
    dir_path: String,
    #[prost(string, tag = "3")]
    include_pattern: String,
}

#[derive(Clone, PartialEq, Message)]
struct Listed {
    #[prost(message, repeated, tag = "1")]
    entries: Vec<Stat>,
}

#[derive(Clone, PartialEq, Message)]
struct Nothing {}
