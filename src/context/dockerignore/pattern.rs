//! One line of a `.dockerignore`: cleaned as moby's `ignorefile` does, matched as its
//! `patternmatcher` does.

use regex::bytes::Regex;

use super::go_filepath::{check, clean};
use super::go_regexp;

/// A pattern and what it does to the paths it matches.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    /// Cleaned, without `!`.
    text: String,
    effect: Effect,
    matcher: Matcher,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Exclude,
    Reinclude,
}

#[derive(Clone, Debug)]
enum Matcher {
    Exact,
    /// `dir/**`
    Prefix,
    /// `**/name`
    Suffix,
    Regex(Regex),
}

impl Pattern {
    /// `None` for an empty line or a comment. The line may still end in `\r`.
    pub(super) fn from_line(line: &str) -> Result<Option<Self>, String> {
        if line.starts_with('#') {
            return Ok(None);
        }
        let Some(cleaned) = clean_line(line) else {
            return Ok(None);
        };
        let (effect, text) = match cleaned.strip_prefix('!') {
            Some("") => return Err("`!` re-includes nothing: a pattern must follow it".into()),
            Some(rest) => (Effect::Reinclude, rest),
            None => (Effect::Exclude, &*cleaned),
        };
        let matcher = check(text).ok().and_then(|()| compile(text));
        Ok(Some(Self {
            text: text.to_owned(),
            effect,
            matcher: matcher.ok_or_else(|| format!("the pattern `{text}` is malformed"))?,
        }))
    }

    /// As it was understood.
    pub(super) fn rule(&self) -> String {
        match self.effect {
            Effect::Exclude => self.text.clone(),
            Effect::Reinclude => format!("!{}", self.text),
        }
    }

    pub(super) fn reincludes(&self) -> bool {
        self.effect == Effect::Reinclude
    }

    pub(super) fn matches(&self, path: &str) -> bool {
        match &self.matcher {
            Matcher::Exact => path == self.text,
            Matcher::Prefix => path.starts_with(&self.text[..self.text.len() - 2]),
            Matcher::Suffix => {
                let suffix = self.text.trim_start_matches('*');
                path.ends_with(suffix) || suffix.strip_prefix('/') == Some(path)
            }
            Matcher::Regex(regex) => regex.is_match(path.as_bytes()),
        }
    }

    /// Whether the pattern's text lies in `directory`, after one `/**` and then one `/*` are cut from its end.
    pub(super) fn text_without_glob_lies_in(&self, directory: &str) -> bool {
        lies_in(self.without_glob(), directory)
    }

    pub(super) fn has_wildcard_before_its_end(&self) -> bool {
        self.without_glob().contains(['*', '[', ']', '?', '^', '\\'])
    }

    fn without_glob(&self) -> &str {
        let text = self.text.strip_suffix("/**").unwrap_or(&self.text);
        text.strip_suffix("/*").unwrap_or(text)
    }
}

fn lies_in(text: &str, directory: &str) -> bool {
    text.strip_prefix(directory)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The path is cleaned twice, after the `!` and then with it, as Docker does: `!../../a` therefore
/// loses its `!`, and `!/` becomes a lone `!`.
fn clean_line(line: &str) -> Option<String> {
    let line = line.trim();
    let (bang, path) = match line.strip_prefix('!') {
        Some(rest) => ("!", rest.trim()),
        None => ("", line),
    };
    let path = match path {
        "" => String::new(),
        _ => clean(path),
    };
    let relative = path.strip_prefix('/').filter(|rest| !rest.is_empty());
    let cleaned = format!("{bang}{}", relative.unwrap_or(&path));
    let cleaned = cleaned.trim();
    (!cleaned.is_empty()).then(|| clean(cleaned))
}

/// Whether a pattern can be matched as plain text, and how.
#[derive(Clone, Copy)]
enum Plain {
    Exact,
    Prefix,
    Suffix,
    No,
}

/// How the matching is done, decided on the way through the pattern as patternmatcher does; `None`
/// where the regular expression that results is not one.
fn compile(text: &str) -> Option<Matcher> {
    let mut chars = text.strip_prefix('\u{FEFF}').unwrap_or(text).chars();
    let mut regexp = String::from("^");
    let mut plain = Plain::Exact;
    let mut first = true;
    while let Some(char) = chars.next() {
        match char {
            '*' if chars.as_str().starts_with('*') => {
                chars.next();
                if chars.as_str().starts_with('/') {
                    chars.next();
                }
                let last = chars.as_str().is_empty();
                plain = match plain {
                    _ if first => Plain::Suffix,
                    Plain::Exact if last => Plain::Prefix,
                    _ => Plain::No,
                };
                regexp += if last { ".*" } else { "(.*/)?" };
            }
            '*' | '?' => {
                regexp += if char == '*' { "[^/]*" } else { "[^/]" };
                plain = Plain::No;
            }
            '\\' => {
                regexp.push('\\');
                regexp.extend(chars.next());
                plain = Plain::No;
            }
            '[' | ']' => {
                regexp.push(char);
                plain = Plain::No;
            }
            // `|`, `{` and `}` are meant to be escaped too, but Docker's table has no room for them
            '.' | '+' | '(' | ')' | '$' => regexp.extend(['\\', char]),
            _ => regexp.push(char),
        }
        first = false;
    }
    regexp.push('$');
    match plain {
        Plain::Exact => Some(Matcher::Exact),
        Plain::Prefix => Some(Matcher::Prefix),
        Plain::Suffix => Some(Matcher::Suffix),
        Plain::No => go_regexp::compile(&regexp).map(Matcher::Regex),
    }
}
