//! Channels, as people and their shells read them.

use super::result;
use super::table::table;
use crate::channel::ChannelName;
use crate::reference::Registry;

/// One row a channel: its prefix, and the full name of an image there.
pub fn channels(rows: &[(ChannelName, Registry)], image: &str) {
    let cells = rows.iter().map(|(channel, registry)| {
        let prefix = channel.prefix();
        let image = format!("{registry}/{prefix}{image}");
        [channel.to_string(), prefix, image]
    });
    result(table(["channel", "prefix", "an image"], cells));
}

/// Right in `eval`, `export $(...)` and `env $(...) COMMAND`: a prefix holds nothing that a shell would read.
pub fn env(channel: &ChannelName) {
    result(format_args!("LATTICE_CONTAINER_REPO_PREFIX={}", channel.prefix()));
}

/// Right in `$(...)`.
pub fn backend_vars(channel: &ChannelName, registry: &Registry) {
    result(format_args!(
        "--backend-var lattice-container-registry={registry} --backend-var lattice-container-repo-prefix={}",
        channel.prefix()
    ));
}
