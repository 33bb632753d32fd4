//! Variables and quotes, as moby/buildkit's `frontend/dockerfile/shell` reads them.

use std::str::Chars;

use regex::{NoExpand, Regex};

/// Characters, each with whether it splits words where it is white space.
type Pieces = Vec<(char, Splits)>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Splits {
    Words,
    Nothing,
}

/// Nobody nests `${a:-${b}}` this deep on purpose.
const DEEPEST: usize = 100;

/// What happens to quotes, to escapes and to variables that are not set.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    /// Quotes and escapes are resolved, what is not set is empty.
    Nothing,
    /// Quotes and escapes are resolved, what is not set stays.
    Unset,
    /// All of it stays as it is written.
    All,
}

/// Resolves quotes, escapes and variables: `$X`, `${X}`, and in braces `-`, `:-`, `+`, `:+`, `?`,
/// `:?`, `#`, `##`, `%`, `%%`, `/` and `//`. What `lookup` does not know is empty.
///
/// # Errors
/// An open quote or brace, an unknown modifier, or what `?` has to say.
pub(super) fn expand<'a>(word: &'a str, escape: char, lookup: &'a dyn Fn(&str) -> Option<&'a str>) -> Result<String, String> {
    let mut lexer = Lexer {
        escape,
        lookup,
        ..lexer(word, Keep::Nothing)
    };
    Ok(text_of(&lexer.read(None)?))
}

/// The words of a line, as written.
///
/// # Errors
/// As [`expand`].
pub(super) fn raw_words(line: &str) -> Result<Vec<String>, String> {
    Ok(split(&lexer(line, Keep::All).read(None)?))
}

/// A word without its quotes; `None` where it is not one word.
///
/// # Errors
/// As [`expand`].
pub(super) fn unquote(word: &str) -> Result<Option<String>, String> {
    let mut words = split(&lexer(word, Keep::Unset).read(None)?);
    Ok(words.pop().filter(|_| words.is_empty()))
}

fn lexer(text: &str, keep: Keep) -> Lexer<'_> {
    Lexer {
        rest: text.chars(),
        escape: '\\',
        keep,
        escapes: keep,
        depth: 0,
        lookup: &|_| None,
    }
}

fn text_of(pieces: &Pieces) -> String {
    pieces.iter().map(|&(char, _)| char).collect()
}

fn split(pieces: &Pieces) -> Vec<String> {
    pieces
        .split(|&(char, splits)| splits == Splits::Words && char.is_whitespace())
        .filter(|word| !word.is_empty())
        .map(|word| word.iter().map(|&(char, _)| char).collect())
        .collect()
}

struct Lexer<'a> {
    rest: Chars<'a>,
    escape: char,
    keep: Keep,
    /// `All` within a pattern, which reads its escapes itself.
    escapes: Keep,
    depth: usize,
    lookup: &'a dyn Fn(&str) -> Option<&'a str>,
}

