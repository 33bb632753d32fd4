//! Go's `regexp` syntax in the `regex` crate's, as far as a `.dockerignore` can reach it.
//!
//! Docker pastes characters of a pattern into a regular expression unescaped, so `\d` matches a
//! digit, `a|b*` either side, and `[*]` something else than a star. What differs between the two
//! engines is the meaning of a backslash, of braces, and what a class may hold; all else is passed
//! on.

use std::fmt::Write as _;

use regex::bytes::{Regex, RegexBuilder};

/// Go has no limit that a line of a `.dockerignore` could reach.
const SIZE_LIMIT: usize = 256 << 20;

/// `None` where Go refuses the expression.
pub(super) fn compile(go: &str) -> Option<Regex> {
    RegexBuilder::new(&translate(go)?).size_limit(SIZE_LIMIT).build().ok()
}

fn translate(go: &str) -> Option<String> {
    let mut out = String::with_capacity(go.len() * 2);
    let mut rest = go;
    let mut repeated = false;
    while let Some(char) = rest.chars().next() {
        let behind = &rest[char.len_utf8()..];
        if char == '{'
            && let Some(end) = repetition_end(behind)
        {
            let count = &rest[..=end];
            if repeated || !is_allowed_count(count) {
                return None;
            }
            out.push_str(count);
            (rest, repeated) = (&rest[end + 1..], true);
            continue;
        }
        repeated = matches!(char, '*' | '?');
        rest = match char {
            '\\' => backslash(behind, &mut out)?,
            '[' => class(behind, &mut out)?,
            '^' | '$' | '.' | '(' | ')' | '|' | '*' | '?' => {
                out.push(char);
                behind
            }
            _ => {
                literal(char, &mut out);
                behind
            }
        };
    }
    Some(out)
}

/// The offset of `}` from `{`, if what they enclose is `n`, `n,` or `n,m`.
fn repetition_end(behind: &str) -> Option<usize> {
    let is_number = |number: &str| {
        let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        digits && (number.len() == 1 || !number.starts_with('0'))
    };
    let end = behind.find('}')?;
    let (least, most) = behind[..end].split_once(',').unwrap_or((&behind[..end], ""));
    (is_number(least) && (most.is_empty() || is_number(most))).then_some(end + 1)
}

fn is_allowed_count(count: &str) -> bool {
    let numbers = count.trim_matches(['{', '}']).split(',');
    let parsed: Vec<u32> = numbers
        .filter(|number| !number.is_empty())
        .map(|number| number.parse().unwrap_or(u32::MAX))
        .collect();
    parsed.iter().all(|&number| number <= 1000) && parsed.is_sorted()
}

fn backslash<'a>(behind: &'a str, out: &mut String) -> Option<&'a str> {
    let name = behind.chars().next()?;
    match name {
        'Q' => {
            let quoted = &behind[1..];
            let (text, rest) = quoted.split_once(r"\E").unwrap_or((quoted, ""));
            text.chars().for_each(|char| literal(char, out));
            return Some(rest);
        }
        'A' | 'z' => out.extend(['\\', name]),
        'b' | 'B' => write!(out, r"(?-u:\{name})").expect("a String takes any text"),
        _ => return escape(behind, out),
    }
    Some(&behind[1..])
}

/// A class or a character behind a backslash, the same inside `[...]` and outside.
fn escape<'a>(behind: &'a str, out: &mut String) -> Option<&'a str> {
    let named = match behind.bytes().next()? {
        b'd' => "[0-9]",
        b'D' => "[^0-9]",
        b's' => r"[\t\n\x0C\r ]",
        b'S' => r"[^\t\n\x0C\r ]",
        b'w' => "[0-9A-Za-z_]",
        b'W' => "[^0-9A-Za-z_]",
        b'p' | b'P' => return unicode_class(behind, out),
        _ => {
            let (char, rest) = escaped_char(behind)?;
            literal(char, out);
            return Some(rest);
        }
    };
    out.push_str(named);
    Some(&behind[1..])
}

