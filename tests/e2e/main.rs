//! The real program against a real Docker daemon and a real registry; `make test` provides both.

mod builders;
mod channels;
mod content;
mod credentials;
mod debug;
mod doctor;
mod doors;
mod endpoints;
mod failures;
#[path = "../registry/front.rs"]
#[expect(dead_code, reason = "the tests of the registry client use the rest")]
mod front;
mod ignore;
mod interrupt;
mod job;
mod keys;
mod meanwhile;
mod progress;
mod proxies;
mod proxy;
mod publishing;
mod reads;
mod registry;
mod releases;
mod replicas;
#[path = "../registry/server.rs"]
#[expect(dead_code, reason = "the tests of the registry client use the rest")]
mod server;
mod shipped;
mod staging;
mod support;
mod sync;
mod terminal;
mod token_auth;
#[path = "../registry/tokens.rs"]
#[expect(dead_code, reason = "the tests of the registry client use the rest")]
mod tokens;
