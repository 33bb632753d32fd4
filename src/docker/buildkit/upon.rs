//! A layer on top of an image, asked for without a frontend: that of Docker 20.10 starts a process for each architecture, to see
//! which the machine can run (moby/buildkit, `util/archutil`).

use prost::bytes::Bytes;

use super::llb::Platform;

#[derive(Clone)]
pub(in crate::docker) struct Upon {
    pub(super) image: String,
    pub(super) platform: Platform,
    /// In the context.
    pub(super) archive: String,
    /// What the builder is to call it when it takes the image, and loads, unpacks and copies the archive.
    pub(super) names: [&'static str; 4],
    /// What becomes of the image's configuration. `None` leaves the build to a frontend.
    pub(super) config: fn(&[u8]) -> Option<Bytes>,
}

impl Upon {
    pub(in crate::docker) fn new(
        image: &str,
        platform: &str,
        archive: &str,
        names: [&'static str; 4],
        config: fn(&[u8]) -> Option<Bytes>,
    ) -> Self {
        Self {
            image: image.to_owned(),
            platform: Platform::named(platform),
            archive: archive.to_owned(),
            names,
            config,
        }
    }
}
