//! From the lines of a file to the lines of the language: directives, comments, continuations.
//!
//! Follows moby/buildkit's `frontend/dockerfile/parser`.

use std::ops::Range;

use super::{DockerfileError, Syntax, Word};

/// The lines of the file, in turn.
pub(super) struct Lines<'a> {
    text: &'a str,
    at: usize,
    /// Of the line last returned, 1-based.
    pub(super) number: usize,
}

/// A line of the file.
#[derive(Clone, Copy)]
pub(super) struct Line<'a> {
    pub(super) start: usize,
    /// Without the line's end.
    pub(super) text: &'a str,
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let at = if text.starts_with('\u{FEFF}') { 3 } else { 0 };
        Self { text, at, number: 0 }
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Line<'a>> {
        let rest = &self.text[self.at..];
        if rest.is_empty() {
            return None;
        }
        let length = rest.find('\n').map_or(rest.len(), |newline| newline + 1);
        let start = self.at;
        self.at += length;
        self.number += 1;
        Some(Line {
            start,
            text: rest[..length].trim_end_matches(['\r', '\n']),
        })
    }
}

/// What the directives at the top of the file say.
#[derive(Debug)]
pub(super) struct Directives {
    pub(super) escape: char,
    pub(super) syntax: Option<Syntax>,
}

impl Directives {
    pub(super) fn read(text: &str) -> Result<Self, DockerfileError> {
        let mut directives = Self {
            escape: '\\',
            syntax: None,
        };
        let mut seen = Vec::new();
        let mut lines = Lines::new(text);
        while let Some((name, value)) = lines.next().as_ref().and_then(directive) {
            let refuse = |message| DockerfileError::new(lines.number, message);
            if seen.contains(&name) {
                return Err(refuse(format!("only one `{name}` directive can be used")));
            }
            match name.as_str() {
                "escape" => directives.escape = escape_of(&value.text).map_err(refuse)?,
                "syntax" => directives.syntax = Some(Syntax::new(&value, lines.number)),
                _ => {}
            }
            seen.push(name);
        }
        if directives.syntax.is_none() {
            directives.syntax = syntax_below_shebang(text);
        }
        Ok(directives)
    }
}

fn escape_of(value: &str) -> Result<char, String> {
    match value {
        "\\" => Ok('\\'),
        "`" => Ok('`'),
        _ => Err(format!("the escape character must be `\\` or a backtick, not `{value}`")),
    }
}

/// The daemon looks for the frontend below a `#!` line, where no other directive is heeded.
fn syntax_below_shebang(text: &str) -> Option<Syntax> {
    let mut lines = Lines::new(text);
    let shebang = lines.next()?;
    if !shebang.text.starts_with("#!") {
        return None;
    }
    while let Some((name, value)) = lines.next().as_ref().and_then(directive) {
        if name == "syntax" {
            return Some(Syntax::new(&value, lines.number));
        }
    }
    None
}

/// `# name = value`, the name in lower case.
fn directive(line: &Line<'_>) -> Option<(String, Word)> {
    let (comment, value) = line.text.split_once('=')?;
    let name = comment.trim_start().strip_prefix('#')?.trim();
    let name = name.to_ascii_lowercase();
    if value.trim().is_empty() || !["syntax", "escape", "check"].contains(&name.as_str()) {
        return None;
    }
    let indent = value.len() - value.trim_start().len();
    let start = line.start + comment.len() + "=".len() + indent;
    let value = Word {
        text: value.trim().to_owned(),
        span: start..start + value.trim().len(),
    };
    Some((name, value))
}

/// An instruction's line, put together from one or more lines of the file.
pub(super) struct Logical {
    pub(super) text: String,
    /// Where pieces of `text` begin, in `text` and in the file.
    pieces: Vec<(usize, usize)>,
    /// Of the first of its lines.
    pub(super) line: usize,
}

impl Logical {
    /// The next instruction: comments, empty lines and continuations are gone.
    pub(super) fn read(lines: &mut Lines<'_>, escape: char) -> Option<Self> {
        loop {
            let mut line = lines.next()?;
            line = line.skip(line.text.len() - line.text.trim_start().len());
            let (body, mut continues) = strip_continuation(line.text, escape);
            if line.is_comment() || (body.is_empty() && !continues) {
                continue;
            }
            let mut logical = Self {
                text: String::new(),
                pieces: Vec::new(),
                line: lines.number,
            };
            logical.push(line.start, body);
            while continues && let Some(line) = lines.next() {
                if line.is_comment() || line.text.trim().is_empty() {
                    continue;
                }
                let body;
                (body, continues) = strip_continuation(line.text, escape);
                logical.push(line.start, body);
            }
            return Some(logical);
        }
    }

    fn push(&mut self, source: usize, body: &str) {
        self.pieces.push((self.text.len(), source));
        self.text.push_str(body);
    }

    /// The place in the file of a part of `text`, continuations within it included.
    pub(super) fn span(&self, part: Range<usize>) -> Range<usize> {
        let start = self.source(part.start);
        match self.text[part.clone()].char_indices().next_back() {
            Some((last, char)) => start..self.source(part.start + last) + char.len_utf8(),
            None => start..start,
        }
    }

    fn source(&self, offset: usize) -> usize {
        let later = self.pieces.partition_point(|&(begins, _)| begins <= offset);
        let (begins, source) = self.pieces[later - 1];
        source + (offset - begins)
    }
}

impl Line<'_> {
    fn skip(self, length: usize) -> Self {
        Self {
            start: self.start + length,
            text: &self.text[length..],
        }
    }

    fn is_comment(&self) -> bool {
        self.text.trim_start().starts_with('#')
    }
}

/// Cuts the escape character at the end off, and says whether one was there. Two of them are none.
fn strip_continuation(line: &str, escape: char) -> (&str, bool) {
    let body = line.trim_end_matches([' ', '\t']).strip_suffix(escape);
    match body {
        Some(body) if !body.ends_with(escape) => (body, true),
        _ => (line, false),
    }
}
