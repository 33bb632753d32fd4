//! Text by the columns that it takes on a terminal.

use unicode_width::UnicodeWidthChar;

/// Columns of a text without control characters. A sequence that one glyph is made of may take fewer, never more.
pub fn width(text: &str) -> usize {
    text.chars().map(columns_of).sum()
}

fn columns_of(c: char) -> usize {
    c.width().unwrap_or(0)
}

/// The longest beginning that fits. A tab becomes a space: its width depends on where it stands.
pub fn end_cut(text: &str, columns: usize) -> String {
    let text = text.replace('\t', " ");
    if width(&text) <= columns {
        return text;
    }
    if columns == 0 {
        return String::new();
    }
    fitting(text.chars(), columns - 1) + "…"
}

/// What tells images apart is at both ends of their names, and more of it at the end.
pub fn middle_cut(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    if columns == 0 {
        return String::new();
    }
    let end = (columns - 1) * 2 / 3;
    let end: String = fitting(text.chars().rev(), end).chars().rev().collect();
    fitting(text.chars(), columns - 1 - width(&end)) + "…" + &end
}

fn fitting(chars: impl Iterator<Item = char>, columns: usize) -> String {
    let mut left = columns;
    chars
        .take_while(|c| {
            let fits = columns_of(*c) <= left;
            left = left.saturating_sub(columns_of(*c));
            fits
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_keep_what_tells_texts_apart() {
        assert_eq!([end_cut("a\tbcdef", 5), end_cut("abc", 3), end_cut("abc", 0)], ["a bc…", "abc", ""]);
        assert_eq!(
            [middle_cut("kube-api:debug", 9), middle_cut("日本語日本語", 6)],
            ["kub…debug", "日…語"]
        );
    }
}
