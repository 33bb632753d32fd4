//! `WWW-Authenticate`: what a registry wants to know a person by (RFC 9110, section 11).

use hyper::HeaderMap;
use hyper::header::WWW_AUTHENTICATE;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    /// A token from the token server at `realm` (distribution's token authentication).
    Bearer(Bearer),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bearer {
    pub realm: String,
    pub service: Option<String>,
    /// `repository:a/b:pull,push`, several with spaces between them.
    pub scope: Option<String>,
    /// `insufficient_scope` where the token was good for less.
    pub error: Option<String>,
}

impl Challenge {
    /// The challenge to answer: Bearer goes before Basic.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let values = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let found: Vec<_> = values.flat_map(schemes).filter_map(Self::known).collect();
        let bearer = found.iter().find(|challenge| matches!(challenge, Self::Bearer(_)));
        bearer.or(found.first()).cloned()
    }

    fn known((scheme, parameters): Scheme) -> Option<Self> {
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let value = |name: &str| {
            let mut found = parameters.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
            found.next().map(|(_, value)| value.clone())
        };
        Some(Self::Bearer(Bearer {
            realm: value("realm")?,
            service: value("service"),
            scope: value("scope"),
            error: value("error"),
        }))
    }
}

type Scheme = (String, Vec<(String, String)>);

/// The schemes of one header with their parameters. Nothing after the first thing that cannot be read counts.
fn schemes(header: &str) -> Vec<Scheme> {
    let mut found: Vec<Scheme> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let word = token(rest);
        if word.is_empty() {
            return found;
        }
        rest = rest[word.len()..].trim_start();
        let Some(after) = rest.strip_prefix('=') else {
            found.push((word.to_owned(), Vec::new()));
            continue;
        };
        let Some((value, after)) = value(after.trim_start()) else {
            return found;
        };
        rest = after;
        match found.last_mut() {
            Some((_, parameters)) => parameters.push((word.to_owned(), value)),
            None => return found,
        }
    }
}

fn token(text: &str) -> &str {
    let in_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    &text[..text.find(|c| !in_token(c)).unwrap_or(text.len())]
}

/// A token or a quoted string, and what comes after it.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let word = token(text);
        return Some((word.to_owned(), &text[word.len()..]));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((position, c)) = chars.next() {
        match c {
            '"' => return Some((value, &quoted[position + 1..])),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(values: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, value.parse().expect("a header"));
        }
        Challenge::of(&headers)
    }

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer(Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
            error: None,
        })
    }

    #[test]
    fn what_registries_send() {
        assert_eq!(read(&["Basic realm=\"x\""]), Some(Challenge::Basic));
        assert_eq!(read(&["basic"]), Some(Challenge::Basic));
        let hub = "Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\",scope=\"repository:a/b:pull,push\"";
        let expected = bearer(
            "https://auth.docker.io/token",
            Some("registry.docker.io"),
            Some("repository:a/b:pull,push"),
        );
        assert_eq!(read(&[hub]), Some(expected.clone()));
        assert_eq!(read(&[&format!("Basic realm=\"a, b\", {hub}")]), Some(expected.clone()));
        assert_eq!(read(&["Negotiate", "Basic realm=x", hub]), Some(expected));
        assert_eq!(read(&["BEARER Realm=x , SERVICE = y"]), Some(bearer("x", Some("y"), None)));
        assert_eq!(read(&[r#"Bearer realm="a\"b\\c""#]), Some(bearer(r#"a"b\c"#, None, None)));
    }

    #[test]
    fn what_cannot_be_answered() {
        for header in [
            "",
            "Negotiate abc==",
            "Bearer",
            "Bearer service=x",
            "Bearer realm=\"x",
            "=",
            "realm=x",
            "\"Basic\"",
        ] {
            assert_eq!(read(&[header]), None, "{header}");
        }
        assert_eq!(read(&[]), None);
    }

    proptest! {
        #[test]
        fn no_header_is_too_strange(header in "[ -~]{0,60}") {
            let _ = schemes(&header);
        }
    }
}
