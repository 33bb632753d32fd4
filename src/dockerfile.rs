//! Dockerfiles: which images and which parts of the context a build reads.
//!
//! Read as moby/buildkit's `dockerfile` frontend does. What only a builder can judge is left to it:
//! [`parse`] refuses what no builder takes, and nothing else.
//!
//! Heredocs are read as Docker 23 and later do. Docker 20.10's own frontend does not know them and
//! takes their lines for instructions, unless a `# syntax=` line brings a newer one.

mod expand;
mod flags;
mod heredoc;
mod json;
mod lines;
mod reads;
mod stages;
#[cfg(test)]
mod tests;
mod words;

use std::fmt;
use std::ops::Range;

use heredoc::HeredocStart;
use lines::{Directives, Lines, Logical};
pub use reads::Reads;
pub use stages::{ImageReference, ReferenceKind};

/// Go's `bufio.Scanner` gives up on longer lines, and Docker with it.
const LONGEST_LINE: usize = 64 * 1024 - 1;

const INSTRUCTIONS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// A Dockerfile that has been read.
#[derive(Clone, Debug)]
pub struct Dockerfile {
    text: String,
    /// The escape character: `\`, or a backtick after `# escape=`.
    pub escape: char,
    /// `# syntax=`, the image of the frontend that reads this file.
    pub syntax: Option<Syntax>,
    /// All of them, in the order of the file.
    pub instructions: Vec<Instruction>,
    /// One for each `FROM`.
    pub stages: Vec<Stage>,
}

/// `# syntax=docker/dockerfile:1`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Syntax {
    /// The frontend's image; what follows a blank is for the frontend.
    pub image: Word,
    /// 1-based.
    pub line: usize,
}

/// A word, and where it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// Continuations are gone from it; of a flag also quotes and escapes, and of a JSON list its
    /// escapes. Variables are as written.
    pub text: String,
    /// The bytes of the file that hold it. Other text may take their place.
    pub span: Range<usize>,
}

/// One instruction, as written: nothing in it is expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// In upper case.
    pub keyword: String,
    /// Where it begins, 1-based.
    pub line: usize,
    /// The index of its stage, `None` before the first `FROM`.
    pub stage: Option<usize>,
    /// `--name=value`, in order.
    pub flags: Vec<Flag>,
    /// Those `--mount` of a `RUN` that have a value.
    pub mounts: Vec<Mount>,
    /// `ADD`, `COPY`, `EXPOSE`, `FROM`, `VOLUME`: the words. `ARG`, `ENV`, `LABEL`: the words with
    /// their quotes. Others: all that follows, in one. A JSON list: its items.
    pub args: Vec<Word>,
    /// Whether `args` are written as a JSON list.
    pub json: bool,
    /// What `ONBUILD` defers.
    pub trigger: Option<Box<Instruction>>,
}

/// `--name=value`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag {
    /// Without the `--`.
    pub name: String,
    /// `None` without `=`.
    pub value: Option<Word>,
}

/// What `RUN --mount=` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// In lower case, `bind` unless said otherwise.
    pub kind: String,
    /// The image or stage; `None` for the context, where the kind reads one.
    pub from: Option<Word>,
    /// The path in `from`, its root if `None`.
    pub source: Option<String>,
}

impl Default for Mount {
    fn default() -> Self {
        Self {
            kind: "bind".into(),
            from: None,
            source: None,
        }
    }
}

/// `FROM base AS name`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// In lower case.
    pub name: Option<String>,
    /// As written, with its variables.
    pub base: Word,
    /// As written, with its variables.
    pub platform: Option<Word>,
    /// Of the `FROM`, 1-based.
    pub line: usize,
}

/// A Dockerfile that no builder would take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerfileError {
    /// 1-based; 1 where it is about the file as a whole.
    pub line: usize,
    /// What is wrong, without the line.
    pub message: String,
}

impl DockerfileError {
    fn new(line: usize, message: impl Into<String>) -> Self {
        Self {
            line,
            message: message.into(),
        }
    }
}

