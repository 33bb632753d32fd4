//! The images of elsewhere that a build resolves, and a build that is given them by their digests.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::dockerfile::ReferenceKind;
use crate::manifest::{Build, NamedContext};
use crate::problem::Problem;
use crate::reference::Digest;

const IMAGE_SCHEME: &str = "docker-image://";
/// An arg that stands for a `# syntax=` line (moby/buildkit, `frontend/dockerui`).
pub(crate) const SYNTAX_ARG: &str = "BUILDKIT_SYNTAX";

/// Of a Dockerfile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stages {
    /// Those that it needs by its own words.
    Needed,
    /// All up to the target: what a base defers (`ONBUILD COPY --from=`) may read any of them.
    UpToTarget,
}

/// The names, as the build has them, of the images that `build` resolves and that `is_sibling` does not claim:
/// `FROM`, `COPY --from`, `RUN --mount=from=` of these stages, `# syntax=`, `docker-image://`.
///
/// # Errors
/// What is wrong with the Dockerfile.
pub fn of(build: &Build, stages: Stages, is_sibling: impl Fn(&str) -> bool) -> Result<BTreeSet<String>, Problem> {
    let mut names: BTreeSet<String> = places(build, stages)?.into_iter().map(|(name, _)| name).collect();
    names.retain(|name| !is_sibling(name));
    names.extend(build.args.get(SYNTAX_ARG).map(|syntax| first_word(syntax).to_owned()));
    names.extend(build.additional_contexts.values().filter_map(image).map(str::to_owned));
    Ok(names)
}

/// The names of the images that stages of the Dockerfile are FROM, siblings among them, each with the platform that is meant.
///
/// # Errors
/// What is wrong with the Dockerfile.
pub fn bases(build: &Build) -> Result<BTreeSet<(String, String)>, Problem> {
    let mut bases = BTreeSet::new();
    for platform in &build.platforms {
        let references = build.of_platform(platform, |dockerfile, args| {
            dockerfile.image_references(args, build.target.as_deref())
        })?;
        for base in references.into_iter().filter(|reference| reference.kind == ReferenceKind::From) {
            let name = build.named_context(&base.name).map_or(Some(base.name.as_str()), image);
            // what a base defers hardly differs by platform, so one that is not known is taken for the build's
            let of_base = base.platform.filter(|platform| !platform.is_empty());
            bases.extend(name.map(|name| (name.to_owned(), of_base.unwrap_or_else(|| platform.clone()))));
        }
    }
    Ok(bases)
}

/// Where the Dockerfile names the images of `digests`, with what takes the place of each name.
///
/// # Errors
/// What is wrong with the Dockerfile.
pub fn replacements(build: &Build, digests: &BTreeMap<String, Digest>) -> Result<Vec<(Range<usize>, String)>, Problem> {
    let places = places(build, Stages::UpToTarget)?;
    // a name that is another for another platform is left to the builder
    let is_one = |name: &str, span: &Range<usize>| places.iter().all(|(other, at)| at != span || other == name);
    let places = places.iter().filter(|(name, span)| is_one(name, span));
    Ok(places
        .filter_map(|(name, span)| digests.get(name).map(|digest| (span.clone(), pinned(name, digest))))
        .collect())
}

/// The build with digests in its keys; those of the Dockerfile take their places by [`replacements`].
#[must_use]
pub fn with_digests(build: &Build, digests: &BTreeMap<String, Digest>) -> Build {
    let mut build = build.clone();
    for context in build.additional_contexts.values_mut() {
        let found = image(context).and_then(|name| Some(pinned(name, digests.get(name)?)));
        if let Some(pinned) = found {
            *context = NamedContext::Image(format!("{IMAGE_SCHEME}{pinned}"));
        }
    }
    if let Some(syntax) = build.args.get_mut(SYNTAX_ARG)
        && let Some(digest) = digests.get(first_word(syntax))
    {
        let rest = syntax[first_word(syntax).len()..].to_owned();
        *syntax = pinned(first_word(syntax), digest) + &rest;
    }
    build
}

/// `name:tag@digest`, which every builder takes by the digest. A name that has a digest keeps it.
#[must_use]
pub fn pinned(name: &str, digest: &Digest) -> String {
    if name.contains('@') {
        name.to_owned()
    } else {
        format!("{name}@{digest}")
    }
}

fn image(context: &NamedContext) -> Option<&str> {
    match context {
        NamedContext::Image(image) => image.strip_prefix(IMAGE_SCHEME),
        NamedContext::Folder(_) => None,
    }
}

fn first_word(syntax: &str) -> &str {
    syntax.split(' ').next().unwrap_or_default()
}

