//! From an instruction's line to its keyword and arguments.
//!
//! Follows moby/buildkit's `frontend/dockerfile/parser` (`splitCommand`, `line_parsers`).

use std::ops::Range;

use super::flags::{self, FlagText};
use super::json;
use super::lines::Logical;
use super::{Instruction, Word};

/// Reads the instruction of a line, and the one that it defers.
pub(super) fn instruction(logical: &Logical, escape: char) -> Instruction {
    let (mut instruction, args) = single(logical, 0, escape);
    if instruction.keyword == "ONBUILD" && !args.is_empty() {
        let (trigger, _) = single(logical, args.start, escape);
        instruction.trigger = Some(Box::new(trigger));
    }
    instruction
}

/// The instruction that begins at `from`, and where its arguments are.
fn single(logical: &Logical, from: usize, escape: char) -> (Instruction, Range<usize>) {
    let line = trim(&logical.text, from..logical.text.len());
    let length = logical.text[line.clone()].find(is_blank);
    let end = length.map_or(line.end, |length| line.start + length);
    let keyword = logical.text[line.start..end].to_ascii_uppercase();
    let (flags, args) = flags::read(logical, end..line.end, escape);
    let args = trim(&logical.text, args);
    let (words, json) = arguments(&keyword, logical, args.clone(), escape);
    let instruction = Instruction {
        keyword,
        line: logical.line,
        stage: None,
        mounts: flags.iter().filter_map(FlagText::mount).collect(),
        flags: flags.iter().map(FlagText::flag).collect(),
        args: words,
        json,
        trigger: None,
    };
    (instruction, args)
}

/// The white space that separates words; a no-break space, for one, does not.
pub(super) fn is_blank(char: char) -> bool {
    matches!(char, '\t' | '\x0B' | '\x0C' | '\r' | '\n' | ' ')
}

fn trim(text: &str, range: Range<usize>) -> Range<usize> {
    let part = &text[range.clone()];
    let start = range.start + (part.len() - part.trim_start().len());
    start..start + part.trim().len()
}

/// The arguments, and whether they are a JSON list.
fn arguments(keyword: &str, logical: &Logical, part: Range<usize>, escape: char) -> (Vec<Word>, bool) {
    let may_be_json = ["ADD", "CMD", "COPY", "ENTRYPOINT", "RUN", "SHELL", "VOLUME"];
    if may_be_json.contains(&keyword)
        && let Some(words) = json::strings(logical, part.clone())
    {
        return (words, true);
    }
    let ranges = match keyword {
        "ADD" | "COPY" | "EXPOSE" | "FROM" | "VOLUME" => words(logical, part),
        "ARG" | "ENV" | "LABEL" => quoted_words(logical, part, escape),
        _ if part.is_empty() => Vec::new(),
        _ => vec![part],
    };
    let word = |range: Range<usize>| Word {
        text: logical.text[range.clone()].to_owned(),
        span: logical.span(range),
    };
    (ranges.into_iter().map(word).collect(), false)
}

fn words(logical: &Logical, part: Range<usize>) -> Vec<Range<usize>> {
    let mut words = Vec::new();
    let mut at = part.start;
    for word in logical.text[part].split(is_blank) {
        if !word.is_empty() {
            words.push(at..at + word.len());
        }
        at += word.len() + " ".len();
    }
    words
}

/// Words that may hold blanks in quotes; the quotes stay.
fn quoted_words(logical: &Logical, part: Range<usize>, escape: char) -> Vec<Range<usize>> {
    let mut words: Vec<Range<usize>> = Vec::new();
    let mut quote = None;
    let mut in_word = false;
    let mut chars = logical.text[part.clone()].char_indices();
    while let Some((offset, char)) = chars.next() {
        if quote.is_none() && char.is_whitespace() {
            in_word = false;
            continue;
        }
        let at = part.start + offset;
        let mut end = at + char.len_utf8();
        match (char, quote) {
            (_, Some(open)) if char == open => quote = None,
            ('"' | '\'', None) => quote = Some(char),
            _ if char == escape && quote != Some('\'') => {
                end += chars.next().map_or(0, |(_, escaped)| escaped.len_utf8());
            }
            _ => {}
        }
        match words.last_mut() {
            Some(word) if in_word => word.end = end,
            _ => words.push(at..end),
        }
        in_word = true;
    }
    words
}
