//! A layer on top of an image, asked for without a frontend: that of Docker 20.10 starts a process for each architecture, to see
//! which the machine can run (moby/buildkit, `util/archutil`).

use prost::bytes::Bytes;
use serde_json::json;

use super::{AS_IT_IS, Action, Definition, FOLDER, FileCopy, IMAGE, Op, Platform};
use crate::docker::buildkit::CONTEXT;

/// In the place of what a file operation begins with.
const NOTHING: i64 = -1;
/// What of a folder is wanted, and by what it is known the next time (moby/buildkit, `solver/pb/attr.go`).
const PATHS: &str = "local.followpaths";
const FOLDER_NAME: &str = "local.sharedkeyhint";

#[derive(Clone)]
pub(in crate::docker) struct Upon {
    pub(in crate::docker::buildkit) image: String,
    pub(in crate::docker::buildkit) platform: Platform,
    /// In the context.
    archive: String,
    /// What the builder is to call it when it takes the image, and loads, unpacks and copies the archive.
    names: [&'static str; 4],
    /// What becomes of the image's configuration. `None` leaves the build to a frontend.
    pub(in crate::docker::buildkit) config: fn(&[u8]) -> Option<Bytes>,
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

    /// A layer of what is in an archive, on top of an image: it is unpacked by itself, and copied from there.
    pub(in crate::docker::buildkit) fn definition(&self) -> Definition {
        let mut definition = Definition::default();
        let [from, loading, unpacking, copying] = self.names;
        let image = Op {
            platform: Some(self.platform.clone()),
            ..Op::source(format!("{IMAGE}{}", self.image), [])
        };
        let paths = json!([self.archive]).to_string();
        let archive = Op::source(format!("{FOLDER}{CONTEXT}"), [(PATHS, paths), (FOLDER_NAME, CONTEXT.to_owned())]);
        let (image, archive) = (definition.add(from, &image), definition.add(loading, &archive));
        let unpacked = Action {
            input: NOTHING,
            copy: Some(FileCopy {
                unpacks: true,
                ..FileCopy::to_the_root(format!("/{}", self.archive))
            }),
            ..Action::default()
        };
        let unpacked = definition.add(unpacking, &Op::files([archive], unpacked));
        let copied = Action {
            source: 1,
            copy: Some(FileCopy::to_the_root("/".to_owned())),
            ..Action::default()
        };
        let copied = definition.add(copying, &Op::files([image, unpacked], copied));
        definition.end_with(&copied.digest);
        definition
    }
}

impl FileCopy {
    /// As a frontend means it without a flag.
    fn to_the_root(from: String) -> Self {
        Self {
            from,
            to: "/".to_owned(),
            mode: -1,
            contents: true,
            creates_folders: true,
            allow_wildcard: true,
            timestamp: AS_IT_IS,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::super::{Step, copied_layers};
    use super::*;

    #[test]
    fn an_archive_upon_an_image_is_such_a_stage() {
        let upon = Upon::new("h/i", "linux/arm/v7", "a.tar", ["from", "load", "unpack", "copy"], |_| None);
        let definition = upon.definition();
        let platform = Platform {
            architecture: "arm".to_owned(),
            os: "linux".to_owned(),
            variant: "v7".to_owned(),
        };
        let image = Op::decode(definition.ops[0].clone()).expect("an operation");
        assert_eq!(image.source.expect("a source").identifier, "docker-image://h/i");
        assert_eq!(image.platform, Some(platform));
        assert_eq!(definition.metadata.len(), 4, "each has a name");
        let (_, layers) = copied_layers(&definition.encode_to_vec().into(), |_| false).expect("copies alone");
        let [layer] = &layers[..] else { panic!("{} layers", layers.len()) };
        let [Step::Copy(copy)] = &layer.steps[..] else {
            panic!("not one copy")
        };
        assert_eq!(
            (copy.folder.as_str(), copy.from.as_str(), copy.to.as_str()),
            (CONTEXT, "/a.tar", "/")
        );
        assert!(copy.unpacks);
    }
}
