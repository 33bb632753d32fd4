//! What a helper said, fit to be shown.

const LONGEST_QUOTE: usize = 400;
const SHORTEST_TOKEN: usize = 32;

/// What a helper said, fit to be shown: one line, bounded, without control characters, and without
/// JSON and words that look like tokens, since a helper that fails may still print what it holds.
pub(super) fn quotable(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let before_json = text.split('{').next().unwrap_or_default();
    let words = without_controls(before_json);
    let words: Vec<_> = words.split_whitespace().map(without_tokens).collect();
    let line = words.join(" ");
    match line.char_indices().nth(LONGEST_QUOTE) {
        Some((end, _)) => format!("{} ...", &line[..end]),
        None => line,
    }
}

pub(super) fn without_controls(text: &str) -> String {
    let reorders = |c| matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let unprintable = |c: char| c.is_control() || reorders(c);
    text.replace(unprintable, " ")
}

fn without_tokens(word: &str) -> String {
    let in_token = |c: char| c.is_ascii_alphanumeric() || "+/=_.~-".contains(c);
    let mut shown = String::with_capacity(word.len());
    for run in word.split_inclusive(|c| !in_token(c)) {
        let token = run.trim_end_matches(|c| !in_token(c));
        let is_path = token.starts_with('/');
        let has_digit = token.contains(|c: char| c.is_ascii_digit());
        if token.len() >= SHORTEST_TOKEN && has_digit && !is_path {
            shown.push_str("[...]");
            shown.push_str(&run[token.len()..]);
        } else {
            shown.push_str(run);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_a_helper_says_is_shown_without_what_it_holds() {
        let shown = |text: &str| quotable(text.as_bytes());
        assert_eq!(shown("denied: {\"Secret\":\"hunter2\"}"), "denied:");
        assert_eq!(
            shown("bad token=eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.e30.abc, sorry"),
            "bad [...], sorry"
        );
        assert_eq!(shown("\"ya29.a0AfH6SMBx1234567890abcdefghijkl\""), "\"[...]\"");
        let path = "no file /home/kevin1/.config/gcloud/application_default_credentials.json";
        assert_eq!(shown(path), path);
        assert_eq!(shown("a\u{202e}b\u{7}c\r\n\td"), "a b c d");
        assert_eq!(shown(&"ab ".repeat(1000)).chars().count(), LONGEST_QUOTE + 4);
        assert_eq!(quotable(b"\xff"), "\u{fffd}");
    }

    proptest! {
        #[test]
        fn whatever_is_said_is_one_short_printable_line(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let line = quotable(&bytes);
            prop_assert!(line.chars().count() <= LONGEST_QUOTE + 4);
            prop_assert!(!line.chars().any(char::is_control));
            let shows_json = line.contains('{');
            prop_assert!(!shows_json);
        }

        #[test]
        fn a_long_token_is_never_shown(before in "[a-z ]{0,20}[ :\"']", token in "[A-Za-z0-9_.-]{40}0", after in "([ ,\"'][a-z]{0,9})?") {
            let line = quotable(format!("{before}{token}{after}").as_bytes());
            prop_assert!(!line.contains(&token));
        }
    }
}