/// `pL`, `p{Greek}`, `p{^Greek}`, and the same with `P`.
fn unicode_class<'a>(behind: &'a str, out: &mut String) -> Option<&'a str> {
    let (sign, name) = behind.split_at(1);
    let (name, rest) = match name.strip_prefix('{') {
        Some(braced) => braced.split_once('}')?,
        None => name.split_at_checked(1)?,
    };
    let (name, negated) = match name.strip_prefix('^') {
        Some(name) => (name, sign == "p"),
        None => (name, sign == "P"),
    };
    let is_name =
        name.starts_with(|first: char| first.is_ascii_uppercase()) && name.chars().all(|char| char.is_ascii_alphabetic() || char == '_');
    if !is_name {
        return None;
    }
    let sign = if negated { 'P' } else { 'p' };
    write!(out, r"\{sign}{{{name}}}").expect("a String takes any text");
    Some(rest)
}

fn escaped_char(behind: &str) -> Option<(char, &str)> {
    let first = behind.chars().next()?;
    let after = &behind[first.len_utf8()..];
    let octal_follows = after.starts_with(|next| matches!(next, '0'..='7'));
    match first {
        '0'..='7' if first == '0' || octal_follows => {
            let digits = behind.bytes().take(3);
            let width = digits.take_while(|byte| matches!(byte, b'0'..=b'7')).count();
            let code = u32::from_str_radix(&behind[..width], 8).ok()?;
            Some((char::from_u32(code)?, &behind[width..]))
        }
        'x' => {
            let (hex, rest) = match after.strip_prefix('{') {
                Some(braced) => braced.split_once('}')?,
                None => after.split_at_checked(2)?,
            };
            let all_hex = hex.bytes().all(|byte| byte.is_ascii_hexdigit());
            let code = u32::from_str_radix(hex, 16).ok().filter(|_| all_hex)?;
            Some((char::from_u32(code)?, rest))
        }
        'a' => Some(('\x07', after)),
        'f' => Some(('\x0C', after)),
        'n' => Some(('\n', after)),
        'r' => Some(('\r', after)),
        't' => Some(('\t', after)),
        'v' => Some(('\x0B', after)),
        _ if first.is_ascii() && !first.is_ascii_alphanumeric() => Some((first, after)),
        _ => None,
    }
}

fn literal(char: char, out: &mut String) {
    if char.is_ascii_alphanumeric() {
        out.push(char);
    } else {
        write!(out, r"\x{{{:X}}}", u32::from(char)).expect("a String takes any text");
    }
}

/// From behind `[` to behind `]`.
fn class<'a>(behind: &'a str, out: &mut String) -> Option<&'a str> {
    out.push('[');
    let mut rest = behind;
    if let Some(negated) = rest.strip_prefix('^') {
        out.push('^');
        rest = negated;
    }
    let mut first = true;
    loop {
        if !first && let Some(after) = rest.strip_prefix(']') {
            out.push(']');
            return Some(after);
        }
        first = false;
        rest = class_item(rest, out)?;
    }
}

/// `[:alpha:]`, `\d`, `\pL`, a character or a range.
fn class_item<'a>(text: &'a str, out: &mut String) -> Option<&'a str> {
    if let Some(end) = text.strip_prefix("[:").and_then(|name| name.find(":]")) {
        let (group, rest) = text.split_at(end + 4);
        let name = &group[2..end + 2];
        let name = name.strip_prefix('^').unwrap_or(name);
        out.push_str(POSIX_CLASSES.contains(&name).then_some(group)?);
        return Some(rest);
    }
    match text.strip_prefix('\\') {
        Some(behind) if behind.starts_with(['d', 'D', 's', 'S', 'w', 'W', 'p', 'P']) => escape(behind, out),
        _ => class_range(text, out),
    }
}

const POSIX_CLASSES: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "word", "xdigit",
];

fn class_range<'a>(text: &'a str, out: &mut String) -> Option<&'a str> {
    let (low, mut rest) = class_char(text)?;
    let mut high = low;
    if rest.starts_with('-') && !rest.starts_with("-]") && rest.len() > 1 {
        (high, rest) = class_char(&rest[1..])?;
    }
    if high < low {
        return None;
    }
    literal(low, out);
    out.push('-');
    literal(high, out);
    Some(rest)
}

fn class_char(text: &str) -> Option<(char, &str)> {
    if let Some(behind) = text.strip_prefix('\\') {
        return escaped_char(behind);
    }
    let char = text.chars().next()?;
    Some((char, &text[char.len_utf8()..]))
}
