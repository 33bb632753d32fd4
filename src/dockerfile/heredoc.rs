//! Heredocs: `<<EOF` behind `RUN`, `COPY` and `ADD`.
//!
//! Follows moby/buildkit's `heredocsFromLine`.

use super::Instruction;
use super::expand::{raw_words, unquote};
use super::lines::{Line, Lines, Logical};

/// `<<EOF`, `<<-EOF`, `3<<"EOF"`.
pub(super) struct HeredocStart {
    pub(super) name: String,
    strips_tabs: bool,
}

impl HeredocStart {
    /// `Ok(None)` where `word` starts none.
    pub(super) fn of(word: &str) -> Result<Option<Self>, String> {
        let redirection = word.trim_start_matches(|char: char| char.is_ascii_digit());
        let Some(name) = redirection.strip_prefix("<<") else {
            return Ok(None);
        };
        let strips_tabs = name.starts_with('-');
        let name = name.strip_prefix('-').unwrap_or(name).trim_start();
        if name.is_empty() || name.contains('<') {
            return Ok(None);
        }
        Ok(unquote(name)?.map(|name| Self { name, strips_tabs }))
    }

    /// Those of an instruction, where it may have some. Where the line as a whole makes no sense to
    /// Docker's lexer (`${arr[0]}`), Docker sees none in it.
    pub(super) fn all_in(logical: &Logical, instruction: &Instruction) -> Result<Vec<Self>, String> {
        let inner = instruction.trigger.as_deref().unwrap_or(instruction);
        let may_have = ["ADD", "COPY", "RUN"].contains(&inner.keyword.as_str());
        if !may_have || inner.json || !logical.text.contains("<<") {
            return Ok(Vec::new());
        }
        let words = raw_words(&logical.text).unwrap_or_default();
        let starts = words.iter().map(|word| Self::of(word).transpose());
        starts.flatten().collect()
    }

    /// Passes over its text, up to the line that is the name; `None` where there is no such line.
    pub(super) fn pass(&self, lines: &mut Lines<'_>) -> Option<()> {
        let indent: &[char] = if self.strips_tabs { &['\t'] } else { &[] };
        let is_end = |line: &Line<'_>| line.text.trim_start_matches(indent) == self.name;
        lines.find(is_end).map(drop)
    }
}
