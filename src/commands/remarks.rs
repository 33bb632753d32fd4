//! What a person may want to do after a push: the command lines that mean the very channel.

use std::env;

use crate::channel::{ChannelName, Owner, Variant};
use crate::cli::Common;
use crate::manifest::Manifest;
use crate::problem::printable;
use crate::publish::Stored;
use crate::reference::{ImageName, Registry};

/// Where a push went, and what of that the next command line has to name too.
pub struct Target<'t> {
    channels: &'t [ChannelName],
    registry: &'t Registry,
    names_user: bool,
    names_registry: bool,
    file: Option<String>,
}

impl<'t> Target<'t> {
    pub fn new(common: &Common, channels: &'t [ChannelName], registry: &'t Registry) -> Self {
        let named = common.registry.as_deref().filter(|named| !named.is_empty());
        let file = common.file.as_deref().filter(|file| !file.as_os_str().is_empty());
        let file = file.filter(|file| env::var_os("LATTICE_IMAGES_FILE").as_deref() != Some(file.as_os_str()));
        Self {
            channels,
            registry,
            names_user: common.user.is_some(),
            names_registry: named.is_some_and(|named| env::var("LATTICE_IMAGES_REGISTRY").as_deref() != Ok(named)),
            file: file.map(|file| printable(&file.display().to_string())),
        }
    }

    fn filling(&self, channel: &ChannelName) -> String {
        let owner = match channel.owner() {
            Owner::Stable => " --stable".to_owned(),
            Owner::User(name) if self.names_user => format!(" --user {}", name.as_str()),
            Owner::User(_) => String::new(),
        };
        let debug = match channel.variant() {
            Variant::Normal => "",
            Variant::Debug => " --debug",
        };
        format!("lattice-images push-all{owner}{debug}{}", self.of_there())
    }

    fn cleaning(&self, channel: &ChannelName) -> String {
        let is_meant = !self.names_user && *channel.owner() != Owner::Stable && channel.variant() == Variant::Normal;
        let channel = if is_meant { String::new() } else { format!(" {channel}") };
        format!("lattice-images channels clean{channel}{}", self.of_there())
    }

    fn of_there(&self) -> String {
        let registry = self.names_registry.then(|| format!(" --registry {}", self.registry));
        let file = self.file.as_ref().map(|file| format!(" -f {file}"));
        registry.unwrap_or_default() + &file.unwrap_or_default()
    }
}

/// What the channels lack of the manifest's images, and what they have beyond them.
pub fn remarks(manifest: &Manifest, target: &Target<'_>, records: &[Stored]) -> Vec<String> {
    let mut remarks = Vec::new();
    for name in target.channels {
        let channel = format!("{}/{name}", target.registry);
        let Some(Stored { record, .. }) = records.iter().find(|stored| stored.record.channel == channel) else {
            continue;
        };
        let lacking = manifest
            .images
            .iter()
            .filter(|image| image.push && !record.images.contains_key(&image.name));
        let lacking: Vec<&str> = lacking.map(|image| image.name.as_str()).collect();
        if !lacking.is_empty() {
            let (lacking, command) = (lacking.join(", "), target.filling(name));
            remarks.push(format!("{channel} lacks {lacking}: `{command}` fills it"));
        }
        let is_former = |name: &&ImageName| manifest.image(name).is_none_or(|image| !image.push);
        let former: Vec<&str> = record.images.keys().filter(is_former).map(ImageName::as_str).collect();
        if !former.is_empty() {
            let (former, command) = (former.join(", "), target.cleaning(name));
            remarks.push(format!(
                "{channel} has {former}, which the manifest no longer publishes: `{command}` removes it"
            ));
        }
    }
    remarks
}