fn places(build: &Build, stages: Stages) -> Result<Vec<(String, Range<usize>)>, Problem> {
    let dockerfile = &build.dockerfile.parsed;
    let target = build.target.as_deref();
    let references = build.of_each_platform(|dockerfile, args| match stages {
        Stages::Needed => dockerfile.image_references(args, target),
        Stages::UpToTarget => dockerfile.image_references_up_to(args, target),
    })?;
    let syntax = dockerfile.syntax.iter().filter(|_| !build.args.contains_key(SYNTAX_ARG));
    let syntax = syntax.map(|syntax| (syntax.image.text.clone(), syntax.image.span.clone()));
    let named = references.into_iter().map(|reference| (reference.name, reference.span));
    let is_context = |(name, _): &(String, _)| build.named_context(name).is_some();
    Ok(syntax.chain(named.filter(|place| !is_context(place))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::tests::one_build;

    fn digest(digit: char) -> Digest {
        format!("sha256:{}", digit.to_string().repeat(64)).parse().expect("a digest")
    }

    const DOCKERFILE: &str = "# syntax=docker/dockerfile:1\nARG B=debian:12\nFROM $B AS one\nFROM x.io/not-needed\nFROM base\nCOPY --from=one /a /a\nCOPY --from=x.io/tool /b /b\nCOPY --from=named /c /c\nRUN --mount=from=x.io/mount@sha256:0,target=/m true\n";

    #[test]
    fn every_image_of_elsewhere_is_named_once() {
        let mut build = one_build(DOCKERFILE);
        build
            .additional_contexts
            .insert("named".to_owned(), NamedContext::Image("docker-image://x.io/context:1".to_owned()));
        let names = of(&build, Stages::Needed, |name| name == "base").expect("found");
        let expected = [
            "debian:12",
            "docker/dockerfile:1",
            "x.io/context:1",
            "x.io/mount@sha256:0",
            "x.io/tool",
        ];
        assert_eq!(names.iter().map(String::as_str).collect::<Vec<_>>(), expected);
        let all = of(&build, Stages::UpToTarget, |name| name == "base").expect("found");
        assert_eq!(all.difference(&names).collect::<Vec<_>>(), ["x.io/not-needed"]);
        build.args.insert(SYNTAX_ARG.to_owned(), "x.io/other option".to_owned());
        let names = of(&build, Stages::Needed, |_| false).expect("found");
        assert!(names.contains("x.io/other") && !names.contains("docker/dockerfile:1") && names.contains("base"));
    }

    #[test]
    fn what_stages_are_from_is_told_with_its_platform() {
        let text = "ARG B=debian:12\nFROM --platform=linux/arm64 $B AS one\nFROM x.io/not-needed\nFROM --platform=$BUILDPLATFORM x.io/go AS two\nFROM named\nCOPY --from=one /a /a\nCOPY --from=two /a /a\nCOPY --from=x.io/tool /b /b\n";
        let mut build = one_build(text);
        let named = NamedContext::Image("docker-image://x.io/context:1".to_owned());
        build.additional_contexts.insert("named".to_owned(), named);
        build.platforms = vec!["linux/amd64".to_owned(), "linux/s390x".to_owned()];
        let expected = [
            ("debian:12", "linux/arm64"),
            ("x.io/context:1", "linux/amd64"),
            ("x.io/context:1", "linux/s390x"),
            ("x.io/go", "linux/amd64"),
            ("x.io/go", "linux/s390x"),
        ];
        let expected = expected.map(|(name, platform)| (name.to_owned(), platform.to_owned())).into();
        assert_eq!(bases(&build).expect("found"), expected);
    }

    #[test]
    fn a_context_stands_for_an_image_however_that_is_written() {
        let mut build = one_build("FROM alpine:latest\nCOPY --from=docker.io/library/debian:12 /a /a\nCOPY --from=x.io/tool /b /b\n");
        for name in ["alpine", "debian:12"] {
            let context = NamedContext::Folder("/somewhere".into());
            build.additional_contexts.insert(name.to_owned(), context);
        }
        let names = of(&build, Stages::Needed, |_| false).expect("found");
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["x.io/tool"]);
        assert_eq!(bases(&build).expect("found"), BTreeSet::new());
        let digests = [("alpine:latest", '1'), ("docker.io/library/debian:12", '2')];
        let digests = digests.map(|(name, digit)| (name.to_owned(), digest(digit))).into();
        assert_eq!(replacements(&build, &digests).expect("found"), [], "BuildKit would not know them");
    }

    #[test]
    fn a_build_is_given_the_very_digests() {
        let mut build = one_build(DOCKERFILE);
        build
            .additional_contexts
            .insert("named".to_owned(), NamedContext::Image("docker-image://x.io/context:1".to_owned()));
        build.args.insert(SYNTAX_ARG.to_owned(), "x.io/other option".to_owned());
        let digests = [
            ("debian:12", '1'),
            ("x.io/tool", '2'),
            ("x.io/mount@sha256:0", '3'),
            ("x.io/context:1", '4'),
            ("x.io/other", '5'),
        ];
        let digests = digests.map(|(name, digit)| (name.to_owned(), digest(digit))).into();
        let text = build.dockerfile.parsed.replace(&replacements(&build, &digests).expect("found"));
        let (one, two) = (digest('1'), digest('2'));
        let expected = DOCKERFILE
            .replace("FROM $B", &format!("FROM debian:12@{one}"))
            .replace("x.io/tool", &format!("x.io/tool@{two}"));
        assert_eq!(text, expected);
        let build = with_digests(&build, &digests);
        assert_eq!(build.args[SYNTAX_ARG], format!("x.io/other@{} option", digest('5')));
        assert_eq!(
            build.additional_contexts["named"],
            NamedContext::Image(format!("docker-image://x.io/context:1@{}", digest('4')))
        );
    }
}
