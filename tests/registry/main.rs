//! The registry client against real registries; faults are made by a proxy of ours in front of one.

mod auth;
mod basics;
mod copies;
mod faults;
mod front;
mod lists;
mod memory;
mod server;
mod tls;
mod tokens;
mod triggers;
