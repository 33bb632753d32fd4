//! Flags: `--name=value` behind an instruction's keyword.
//!
//! Follows moby/buildkit's `extractBuilderFlags` and, for `--mount`, `parseMount`.

use std::ops::Range;

use super::lines::Logical;
use super::words::is_blank;
use super::{Flag, Mount, Word};

/// The flags at the start of a line's part, and the part behind them.
pub(super) fn read(logical: &Logical, part: Range<usize>, escape: char) -> (Vec<FlagText<'_>>, Range<usize>) {
    let mut flags = Vec::new();
    let mut rest = trim_start(&logical.text, part);
    while logical.text[rest.clone()].starts_with("--") {
        let flag = FlagText::read(logical, rest.clone(), escape);
        rest = trim_start(&logical.text, flag.end..rest.end);
        if flag.text(0..flag.chars.len()) == "--" {
            break;
        }
        flags.push(flag);
    }
    (flags, rest)
}

fn trim_start(text: &str, part: Range<usize>) -> Range<usize> {
    let blanks = text[part.clone()].find(|char| !is_blank(char));
    blanks.map_or(part.end, |blanks| part.start + blanks)..part.end
}

/// A flag, character by character, without the quotes and escapes it is written with.
pub(super) struct FlagText<'a> {
    logical: &'a Logical,
    chars: Vec<Written>,
    /// Where the flag ends in the line.
    end: usize,
}

struct Written {
    char: char,
    /// In the line, an escape before it included.
    at: Range<usize>,
    /// Where the quotation began that it stands in.
    quotation: Option<usize>,
}

impl<'a> FlagText<'a> {
    fn read(logical: &'a Logical, part: Range<usize>, escape: char) -> Self {
        let mut chars = Vec::new();
        let mut quotation: Option<(usize, char)> = None;
        let mut rest = logical.text[part.clone()].char_indices();
        let mut end = part.end;
        while let Some((offset, char)) = rest.next() {
            let at = part.start + offset;
            match (char, quotation) {
                (_, Some((_, quote))) if char == quote => quotation = None,
                ('"' | '\'', None) => quotation = Some((at, char)),
                (_, None) if is_blank(char) => {
                    end = at;
                    break;
                }
                _ => {
                    let meant = if char == escape { rest.next() } else { Some((offset, char)) };
                    chars.extend(meant.map(|(offset, char)| Written {
                        char,
                        at: at..part.start + offset + char.len_utf8(),
                        quotation: quotation.map(|(opened, _)| opened),
                    }));
                }
            }
        }
        Self { logical, chars, end }
    }

    pub(super) fn flag(&self) -> Flag {
        let equals = self.find('=', 0..self.chars.len());
        let name = self.text(0..equals.unwrap_or(self.chars.len()));
        Flag {
            name: name.strip_prefix("--").unwrap_or(&name).to_owned(),
            value: equals.map(|equals| self.word(equals + 1..self.chars.len())),
        }
    }

    /// What `--mount=` says, in fields that are separated as in CSV.
    pub(super) fn mount(&self) -> Option<Mount> {
        let flag = self.flag();
        flag.value.filter(|_| flag.name == "mount")?;
        let mut mount = Mount::default();
        for field in self.fields("--mount=".len()) {
            let Some(equals) = self.find('=', field.clone()) else {
                continue;
            };
            let key = self.text(field.start..equals).to_ascii_lowercase();
            let value = self.word(equals + 1..field.end);
            match key.as_str() {
                "type" => mount.kind = value.text.to_ascii_lowercase(),
                "from" => mount.from = Some(value),
                "source" | "src" => mount.source = Some(value.text),
                _ => {}
            }
        }
        Some(mount)
    }

    fn text(&self, part: Range<usize>) -> String {
        let chars = self.chars[part].iter();
        chars.map(|written| written.char).collect()
    }

    fn find(&self, wanted: char, part: Range<usize>) -> Option<usize> {
        let mut chars = self.chars[part.clone()].iter();
        let found = chars.position(|written| written.char == wanted)?;
        Some(part.start + found)
    }

    /// A part of the flag, with quotes around it that open or close within it.
    fn word(&self, part: Range<usize>) -> Word {
        let chars = &self.chars[part.clone()];
        let (Some(first), Some(last)) = (chars.first(), chars.last()) else {
            let before = self.chars[..part.start].last();
            let at = before.map_or(self.end, |written| written.at.end);
            return Word {
                text: String::new(),
                span: self.logical.span(at..at),
            };
        };
        let mut written = first.at.start..last.at.end;
        if chars.iter().any(|char| char.quotation != first.quotation) {
            written.start = first.quotation.unwrap_or(written.start);
            written.end += usize::from(last.quotation.is_some());
        }
        Word {
            text: self.text(part),
            span: self.logical.span(written.start..written.end.min(self.end)),
        }
    }

    fn fields(&self, from: usize) -> Vec<Range<usize>> {
        let mut fields = Vec::new();
        let mut start = from;
        let mut quoted = false;
        for (at, written) in self.chars.iter().enumerate().skip(from) {
            match written.char {
                '"' if quoted || at == start => quoted = !quoted,
                ',' if !quoted => {
                    fields.push(start..at);
                    start = at + 1;
                }
                _ => {}
            }
        }
        fields.push(start..self.chars.len());
        let fields = fields.into_iter();
        fields.map(|field| self.without_quotes(field)).collect()
    }

    fn without_quotes(&self, field: Range<usize>) -> Range<usize> {
        match &self.chars[field.clone()] {
            [first, .., last] if first.char == '"' && last.char == '"' => field.start + 1..field.end - 1,
            _ => field,
        }
    }
}
