//! `$NAME` and `${NAME...}` in values, as Compose reads them (the Compose specification, "Interpolation"),
//! except that a variable that is not set and has no default is an error here, not an empty text.

/// How a name is looked up; `None` where it is not set.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// # Errors
/// What is wrong with `text`, or which variable is missing.
pub fn interpolate(text: &str, lookup: Lookup<'_>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            let end = closing_brace(after).ok_or_else(|| format!("`${{{after}` has no closing `}}`"))?;
            out.push_str(&braced(&after[..end], lookup)?);
            rest = &after[end + 1..];
        } else {
            let end = name_length(rest);
            if end == 0 {
                return Err("a lone `$`; write `$$` for a dollar sign".to_owned());
            }
            out.push_str(&required(&rest[..end], lookup)?);
            rest = &rest[end..];
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn name_length(text: &str) -> usize {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return 0;
    }
    text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len())
}

fn closing_brace(text: &str) -> Option<usize> {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => return Some(at),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

fn required(name: &str, lookup: Lookup<'_>) -> Result<String, String> {
    lookup(name)
        .ok_or_else(|| format!("the environment variable `{name}` is not set, and `${{{name}}}` gives no default (`${{{name}:-default}}`)"))
}

fn braced(inside: &str, lookup: Lookup<'_>) -> Result<String, String> {
    let (name, rest) = inside.split_at(name_length(inside));
    if name.is_empty() {
        return Err(format!("`${{{inside}}}` does not begin with a variable's name"));
    }
    let (empty_counts_as_unset, operator) = match rest.strip_prefix(':') {
        Some(operator) => (true, operator),
        None => (false, rest),
    };
    let value = lookup(name).filter(|value| !(empty_counts_as_unset && value.is_empty()));
    let mut operator = operator.chars();
    match operator.next() {
        None if rest.is_empty() => required(name, lookup),
        Some('-') => value.map_or_else(|| interpolate(operator.as_str(), lookup), Ok),
        Some('+') => value.map_or(Ok(String::new()), |_| interpolate(operator.as_str(), lookup)),
        Some('?') => value.map_or_else(
            || {
                Err(format!(
                    "the environment variable `{name}` is not set: {}",
                    interpolate(operator.as_str(), lookup)?
                ))
            },
            Ok,
        ),
        _ => Err(format!(
            "`${{{inside}}}` is none of `${{{name}}}`, `${{{name}:-default}}`, `${{{name}:+instead}}`, `${{{name}:?message}}`"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(text: &str) -> Result<String, String> {
        interpolate(text, &|name| match name {
            "A" => Some("one".into()),
            "EMPTY" => Some(String::new()),
            _ => None,
        })
    }

    #[test]
    fn as_compose_reads_it() {
        for (text, expanded) in [
            ("plain", "plain"),
            ("$A-${A}", "one-one"),
            ("$$A $${A}", "$A ${A}"),
            ("${NONE:-x}${NONE-y}", "xy"),
            ("${EMPTY:-x}${EMPTY-y}", "x"),
            ("${A:+set}${NONE:+set}${EMPTY+set}${EMPTY:+set}", "setset"),
            ("${NONE:-${A}/${NONE-z}}", "one/z"),
            ("${EMPTY}", ""),
            ("${NONE:-}", ""),
            ("${A?no}", "one"),
            ("é$A", "éone"),
        ] {
            assert_eq!(expand(text).as_deref(), Ok(expanded), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_expanded_says_why() {
        for (text, part) in [
            ("$NONE", "`NONE` is not set"),
            ("${NONE}", "${NONE:-default}"),
            ("${A", "no closing"),
            ("$", "$$"),
            ("$1", "$$"),
            ("${}", "name"),
            ("${A!}", "none of"),
            ("${A:}", "none of"),
            ("${NONE:?give it}", "give it"),
            ("${EMPTY:?give it}", "give it"),
        ] {
            let error = expand(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
