//! From text to instructions: parser directives, comments, continued lines, heredocs.

use std::ops::Range;

use super::DockerfileError;

const DEFAULT_ESCAPE: char = '\\';

/// A part of an instruction without white space in it, and where it stands in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) text: String,
    pub(super) span: Range<usize>,
}

impl Word {
    /// What follows `prefix`.
    pub(super) fn after(&self, prefix: &str) -> Option<Self> {
        let text = self.text.strip_prefix(prefix)?.to_owned();
        Some(Self {
            span: self.span.start + prefix.len()..self.span.end,
            text,
        })
    }

    /// The value of one of several fields that are parted by commas.
    pub(super) fn field(&self, prefix: &str) -> Option<Self> {
        let mut start = self.span.start;
        for field in self.text.split(',') {
            let word = Self {
                text: field.to_owned(),
                span: start..start + field.len(),
            };
            if let Some(value) = word.after(prefix) {
                return Some(value);
            }
            start += field.len() + 1;
        }
        None
    }
}

#[derive(Clone, Debug)]
pub(super) struct Instruction {
    /// In upper case.
    pub(super) keyword: String,
    /// 1-based; the first one of several.
    pub(super) line: usize,
    words: Vec<Word>,
}

impl Instruction {
    fn flag_count(&self) -> usize {
        self.words.iter().take_while(|word| word.text.starts_with("--")).count()
    }

    pub(super) fn flags(&self) -> impl Iterator<Item = &Word> {
        self.words[..self.flag_count()].iter()
    }

    pub(super) fn arguments(&self) -> impl Iterator<Item = &Word> {
        self.words[self.flag_count()..].iter()
    }
}

struct Line<'t> {
    number: usize,
    start: usize,
    /// Without its end.
    text: &'t str,
}

impl Line<'_> {
    fn is_comment(&self) -> bool {
        self.text.trim_start().starts_with('#')
    }

    fn is_blank(&self) -> bool {
        self.text.trim().is_empty()
    }
}

/// The escape character and the instructions of a Dockerfile.
pub(super) fn read(text: &str) -> Result<(char, Vec<Instruction>), DockerfileError> {
    let lines = split(text);
    let escape = escape_directive(&lines);
    let mut instructions = Vec::new();
    let mut rest = lines.iter();
    while let Some(line) = rest.next() {
        if line.is_comment() || line.is_blank() {
            continue;
        }
        let mut characters = Vec::new();
        let mut continued = append(&mut characters, line, escape);
        while continued {
            let Some(next) = rest.next() else { break };
            if !next.is_comment() && !next.is_blank() {
                continued = append(&mut characters, next, escape);
            }
        }
        let Some((keyword, words)) = words(&characters) else { continue };
        let instruction = Instruction {
            keyword: keyword.text.to_uppercase(),
            line: line.number,
            words,
        };
        for (terminator, tabs) in heredocs(&instruction) {
            let ends = |line: &Line<'_>| {
                if tabs {
                    line.text.trim_start_matches('\t') == terminator
                } else {
                    line.text == terminator
                }
            };
            if !rest.any(ends) {
                let message = format!("the heredoc `{terminator}` has no end");
                return Err(DockerfileError {
                    line: line.number,
                    message,
                });
            }
        }
        instructions.push(instruction);
    }
    Ok((escape, instructions))
}

fn split(text: &str) -> Vec<Line<'_>> {
    let mut start = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    let mut lines = Vec::new();
    for (index, whole) in text[start..].split_inclusive('\n').enumerate() {
        let line = whole.trim_end_matches('\n');
        lines.push(Line {
            number: index + 1,
            start,
            text: line.strip_suffix('\r').unwrap_or(line),
        });
        start += whole.len();
    }
    lines
}

/// Directives stand at the top, before anything else, comments and empty lines included.
fn escape_directive(lines: &[Line<'_>]) -> char {
    for line in lines {
        let Some((name, value)) = line
            .text
            .trim_start()
            .strip_prefix('#')
            .and_then(|directive| directive.split_once('='))
        else {
            break;
        };
        let name = name.trim();
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            break;
        }
        if name.eq_ignore_ascii_case("escape") && value.trim() == "`" {
            return '`';
        }
    }
    DEFAULT_ESCAPE
}

/// Adds a line's characters with their places; tells whether the next line continues it.
fn append(characters: &mut Vec<(usize, char)>, line: &Line<'_>, escape: char) -> bool {
    let trimmed = line.text.trim_end_matches([' ', '\t']);
    let before = trimmed.strip_suffix(escape).filter(|before| !before.ends_with(escape));
    let kept = before.unwrap_or(line.text);
    characters.extend(kept.char_indices().map(|(at, c)| (line.start + at, c)));
    before.is_some()
}

/// The keyword and the other words. Quotes hold white space together and stay in the text.
fn words(characters: &[(usize, char)]) -> Option<(Word, Vec<Word>)> {
    let mut words = Vec::new();
    let mut current: Option<Word> = None;
    let mut quote = None;
    for &(at, c) in characters {
        if c.is_whitespace() && quote.is_none() {
            words.extend(current.take());
            continue;
        }
        match quote {
            Some(open) if open == c => quote = None,
            None if (c == '"' || c == '\'') && !words.is_empty() => quote = Some(c),
            _ => {}
        }
        let word = current.get_or_insert_with(|| Word {
            text: String::new(),
            span: at..at,
        });
        word.text.push(c);
        word.span.end = at + c.len_utf8();
    }
    words.extend(current);
    let mut words = words.into_iter();
    Some((words.next()?, words.collect()))
}

/// The terminators of the heredocs that an instruction opens, and whether tabs before them do not count.
fn heredocs(instruction: &Instruction) -> Vec<(String, bool)> {
    if !["RUN", "COPY", "ADD"].contains(&instruction.keyword.as_str()) {
        return Vec::new();
    }
    instruction.words.iter().filter_map(|word| heredoc(&word.text)).collect()
}

fn heredoc(word: &str) -> Option<(String, bool)> {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    let (tabs, rest) = rest.strip_prefix('-').map_or((false, rest), |rest| (true, rest));
    let name = ['"', '\'']
        .iter()
        .find_map(|quote| rest.strip_prefix(*quote)?.strip_suffix(*quote))
        .unwrap_or(rest);
    let is_name = !name.is_empty() && !name.contains(['<', '"', '\'']);
    is_name.then(|| (name.to_owned(), tabs))
}
