//! Which part of its context a build reads, as `BuildKit` asks for it (moby/buildkit, `frontend/dockerfile/dockerfile2llb`:
//! `ctxPaths` and `normalizeContextPaths`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::{Dockerfile, DockerfileError, Instruction, Mount, Word};
use crate::problem::printable;

/// What a build reads of its context, links among it not followed yet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reads {
    /// All of it, or it cannot be told what.
    Whole,
    /// These paths with everything below; a component may have the wildcards of Go's `filepath.Match`. One that is below
    /// another may be a link, and lead elsewhere.
    Paths(BTreeSet<String>),
}

impl Reads {
    /// What either reads.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Paths(paths), Self::Paths(others)) => Self::of(paths.into_iter().chain(others)),
            _ => Self::Whole,
        }
    }

    #[must_use]
    pub fn of(paths: impl IntoIterator<Item = String>) -> Self {
        let clean: BTreeSet<String> = paths.into_iter().map(|path| components(&path).join("/")).collect();
        if clean.contains("") {
            return Self::Whole;
        }
        Self::Paths(clean)
    }

    /// Whether all that `other` reads is also read here, so that the same links are followed.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Whole, _) => true,
            (Self::Paths(_), Self::Whole) => false,
            (Self::Paths(own), Self::Paths(other)) => other.is_subset(own),
        }
    }
}

impl fmt::Display for Reads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => f.write_str("all"),
            Self::Paths(paths) if paths.is_empty() => f.write_str("nothing"),
            Self::Paths(paths) => f.write_str(&paths.iter().map(|path| printable(path)).collect::<Vec<_>>().join(" ")),
        }
    }
}

/// Without `.`, and `..` goes up to the context's root at most. `**` takes everything from there on.
fn components(path: &str) -> Vec<&str> {
    let mut components = Vec::new();
    for component in path.split('/') {
        match component {
            "" | "." => {}
            ".." => {
                components.pop();
            }
            "**" => break,
            _ => components.push(component),
        }
    }
    components
}

impl Dockerfile {
    /// Whether nothing but copies out of contexts makes files, as far as the words tell.
    #[must_use]
    pub fn only_copies(&self) -> bool {
        !self.has_foreign_frontend()
            && self.instructions.iter().all(|instruction| match instruction.keyword.as_str() {
                "RUN" | "ONBUILD" => false,
                "COPY" | "ADD" => instruction.is_plain_copy(),
                _ => true,
            })
    }

    /// What the stages that `BuildKit` builds for `target` read of the context. `args` are those of
    /// [`Dockerfile::image_references`]. What images from elsewhere defer with `ONBUILD` is not in it: their own
    /// Dockerfiles would tell.
    ///
    /// # Errors
    /// As [`Dockerfile::image_references`].
    pub fn reads(&self, args: &BTreeMap<String, String>, target: Option<&str>) -> Result<Reads, DockerfileError> {
        let needed = self.stages_needed(args, target)?;
        if self.has_foreign_frontend() {
            return Ok(Reads::Whole);
        }
        let mut paths = Vec::new();
        for instruction in needed.into_iter().flat_map(|stage| self.instructions_of(stage)) {
            // what is deferred is carried out by another build, or in a stage that stands on this one
            match instruction.trigger.as_deref().unwrap_or(instruction).paths(self.escape) {
                Some(read) => paths.extend(read),
                None => return Ok(Reads::Whole),
            }
        }
        Ok(Reads::of(paths))
    }
}

impl Dockerfile {
    /// The lines (1-based) of the needed stages that fetch an address and do not say by a checksum what must come.
    ///
    /// # Errors
    /// As [`Dockerfile::image_references`].
    pub fn unchecked_downloads(&self, args: &BTreeMap<String, String>, target: Option<&str>) -> Result<Vec<usize>, DockerfileError> {
        let needed = self.stages_needed(args, target)?;
        let instructions = needed.into_iter().flat_map(|stage| self.instructions_of(stage));
        let unchecked = instructions.filter(|add| add.keyword == "ADD" && add.flag("checksum").is_none());
        let fetches = |add: &&Instruction| add.sources().any(|source| is_address(&source.text));
        Ok(unchecked.filter(fetches).map(|add| add.line).collect())
    }
}