impl fmt::Display for DockerfileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dockerfile line {}: {}", self.line, self.message)
    }
}

impl std::error::Error for DockerfileError {}

/// Reads a Dockerfile, with or without byte order mark and carriage returns.
///
/// # Errors
/// No `FROM`, or an instruction other than `ARG` before it; a `FROM` with two words or with a name
/// that is none; an unknown instruction, unless a `# syntax=` line leaves the meaning to a frontend;
/// a heredoc without end; a directive twice; a line longer than 65535 bytes.
pub fn parse(text: &str) -> Result<Dockerfile, DockerfileError> {
    if let Some(long) = text.split('\n').position(|line| line.len() > LONGEST_LINE) {
        let message = format!("the line is longer than {LONGEST_LINE} bytes");
        return Err(DockerfileError::new(long + 1, message));
    }
    let Directives { escape, syntax } = Directives::read(text)?;
    let mut dockerfile = Dockerfile {
        text: text.to_owned(),
        escape,
        syntax,
        instructions: Vec::new(),
        stages: Vec::new(),
    };
    let mut lines = Lines::new(text);
    while let Some(logical) = Logical::read(&mut lines, escape) {
        let instruction = words::instruction(&logical, escape);
        let refuse = |message| DockerfileError::new(logical.line, message);
        for heredoc in HeredocStart::all_in(&logical, &instruction).map_err(refuse)? {
            let missing = format!("nothing ends the heredoc `{}`", heredoc.name);
            heredoc.pass(&mut lines).ok_or_else(|| refuse(missing))?;
        }
        dockerfile.push(instruction).map_err(refuse)?;
    }
    if dockerfile.stages.is_empty() && !dockerfile.has_foreign_frontend() {
        return Err(DockerfileError::new(1, "there is no `FROM`"));
    }
    Ok(dockerfile)
}

impl Dockerfile {
    fn push(&mut self, mut instruction: Instruction) -> Result<(), String> {
        let keyword = instruction.keyword.as_str();
        if keyword == "FROM" {
            self.stages.push(Stage::of(&instruction)?);
        } else if !INSTRUCTIONS.contains(&keyword) && self.syntax.is_none() {
            return Err(format!("unknown instruction `{keyword}`"));
        } else if self.stages.is_empty() && keyword != "ARG" && !self.has_foreign_frontend() {
            return Err(format!("`{keyword}` stands before the first `FROM`"));
        }
        instruction.stage = self.stages.len().checked_sub(1);
        if let Some(trigger) = &mut instruction.trigger {
            trigger.stage = instruction.stage;
        }
        self.instructions.push(instruction);
        Ok(())
    }

    /// The text as it was read.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether `# syntax=` names another frontend than Docker's own, so that the file may mean
    /// anything.
    #[must_use]
    pub fn has_foreign_frontend(&self) -> bool {
        self.syntax.as_ref().is_some_and(|syntax| {
            let image = syntax.image.text.as_str();
            let name = image.split(['@', ':']).next().unwrap_or(image);
            let name = name.strip_prefix("docker.io/").unwrap_or(name);
            !["docker/dockerfile", "docker/dockerfile-upstream"].contains(&name)
        })
    }

    /// Whether an `ARG` makes the build arg of this name a part of what is built, as far as its words tell.
    #[must_use]
    pub fn declares(&self, arg: &str) -> bool {
        let names = self.instructions.iter().filter(|instruction| instruction.keyword == "ARG");
        let mut names = names
            .flat_map(|instruction| &instruction.args)
            .map(|word| word.text.split('=').next());
        self.has_foreign_frontend() || names.any(|name| name == Some(arg))
    }

