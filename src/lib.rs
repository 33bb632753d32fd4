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
//!   run        |           carries a plan out: builds, then pushes      summary  what came of each image
//!   |          |
//!   execute  publish       in which order, how many at once
//!   docker/                the daemon; only this folder names bollard
//!   |
//!   plan                   manifest + channel + selection -> Plan, a pure function
//!   context/               what a build reads: walk, .dockerignore, tar
//!   |
//!   manifest/              images.yaml -> Manifest, validated     dockerfile  what a Dockerfile names
//!   channel  reference     names as types that cannot hold an invalid value
//!   user  credentials  docker_config  endpoint                    facts from outside
//!   event  problem         what happens; what goes wrong
//!   machine  atomic        this machine's name; files that are never seen in part
//! ```
//!
//! Data flows one way too: args -> manifest -> channel -> plan -> build -> push -> report.

pub mod atomic;
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
pub mod machine;
pub mod manifest;
pub mod plan;
pub mod problem;
pub mod publish;
pub mod reference;
pub mod report;
pub mod run;
pub mod summary;
pub mod user;