fn is_address(source: &str) -> bool {
    let schemes = ["http://", "https://", "git://", "ssh://", "git@"];
    schemes.iter().any(|scheme| source.starts_with(scheme)) && !names_commit(source)
}

/// Whether it is a repository at one commit, `...#COMMIT[:FOLDER]`.
fn names_commit(source: &str) -> bool {
    let fragment = source.split_once('#').map_or("", |(_, fragment)| fragment);
    let name = fragment.split(':').next().unwrap_or_default();
    matches!(name.len(), 40 | 64) && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Instruction {
    /// Whether it copies what it names, without patterns, heredocs and addresses.
    fn is_plain_copy(&self) -> bool {
        let is_plain = |source: &Word| !source.text.contains(['*', '?', '[']) && !is_address(&source.text) && !names_commit(&source.text);
        self.flags.iter().all(|flag| flag.name == "chmod") && self.sources().count() + 1 == self.args.len() && self.sources().all(is_plain)
    }

    /// The paths of the context that it reads, `None` where they cannot be told.
    fn paths(&self, escape: char) -> Option<Vec<String>> {
        let told = |path: &str| (!path.contains(['$', '"', '\'', escape])).then(|| path.to_owned());
        match self.keyword.as_str() {
            "COPY" if self.flag("from").is_some_and(|from| !from.text.is_empty()) => Some(Vec::new()),
            "ADD" | "COPY" => {
                let is_url = |path: &str| ["http://", "https://"].iter().any(|scheme| path.starts_with(scheme));
                let sources = self.sources().map(|source| source.text.as_str());
                sources.filter(|path| !is_url(path)).map(told).collect()
            }
            "RUN" => self.mounts.iter().filter_map(|mount| mount.path().map(told)).collect(),
            _ => Some(Vec::new()),
        }
    }
}

impl Mount {
    fn path(&self) -> Option<&str> {
        let source = self.source.as_deref().unwrap_or_default();
        match self.kind.as_str() {
            _ if self.from.as_ref().is_some_and(|from| !from.text.is_empty()) => None,
            "cache" | "secret" | "ssh" => None,
            // BuildKit asks for the context for a tmpfs too, and a kind with a variable in it can be any
            "bind" | "tmpfs" => Some(source),
            _ => Some(""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile::parse;

    /// A Dockerfile behind `FROM scratch`, and the paths that it is taken to read; `.` stands for the whole context.
    const TABLE: [(&str, &str); 37] = [
        ("COPY a /a", "a"),
        ("COPY a b/c /x/", "a b/c"),
        ("COPY . /a", "."),
        ("COPY / /a", "."),
        ("COPY a . /a/", "."),
        ("COPY ./a/../b /a", "b"),
        ("COPY ../a /a", "a"),
        ("COPY a a/b /a/", "a a/b"),
        ("COPY *.txt d/*/x? /a/", "*.txt d/*/x?"),
        ("COPY a/**/b /a/", "a"),
        ("COPY [\"a b\", \"c\", \"/d/\"]", "a b|c"),
        ("COPY $X /a", "."),
        ("COPY ${X}/b /a", "."),
        ("COPY a$X /a", "."),
        ("COPY \"a\" /a", "."),
        ("COPY a $X", "a"),
        ("COPY --chown=1:1 --chmod=0644 a /a", "a"),
        ("COPY --exclude=*.log a /a", "a"),
        ("COPY --parents a/./b/*.c /a/", "a/b/*.c"),
        ("COPY --parents a/**/c /a/", "a"),
        ("COPY --link a /a", "a"),
        ("COPY --from=scratch a /a", ""),
        ("COPY --from=other.io/x a /a", ""),
        ("COPY --from= a /a", "a"),
        ("COPY <<EOF /a\nx\nEOF", ""),
        ("COPY b <<EOF c /a/\nCOPY d /d\nEOF", "b c"),
        ("ADD https://x.io/a /a", ""),
        ("ADD http://x.io/a b /a/", "b"),
        ("ADD a.tar /a", "a.tar"),
        ("RUN --mount=target=/a b", "."),
        ("RUN --mount=type=bind,source=a,target=/a b", "a"),
        ("RUN --mount=type=bind,src=a/b,dst=/a --mount=from=x.io/y,src=z,dst=/z c", "a/b"),
        ("RUN --mount=type=cache,target=/c --mount=type=secret,id=s --mount=type=ssh d", ""),
        ("RUN --mount=type=bind,source=$X,target=/a b", "."),
        ("RUN <<EOF\nCOPY a /a\nEOF", ""),
        ("RUN COPY a b", ""),
        ("ONBUILD COPY a /a", "a"),
    ];

    fn reads(text: &str, target: Option<&str>) -> Reads {
        parse(text).expect(text).reads(&BTreeMap::new(), target).expect(text)
    }

    fn expected(paths: &str) -> Reads {
        let separator = if paths.contains('|') { '|' } else { ' ' };
        match paths {
            "." => Reads::Whole,
            _ => Reads::Paths(paths.split(separator).filter(|path| !path.is_empty()).map(str::to_owned).collect()),
        }
    }

    #[test]
    fn what_each_is_taken_to_read() {
        for (text, paths) in TABLE {
            assert_eq!(reads(&format!("FROM scratch\n{text}\n"), None), expected(paths), "{text}");
        }
    }

    #[test]
    fn stages_that_are_not_needed_read_nothing() {
        let text = "FROM scratch AS one\nCOPY a /\nFROM scratch AS two\nCOPY b /\nFROM one AS three\nCOPY c /\nFROM scratch\nCOPY --from=three /a /\nCOPY d /\n";
        assert_eq!(reads(text, None), expected("a c d"));
        assert_eq!(reads(text, Some("two")), expected("b"));
        assert_eq!(reads(text, Some("three")), expected("a c"));
    }

    #[test]
    fn a_foreign_frontend_may_read_anything() {
        assert_eq!(reads("# syntax=x.io/y\nFROM scratch\n", None), Reads::Whole);
        assert_eq!(reads("# syntax=docker/dockerfile:1\nFROM scratch\n", None), expected(""));
    }

    #[test]
    fn what_only_copies() {
        let only = |text: &str| parse(&format!("FROM scratch\n{text}\n")).expect(text).only_copies();
        for text in [
            "COPY a b/ /x/",
            "COPY --chmod=0644 . /",
            "ADD a.tar /",
            "COPY [\"a b\", \"/c\"]",
            "WORKDIR /w\nENV a=b\nUSER c",
        ] {
            assert!(only(text), "{text}");
        }
        for text in [
            "RUN a",
            "ONBUILD COPY a /",
            "COPY *.jar /",
            "COPY [a]b /",
            "COPY a b? /x/",
            "COPY --chown=1 a /",
            "COPY --from=x a /",
            "COPY <<EOF /a\nb\nEOF",
            "ADD https://x.io/a /",
        ] {
            assert!(!only(text), "{text}");
        }
    }

    #[test]
    fn what_is_fetched_unchecked() {
        let text = "FROM scratch\nADD a https://x.io/a /\nADD --checksum=sha256:0 https://x.io/b /\nADD git@x.io:c /\nADD a /\nADD https://x.io/e.git#0123456789abcdef0123456789abcdef01234567:f /\nADD https://x.io/e.git#main /\nFROM scratch AS other\nADD http://x.io/d /\n";
        let lines = |target| parse(text).expect(text).unchecked_downloads(&BTreeMap::new(), target).expect(text);
        assert_eq!((lines(Some("0")), lines(None)), (vec![2, 4, 7], vec![9]));
    }

    #[test]
    fn what_contains_what() {
        let of = |paths: &[&str]| Reads::of(paths.iter().map(|path| (*path).to_owned()));
        assert!(of(&["a", "a/b"]).contains(&of(&["a/b", "/a"])) && Reads::Whole.contains(&of(&["a"])));
        assert!(!of(&["a"]).contains(&of(&["a", "a/b"])), "it may be a link");
        assert!(!of(&["a/b"]).contains(&of(&["a"])) && !of(&["a"]).contains(&of(&["ab"])) && !of(&["a"]).contains(&of(&["/"])));
    }
}
