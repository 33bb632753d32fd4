//! An image that stands on another is for no platform that the other lacks: BuildKit takes what it is given of an image of this
//! run for whatever platform it builds.

use super::Planner;
use crate::channel::Variant;
use crate::dockerfile::{ImageReference, ReferenceKind};
use crate::manifest::{Build, Image};
use crate::problem::Problem;

impl<'m> Planner<'m> {
    pub(super) fn refuse_other_platforms(&self, build: &Build, variant: Variant) -> Result<(), Problem> {
        for platform in &build.platforms {
            // for one platform, a stage that only another needs is not built
            let named = build.of_platform(platform, |dockerfile, args| {
                dockerfile.image_references(args, build.target.as_deref())
            })?;
            for (from, sibling) in named.iter().filter_map(|named| Some((named, self.base(build, named)?))) {
                let platforms = &sibling.build(variant).unwrap_or(&sibling.normal).platforms;
                if !platforms.contains(platform) {
                    return Err(refusal(build, from, sibling, platform, platforms));
                }
            }
        }
        Ok(())
    }

    /// The image of the manifest that a stage is FROM, for the platform of the build.
    fn base(&self, build: &Build, named: &ImageReference) -> Option<&'m Image> {
        let is_base = named.kind == ReferenceKind::From && named.platform.is_none();
        let is_image = is_base && build.named_context(&named.name).is_none();
        self.manifest.sibling(&named.name).filter(|_| is_image)
    }
}

fn refusal(build: &Build, from: &ImageReference, sibling: &Image, platform: &str, platforms: &[String]) -> Problem {
    let (file, line, name) = (&build.dockerfile.file, from.line, &sibling.name);
    let (place, all) = (&sibling.place, platforms.join(", "));
    Problem::usage(format!(
        "{file}:{line}: for {platform} this needs a `{name}` for {platform}, and {place} makes it for {all}"
    ))
    .hint(format!(
        "give `{name}` all platforms of what stands on it (`platforms: [{}]`), or say which one is meant: `FROM --platform={} {name}`",
        build.platforms.join(", "),
        platforms[0]
    ))
}
