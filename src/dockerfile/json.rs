//! JSON lists of strings, the only JSON that a Dockerfile knows.

use std::ops::Range;

use super::Word;
use super::lines::Logical;

/// `["a", "b"]`, or `None` where it is anything else.
pub(super) fn strings(logical: &Logical, part: Range<usize>) -> Option<Vec<Word>> {
    let list = logical.text[part.clone()].strip_prefix('[')?.strip_suffix(']')?;
    let space = |char: char| matches!(char, ' ' | '\t' | '\r' | '\n');
    let mut rest = list.trim_matches(space);
    let mut words = Vec::new();
    while !rest.is_empty() {
        let behind = rest.strip_prefix('"')?;
        let length = string_length(behind)?;
        let start = part.end - "]".len() - (list.len() - offset(list, behind));
        words.push(Word {
            text: unescape(&behind[..length])?,
            span: logical.span(start..start + length),
        });
        rest = behind[length + 1..].trim_start_matches(space);
        if rest.is_empty() {
            break;
        }
        rest = rest.strip_prefix(',')?.trim_start_matches(space);
        if rest.is_empty() {
            return None;
        }
    }
    Some(words)
}

/// `inner` is what is left of `outer` behind something and before white space.
fn offset(outer: &str, inner: &str) -> usize {
    let end = outer.trim_end_matches([' ', '\t', '\r', '\n']).len();
    end - inner.len()
}

fn string_length(text: &str) -> Option<usize> {
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some(at),
            '\\' => {
                chars.next()?;
            }
            '\0'..='\x1F' => return None,
            _ => {}
        }
    }
    None
}

fn unescape(text: &str) -> Option<String> {
    let mut units: Vec<u16> = Vec::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        let unescaped = match char {
            '\\' => match chars.next()? {
                'u' => {
                    let digits = chars.as_str().get(..4)?;
                    let hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
                    units.push(u16::from_str_radix(digits, 16).ok().filter(|_| hex)?);
                    chars = chars.as_str()[4..].chars();
                    continue;
                }
                'b' => '\x08',
                'f' => '\x0C',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                plain @ ('"' | '\\' | '/') => plain,
                _ => return None,
            },
            _ => char,
        };
        units.extend_from_slice(unescaped.encode_utf16(&mut [0; 2]));
    }
    Some(String::from_utf16_lossy(&units))
}