    /// Whether the frontend that reads it knows named contexts (Dockerfile 1.4), as far as its tag tells.
    #[must_use]
    pub fn knows_contexts(&self) -> bool {
        let Some(Syntax { image, .. }) = &self.syntax else { return true };
        let (name, digest) = image
            .text
            .split_once('@')
            .map_or((&*image.text, None), |(name, digest)| (name, Some(digest)));
        let latest = if digest.is_none() { "latest" } else { "" };
        let tag = name.split_once(':').map_or(latest, |(_, tag)| tag);
        let mut version = tag.split('-').next().unwrap_or_default().split('.');
        let is_new = match (version.next(), version.next().map(str::parse::<u32>)) {
            (Some("latest" | "labs" | "1"), None) => true,
            (Some("1"), Some(Ok(minor))) => minor >= 4,
            _ => false,
        };
        is_new && !self.has_foreign_frontend()
    }

    /// The instructions of a stage, its `FROM` included.
    pub fn instructions_of(&self, stage: usize) -> impl Iterator<Item = &Instruction> {
        let of_stage = move |instruction: &&Instruction| instruction.stage == Some(stage);
        self.instructions.iter().filter(of_stage)
    }

    /// The text with other text in place of some spans, and every other byte as it was.
    ///
    /// The spans are those of this file's words, in any order. Of two that overlap (a reference may
    /// be met twice) the first one counts.
    #[must_use]
    pub fn replace(&self, replacements: &[(Range<usize>, String)]) -> String {
        let mut sorted: Vec<_> = replacements.iter().collect();
        sorted.sort_by_key(|(span, _)| span.start);
        let mut replaced = String::with_capacity(self.text.len());
        let mut at = 0;
        for (span, new) in sorted {
            let kept = self.text.get(at..span.start);
            if let (Some(kept), Some(_)) = (kept, self.text.get(span.clone())) {
                replaced.push_str(kept);
                replaced.push_str(new);
                at = span.end;
            }
        }
        replaced.push_str(&self.text[at..]);
        replaced
    }
}

impl Syntax {
    fn new(value: &Word, line: usize) -> Self {
        let image = value.text.split(' ').next().unwrap_or_default();
        let start = value.span.start;
        Self {
            image: Word {
                text: image.to_owned(),
                span: start..start + image.len(),
            },
            line,
        }
    }
}

impl Stage {
    fn of(from: &Instruction) -> Result<Self, String> {
        let (base, name) = match from.args.as_slice() {
            [base] => (base, None),
            [base, keyword, name] if keyword.text.eq_ignore_ascii_case("as") => (base, Some(name)),
            _ => return Err("`FROM` takes `image` or `image AS name`".into()),
        };
        let name = name.map(|name| name.text.to_lowercase());
        if let Some(name) = name.as_ref().filter(|name| !is_stage_name(name)) {
            return Err(format!(
                "`{name}` cannot name a stage: letters, digits, `-`, `_` and `.` can, behind a letter"
            ));
        }
        Ok(Self {
            name,
            base: base.clone(),
            platform: from.flag("platform").cloned(),
            line: from.line,
        })
    }
}

fn is_stage_name(name: &str) -> bool {
    let allowed = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || "-_.".contains(char);
    name.starts_with(|first: char| first.is_ascii_lowercase()) && name.chars().all(allowed)
}

impl Instruction {
    /// The value of `--name=`, if the flag is there and has one.
    #[must_use]
    pub fn flag(&self, name: &str) -> Option<&Word> {
        let flag = self.flags.iter().find(|flag| flag.name == name)?;
        flag.value.as_ref()
    }

    /// What `ADD` and `COPY` read: every word but the last, without the heredocs. Variables and
    /// wildcards are as written.
    pub fn sources(&self) -> impl Iterator<Item = &Word> {
        let reads = ["ADD", "COPY"].contains(&self.keyword.as_str());
        let words = if reads { self.args.as_slice() } else { &[] };
        let sources = words.split_last().map_or(&[][..], |(_, sources)| sources);
        let is_heredoc = |word: &Word| HeredocStart::of(&word.text).is_ok_and(|start| start.is_some());
        sources.iter().filter(move |word| self.json || !is_heredoc(word))
    }
}