impl Lexer<'_> {
    fn peek(&self) -> Option<char> {
        self.rest.clone().next()
    }

    fn next_if(&mut self, wanted: impl Fn(char) -> bool) -> Option<char> {
        let char = self.peek().filter(|&char| wanted(char))?;
        self.rest.next();
        Some(char)
    }

    /// Up to `stop`, which is eaten, or else to the end.
    fn read(&mut self, stop: Option<char>) -> Result<Pieces, String> {
        let mut out = Pieces::new();
        while let Some(char) = self.rest.next() {
            if stop == Some(char) {
                return Ok(out);
            }
            match char {
                '\'' => self.single_quoted(&mut out)?,
                '"' => self.double_quoted(&mut out)?,
                '$' => {
                    let value = self.variable()?;
                    out.extend(value.chars().map(|char| (char, Splits::Words)));
                }
                '<' => self.less_than(&mut out),
                _ if char == self.escape => {
                    if self.escapes == Keep::All {
                        out.push((char, Splits::Nothing));
                    }
                    out.extend(self.rest.next().map(|char| (char, Splits::Nothing)));
                }
                _ => out.push((char, Splits::Words)),
            }
        }
        match stop {
            Some(stop) => Err(format!("a `{stop}` is missing")),
            None => Ok(out),
        }
    }

    /// `<<` takes the blanks behind it along, so that `<< EOF` is one word.
    fn less_than(&mut self, out: &mut Pieces) {
        out.push(('<', Splits::Nothing));
        if let Some(second) = self.next_if(|char| char == '<') {
            out.push((second, Splits::Nothing));
            while let Some(blank) = self.next_if(|char| matches!(char, ' ' | '\t' | '\r')) {
                out.push((blank, Splits::Nothing));
            }
        }
    }

    fn quote(&self, quote: char, out: &mut Pieces) {
        if self.keep == Keep::All {
            out.push((quote, Splits::Nothing));
        }
    }

    fn single_quoted(&mut self, out: &mut Pieces) -> Result<(), String> {
        self.quote('\'', out);
        for char in self.rest.by_ref() {
            if char == '\'' {
                self.quote('\'', out);
                return Ok(());
            }
            out.push((char, Splits::Nothing));
        }
        Err("a `'` is missing".into())
    }

    fn double_quoted(&mut self, out: &mut Pieces) -> Result<(), String> {
        self.quote('"', out);
        while let Some(char) = self.rest.next() {
            match char {
                '"' => {
                    self.quote('"', out);
                    return Ok(());
                }
                '$' => {
                    let value = self.variable()?;
                    out.extend(value.chars().map(|char| (char, Splits::Nothing)));
                }
                _ if char == self.escape => {
                    let escape = self.escape;
                    let escaped = self.next_if(|char| matches!(char, '"' | '$') || char == escape);
                    if self.escapes == Keep::All || escaped.is_none() {
                        out.push((char, Splits::Nothing));
                    }
                    out.extend(escaped.map(|char| (char, Splits::Nothing)));
                }
                _ => out.push((char, Splits::Nothing)),
            }
        }
        Err("a `\"` is missing".into())
    }

    /// From behind the `$`.
    fn variable(&mut self) -> Result<String, String> {
        if self.next_if(|char| char == '{').is_some() {
            return self.braced();
        }
        let name = self.name();
        if name.is_empty() {
            return Ok("$".into());
        }
        match (self.lookup)(&name) {
            Some(value) => Ok(value.to_owned()),
            None if self.keep == Keep::Nothing => Ok(String::new()),
            None => Ok(format!("${name}")),
        }
    }

    /// A name, a number, or one of the shell's own parameters.
    fn name(&mut self) -> String {
        let first = self.peek();
        if first.is_some_and(char::is_numeric) {
            return self.take_while(char::is_numeric);
        }
        if let Some(special) = self.next_if(|char| "@*#?-$!".contains(char)) {
            return special.into();
        }
        self.take_while(|char| char.is_alphanumeric() || char == '_')
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> String {
        std::iter::from_fn(|| self.next_if(&wanted)).collect()
    }

    /// From behind `${` to behind its `}`.
    fn braced(&mut self) -> Result<String, String> {
        if self.peek().is_none_or(|char| "{}:".contains(char)) {
            return Err("`${` needs a name and a `}`".into());
        }
        let name = self.name();
        let value = (self.lookup)(&name);
        let keep_unset = value.is_none() && self.keep != Keep::Nothing;
        let colon = self.next_if(|char| char == ':').is_some();
        let modifier = self.rest.next().ok_or("a `}` is missing")?;
        let value = match modifier {
            '}' if !colon => value.unwrap_or_default().to_owned(),
            '-' | '+' | '?' => {
                let word = self.nested('}')?;
                let set = value.filter(|value| !colon || !value.is_empty());
                match substitute(&name, set, modifier, word) {
                    Err(_) if keep_unset => String::new(),
                    substituted => substituted?,
                }
            }
            '#' | '%' if !colon => {
                let pattern = self.nested_raw('}')?;
                trim_pattern(value.unwrap_or_default(), modifier, &pattern)?
            }
            '/' if !colon => {
                let all = self.next_if(|char| char == '/').is_some();
                let pattern = self.nested_raw('/')?;
                let replacement = self.nested_raw('}')?;
                replace_pattern(value.unwrap_or_default(), all, &pattern, &replacement)?
            }
            _ => {
                return Err(format!("`${{{name}` is followed by an unknown `{modifier}`"));
            }
        };
        Ok(if keep_unset { format!("${{{name}}}") } else { value })
    }

    /// A word within braces, with its escapes as they are.
    fn nested_raw(&mut self, stop: char) -> Result<String, String> {
        let escapes = std::mem::replace(&mut self.escapes, Keep::All);
        let word = self.nested(stop);
        self.escapes = escapes;
        word
    }

    fn nested(&mut self, stop: char) -> Result<String, String> {
        if self.depth == DEEPEST {
            return Err(format!("variables are nested deeper than {DEEPEST}"));
        }
        self.depth += 1;
        let word = self.read(Some(stop)).map(|pieces| text_of(&pieces));
        self.depth -= 1;
        word
    }
}

