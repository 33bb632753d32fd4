//! Channels, as people and their shells read them.

use comfy_table::Table;
use comfy_table::presets::NOTHING;

use super::result;
use crate::channel::ChannelName;
use crate::reference::Registry;

/// One row a channel: where it lives, its prefix, the full name of an image there.
pub fn channels(rows: &[(ChannelName, Registry)], image: &str) {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(["channel", "prefix", "an image"]);
    for (channel, registry) in rows {
        let prefix = channel.prefix();
        let name = format!("{registry}/{prefix}{image}");
        table.add_row([channel.to_string(), prefix, name]);
    }
    result(table);
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
