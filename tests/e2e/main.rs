//! The real program against a real Docker daemon and a real registry; `make test` provides both.

mod channels;
mod content;
mod credentials;
mod debug;
mod failures;
mod ignore;
mod job;
mod keys;
mod registry;
mod shipped;
mod support;
mod sync;
