//! `lattice-images` builds a set of Docker images and publishes the set to a channel.
//!
//! Imports point one way, from the top of this picture down; `tests/architecture.rs` holds it to that.
//!
//! ```text
//! main            parse, tracing, dispatch, print the error and its hints, exit code
//! commands/       one file a verb: wiring, nothing else        cli      clap's types
//!   |         \
//!   |          report/     renders events and results: the only place that prints
//!   |          |
//!   release/   |           a plan beside what the registry has; builds, stages, publishes
//!   run        |           the builds of a plan                summary  what came of each image
//!   |          |
//!   publish/   guard       channels: state, intent, flips, record; what may become `stable`
//!   docker/    resolve     what builds, the one folder that knows the API of Docker; bases by their digests
//!   execute    layers      in which order, how many at once; shared layers are sent once
//!   |
//!   registry/  record      the registries, over HTTP; the record of a channel
//!   fingerprint/           what goes into a build, as one number
//!   plan       externals   manifest + channel + selection -> Plan, a pure function; images of elsewhere
//!   context/               what a build reads: walk, hashes, .dockerignore, tar
//!   |
//!   manifest/              images.yaml -> Manifest, validated     dockerfile  what a Dockerfile names and reads
//!   channel  reference     names as types that cannot hold an invalid value
//!   user  credentials  docker_config  endpoint  builder  git      facts from outside
//!   event  problem         what happens; what goes wrong
//!   machine  lock           this machine's name; turns
//!   kept  atomic           what is kept from run to run; files that are never seen in part
//!   timing                 the parts of a run, for whoever wants to know where its time goes
//!   tls  proxy             which servers are believed; the way through a proxy
//! ```
//!
//! Data flows one way too: args -> manifest -> channel -> plan -> build -> stage -> flip -> record -> report.

pub mod atomic;
pub mod builder;
pub mod channel;
pub mod cli;
pub mod commands;
pub mod context;
pub mod credentials;
pub mod docker;
pub mod docker_config;
pub mod dockerfile;
pub mod endpoint;
pub mod event;
pub mod execute;
pub mod externals;
pub mod fingerprint;
pub mod git;
pub mod guard;
pub mod kept;
pub mod layers;
pub mod lock;
pub mod machine;
pub mod manifest;
pub mod plan;
pub mod problem;
pub mod proxy;
pub mod publish;
pub mod record;
pub mod reference;
pub mod registry;
pub mod release;
pub mod report;
pub mod resolve;
pub mod run;
pub mod summary;
pub mod timing;
mod tls;
pub mod user;
