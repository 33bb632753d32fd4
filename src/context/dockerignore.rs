//! `.dockerignore`: which paths of a build context Docker leaves behind.
//!
//! The rules are those of moby/patternmatcher (`ignorefile`, `MatchesUsingParentResults`) and of the
//! two walks that use it: the file sync of `BuildKit` (tonistiigi/fsutil) and the tar of the classic
//! builder (moby/go-archive).
//!
//! # Directories
//! An excluded directory is still walked where a `!` pattern may re-include something in it. If
//! that happens, `BuildKit` creates the directory with the mode and times it has in the context; the
//! classic builder's tar lacks it, and the daemon makes it up as 0755, now, owned by root. If
//! nothing in it is kept, it does not reach the image (Docker 20.10's own client sent it all the
//! same). A directory that is kept is sent even if it is empty or everything in it is excluded.
//!
//! # Dockerfile and `.dockerignore`
//! Both are matched like any other file. Docker nevertheless hands both to the daemon, `BuildKit` in
//! a sync of their own and the classic client inside the tar, from which the daemon then removes
//! them.

pub(super) mod go_filepath;
mod go_regexp;
mod pattern;
#[cfg(test)]
mod tests;

use std::fmt;

use pattern::Pattern;

/// Go's `bufio.Scanner` gives up on longer lines, and Docker with it.
const LONGEST_LINE: usize = 64 * 1024 - 1;

/// The patterns of a `.dockerignore`, ready to match.
#[derive(Clone, Debug, Default)]
pub struct Dockerignore {
    patterns: Vec<Pattern>,
}

/// A `.dockerignore` that Docker refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerignoreError {
    /// 1-based.
    pub line: usize,
    /// What is wrong, without the line.
    pub message: String,
}

impl fmt::Display for DockerignoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, ".dockerignore line {}: {}", self.line, self.message)
    }
}

impl std::error::Error for DockerignoreError {}

/// What the patterns say of one path; a walk hands a directory's to [`Dockerignore::judge`] for
/// each of its entries.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// The path is not sent.
    pub excluded: bool,
    /// If the path is a directory, Docker does not look into it: nothing below is sent.
    pub pruned: bool,
    matched: Vec<bool>,
}

impl Dockerignore {
    /// Reads the text of a `.dockerignore`. Bytes that are not UTF-8 become U+FFFD each, as on
    /// their way through `BuildKit`.
    ///
    /// # Errors
    /// A lone `!` (also spelled `!/`), a pattern that Go's `filepath.Match` or `regexp` refuses
    /// (`[a`, `a\`, `[z-a]`), a line longer than 65535 bytes. `regexp` is asked here once and for
    /// all; Docker 23 and later ask it when a pattern first has a say, so that a broken one that
    /// never has goes unnoticed there.
    pub fn parse(text: &[u8]) -> Result<Self, DockerignoreError> {
        let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
        let mut patterns = Vec::new();
        for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
            let parsed = if line.len() > LONGEST_LINE {
                Err(format!("the line is longer than {LONGEST_LINE} bytes"))
            } else {
                Pattern::from_line(&lossy(line))
            };
            patterns.extend(parsed.map_err(|message| DockerignoreError { line: index + 1, message })?);
        }
        Ok(Self { patterns })
    }

    /// Excludes nothing, as a context without `.dockerignore`.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// The patterns as they were understood. What has the same ones excludes the same.
    #[must_use]
    pub fn rules(&self) -> Vec<String> {
        self.patterns.iter().map(Pattern::rule).collect()
    }

    /// Whether `path` stays out of the context, by itself or because Docker never looks into a
    /// directory above it.
    ///
    /// `path` is relative to the context, `/`-separated and clean (no `.`, `..` or `//`), and what
    /// stands before its last `/` are directories. The context itself, `.` or empty, is never
    /// excluded. A walk over many paths does better with [`Dockerignore::judge`].
    #[must_use]
    pub fn excludes(&self, path: &str) -> bool {
        self.judge_from_the_root(path).is_some_and(|judgement| judgement.excluded)
    }

    /// Judges `path` from what was found for the directory it lies in, `None` at the top.
    ///
    /// This is how Docker 23 and later walk, and the result is not quite what matching `path` alone
    /// gives: a pattern that had no say on the directory is not asked about the directory again
    /// for its entries. So under `target`, `!target/keep`, `target` the last line has no effect on
    /// `target/keep`, and under `src/foo`, `!src` the second has none on `src/foo`.
    #[must_use]
    pub fn judge(&self, path: &str, directory: Option<&Judgement>) -> Judgement {
        let mut excluded = false;
        let mut matched = vec![false; self.patterns.len()];
        for (index, pattern) in self.patterns.iter().enumerate() {
            let inherited = directory.is_some_and(|above| above.matched[index]);
            let has_a_say = pattern.reincludes() == excluded;
            matched[index] = inherited || (has_a_say && pattern.matches(path));
            if matched[index] {
                excluded = !pattern.reincludes();
            }
        }
        let pruned = directory.is_some_and(|above| above.pruned) || (excluded && !self.looks_into_excluded(path));
        Judgement {
            excluded: excluded || directory.is_some_and(|above| above.pruned),
            pruned,
            matched,
        }
    }

    fn judge_from_the_root(&self, path: &str) -> Option<Judgement> {
        if path.is_empty() || path == "." {
            return None;
        }
        let ends = path.match_indices('/').map(|(end, _)| end);
        let mut judgement = None;
        for end in ends.chain([path.len()]) {
            judgement = Some(self.judge(&path[..end], judgement.as_ref()));
        }
        judgement
    }

    /// The walk compares the text of a pattern with the directory, not what it could match. The classic client's walk
    /// does it a little otherwise, for `!` patterns with a wildcard before their end; this is BuildKit's for both builders.
    fn looks_into_excluded(&self, directory: &str) -> bool {
        let mut reincluding = self.patterns.iter().filter(|pattern| pattern.reincludes());
        let any_wildcard = reincluding.clone().any(Pattern::has_wildcard_before_its_end);
        any_wildcard || reincluding.any(|pattern| pattern.text_without_glob_lies_in(directory))
    }
}

/// One replacement character for each invalid byte, as Go decodes; `String::from_utf8_lossy` may
/// take several together.
fn lossy(line: &[u8]) -> String {
    let mut text = String::with_capacity(line.len());
    for chunk in line.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    text
}
