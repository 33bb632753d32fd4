//! Variables in a `FROM` and in the defaults of args (Dockerfile reference, "Environment replacement").

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::str::Chars;

/// # Errors
/// What is wrong with `text`.
pub(super) fn expand(text: &str, scope: &BTreeMap<String, String>, escape: char) -> Result<String, String> {
    let mut expander = Expander {
        scope,
        escape,
        rest: text.chars().peekable(),
    };
    expander.until(None)
}

struct Expander<'a> {
    scope: &'a BTreeMap<String, String>,
    escape: char,
    rest: Peekable<Chars<'a>>,
}

impl Expander<'_> {
    /// Expands up to `end`, or to the end of the text.
    fn until(&mut self, end: Option<char>) -> Result<String, String> {
        let mut out = String::new();
        let mut literal = false;
        while let Some(c) = self.rest.next() {
            match c {
                _ if Some(c) == end && !literal => return Ok(out),
                '\'' => literal = !literal,
                _ if literal => out.push(c),
                '"' => {}
                _ if c == self.escape => out.extend(self.rest.next()),
                '$' => out.push_str(&self.variable()?),
                _ => out.push(c),
            }
        }
        match end {
            None => Ok(out),
            Some(end) => Err(format!("a variable has no closing `{end}`")),
        }
    }

    fn variable(&mut self) -> Result<String, String> {
        let braced = self.rest.next_if_eq(&'{').is_some();
        let mut name = String::new();
        while let Some(c) = self.rest.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
            name.push(c);
        }
        let value = self.scope.get(&name).cloned();
        match (braced, name.is_empty()) {
            (false, true) => Ok("$".to_owned()),
            (true, true) => Err("`${` is not followed by a variable's name".to_owned()),
            (false, false) => Ok(value.unwrap_or_default()),
            (true, false) => self.braced(&name, value),
        }
    }

    fn braced(&mut self, name: &str, value: Option<String>) -> Result<String, String> {
        if self.rest.next_if_eq(&'}').is_some() {
            return Ok(value.unwrap_or_default());
        }
        let value = if self.rest.next_if_eq(&':').is_some() {
            value.filter(|value| !value.is_empty())
        } else {
            value
        };
        let operator = self.rest.next();
        let word = self.until(Some('}'))?;
        match operator {
            Some('-') => Ok(value.unwrap_or(word)),
            Some('+') => Ok(value.map(|_| word).unwrap_or_default()),
            Some('?') => value.ok_or_else(|| format!("the arg `{name}` is not set: {word}")),
            _ => Err(format!("the expansion of `{name}` is none that is known here")),
        }
    }
}