/// `set` is the value that counts as one: with a colon, an empty one does not.
fn substitute(name: &str, set: Option<&str>, modifier: char, word: String) -> Result<String, String> {
    match (modifier, set) {
        ('+', Some(_)) | ('-', None) => Ok(word),
        ('+', None) => Ok(String::new()),
        (_, Some(value)) => Ok(value.to_owned()),
        (_, None) if word.is_empty() => Err(format!("`{name}` must have a value")),
        (_, None) => Err(format!("{name}: {word}")),
    }
}

/// `#` and `%` cut the shortest match off the start or the end, doubled the longest.
fn trim_pattern(value: &str, modifier: char, pattern: &str) -> Result<String, String> {
    let (pattern, longest) = match pattern.strip_prefix(modifier) {
        Some(pattern) => (pattern, true),
        None => (pattern, false),
    };
    let whole = Regex::new(&format!("^(?:{})$", pattern_to_regex(pattern)?)).map_err(too_large)?;
    let mut cuts: Vec<usize> = value.char_indices().map(|(at, _)| at).collect();
    cuts.push(value.len());
    if (modifier == '#') == longest {
        cuts.reverse();
    }
    let halves = cuts.into_iter().map(|cut| value.split_at(cut));
    let rest = match modifier {
        '#' => halves.into_iter().find_map(|(start, rest)| whole.is_match(start).then_some(rest)),
        _ => halves.into_iter().find_map(|(rest, end)| whole.is_match(end).then_some(rest)),
    };
    Ok(rest.unwrap_or(value).to_owned())
}

fn replace_pattern(value: &str, all: bool, pattern: &str, replacement: &str) -> Result<String, String> {
    let regex = Regex::new(&pattern_to_regex(pattern)?).map_err(too_large)?;
    let limit = usize::from(!all);
    Ok(regex.replacen(value, limit, NoExpand(replacement)).into_owned())
}

fn too_large(_: regex::Error) -> String {
    "the pattern is too large".into()
}

/// A shell pattern of `*`, `?` and escapes.
fn pattern_to_regex(pattern: &str) -> Result<String, String> {
    let mut regex = String::new();
    let mut chars = pattern.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '*' => regex.push_str(".*"),
            '?' => regex.push('.'),
            '\\' if matches!(chars.peek(), Some('}' | '/')) => {}
            '\\' => match chars.next() {
                Some(escaped @ ('*' | '?' | '\\')) => regex.extend(['\\', escaped]),
                _ => return Err(format!("the pattern `{pattern}` has an invalid escape")),
            },
            _ => regex.push_str(&regex::escape(char.encode_utf8(&mut [0; 4]))),
        }
    }
    Ok(regex)
}
