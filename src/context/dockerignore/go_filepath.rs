//! Go's `filepath.Clean` and `filepath.Match`, and the errors of the latter.

/// Go's `filepath.Clean`.
pub(in crate::context) fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." if names.last().is_some_and(|&last| last != "..") => {
                names.pop();
            }
            ".." if rooted => {}
            _ => names.push(name),
        }
    }
    let relative = names.join("/");
    match (rooted, relative.is_empty()) {
        (true, _) => format!("/{relative}"),
        (false, true) => ".".to_owned(),
        (false, false) => relative,
    }
}

/// Go's `ErrBadPattern`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// The check that Docker makes: whether `filepath.Match(pattern, ".")` errs.
///
/// Go matches star by star and stops where a part does not match, so that it never sees what is
/// wrong behind it: `*[a-]` is refused, `x*[a-]` is not.
pub(super) fn check(pattern: &str) -> Result<(), Malformed> {
    let mut name = ".";
    let mut pattern = pattern;
    'parts: while !pattern.is_empty() {
        let unstarred = pattern.trim_start_matches('*');
        let starred = unstarred.len() < pattern.len();
        let (part, rest) = split_at_star(unstarred);
        if starred && part.is_empty() {
            return Ok(());
        }
        let skippable = if starred { name.len() } else { 0 };
        for skipped in 0..=skippable {
            if let Some(left) = match_part(part, &name[skipped..])? {
                (name, pattern) = (left, rest);
                continue 'parts;
            }
        }
        return Ok(());
    }
    Ok(())
}

/// Go's `filepath.Match` for one component of a path. A pattern that is malformed matches nothing.
pub(in crate::context) fn matches(mut pattern: &str, mut name: &str) -> bool {
    while !pattern.is_empty() {
        let unstarred = pattern.trim_start_matches('*');
        let starred = unstarred.len() < pattern.len();
        let (part, rest) = split_at_star(unstarred);
        if part.is_empty() {
            return true;
        }
        let starts = name.char_indices().map(|(at, _)| at).chain([name.len()]);
        let left = starts
            .take(if starred { usize::MAX } else { 1 })
            .filter_map(|start| match_part(part, &name[start..]).ok().flatten())
            .find(|left| left.is_empty() || !rest.is_empty());
        match left {
            Some(left) => (name, pattern) = (left, rest),
            None => return false,
        }
    }
    name.is_empty()
}

/// At the next `*` that is neither escaped nor in a class.
fn split_at_star(pattern: &str) -> (&str, &str) {
    let mut in_class = false;
    let mut chars = pattern.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '\\' => {
                chars.next();
            }
            '[' => in_class = true,
            ']' => in_class = false,
            '*' if !in_class => return pattern.split_at(at),
            _ => {}
        }
    }
    (pattern, "")
}

/// What is left of `name` behind a match of `part`, which is read to its end in any case.
fn match_part<'a>(part: &str, name: &'a str) -> Result<Option<&'a str>, Malformed> {
    let mut left = Some(name);
    let mut part = part;
    while let Some((first, after)) = split_first(part) {
        let next = left.and_then(split_first);
        let char = next.map(|(char, _)| char);
        let (matched, rest) = match first {
            '[' => class_holds(after, char)?,
            '?' => (true, after),
            '\\' => {
                let (literal, rest) = split_first(after).ok_or(Malformed)?;
                (char == Some(literal), rest)
            }
            literal => (char == Some(literal), after),
        };
        left = next.map(|(_, left)| left).filter(|_| matched);
        part = rest;
    }
    Ok(left)
}

/// Whether the class that begins behind `[` holds `char`, and the pattern behind its `]`.
fn class_holds(class: &str, char: Option<char>) -> Result<(bool, &str), Malformed> {
    let (negated, mut rest) = match class.strip_prefix('^') {
        Some(rest) => (true, rest),
        None => (false, class),
    };
    let mut found = false;
    loop {
        let (low, after) = class_char(rest)?;
        let (high, after) = match after.strip_prefix('-') {
            Some(end) => class_char(end)?,
            None => (low, after),
        };
        found |= char.is_some_and(|char| (low..=high).contains(&char));
        rest = after;
        if let Some(behind) = rest.strip_prefix(']') {
            return Ok((found != negated, behind));
        }
    }
}

fn class_char(class: &str) -> Result<(char, &str), Malformed> {
    if class.starts_with(['-', ']']) {
        return Err(Malformed);
    }
    let class = class.strip_prefix('\\').unwrap_or(class);
    split_first(class).filter(|(_, rest)| !rest.is_empty()).ok_or(Malformed)
}

fn split_first(text: &str) -> Option<(char, &str)> {
    let first = text.chars().next()?;
    Some((first, &text[first.len_utf8()..]))
}
