//! The region of a terminal below everything that was said, redrawn in place.
//!
//! The cursor rests below it and is never hidden, so whatever ends the program, there is nothing to restore. A frame is
//! one write, and one update for terminals that can (`CSI ? 2026`), so nothing half-drawn is ever seen.

use std::io::{self, Write};

use super::layout::{Line, Size};

const BEGIN: &str = "\x1b[?2026h";
const END: &str = "\x1b[?2026l";
const ERASE_REST_OF_LINE: &str = "\x1b[K";
const ERASE_LINE: &str = "\x1b[2K";
const UP_AND_ERASE_LINE: &str = "\x1b[A\x1b[2K";
const ERASE_BELOW: &str = "\x1b[J";

pub struct Screen<W> {
    out: W,
    colour: bool,
    /// What was drawn last: each line's text and width.
    drawn: Vec<(String, usize)>,
    size: Size,
    /// Rows of the region that went off the top when the terminal became lower. It shows them again when it grows.
    lost: usize,
}

impl<W: Write> Screen<W> {
    pub fn new(out: W, colour: bool, size: Size) -> Self {
        Self {
            out,
            colour,
            drawn: Vec::new(),
            size,
            lost: 0,
        }
    }

    /// Writes `said`, which stays, and `lines` below it in place of those of the last frame.
    pub fn frame(&mut self, said: &[String], lines: &[Line], size: Size) -> io::Result<()> {
        let next: Vec<_> = lines.iter().map(|line| (line.text(self.colour), line.width())).collect();
        if said.is_empty() && next == self.drawn && size == self.size {
            return Ok(());
        }
        let up = self.rows_to_top(size);
        let mut frame = String::from(BEGIN);
        frame.push('\r');
        if !said.is_empty() || next.is_empty() || size != self.size {
            // row by row: tmux takes `ERASE_BELOW` in the first row for the end of a page, and keeps that in its history
            frame.push_str(ERASE_LINE);
            frame.push_str(&UP_AND_ERASE_LINE.repeat(up));
        } else if up > 0 {
            frame.push_str(&format!("\x1b[{up}A"));
        }
        if !said.is_empty() {
            self.lost = 0;
        }
        for text in said.iter().chain(next.iter().map(|(text, _)| text)) {
            frame.push_str(text);
            frame.push_str(ERASE_REST_OF_LINE);
            frame.push_str("\r\n");
        }
        if !next.is_empty() {
            frame.push_str(ERASE_BELOW);
        }
        frame.push_str(END);
        (self.drawn, self.size) = (next, size);
        self.out.write_all(frame.as_bytes())?;
        self.out.flush()
    }

    /// How many rows the region's first one is above the cursor: a terminal that became narrower has wrapped its lines.
    fn rows_to_top(&mut self, size: Size) -> usize {
        let rows = |width: usize| width.div_ceil(size.columns.max(1)).max(1);
        let mut up: usize = self.drawn.iter().map(|(_, width)| rows(*width)).sum();
        let reachable = size.rows.saturating_sub(1);
        if size.columns != self.size.columns {
            // wrapped anew, they are as many rows as nobody can tell: better one of ours too many than one of others too few
            self.lost = 0;
            up = up.min(reachable);
        } else if up > reachable {
            self.lost += up - reachable;
            up = reachable;
        } else if size.rows > self.size.rows {
            let back = self.lost.min(size.rows - self.size.rows);
            self.lost -= back;
            up += back;
        }
        up
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size { columns: 20, rows: 5 };

    fn lines(labels: &[&str]) -> Vec<Line> {
        let state = super::super::state::State::of(labels.iter().map(|label| ((*label).to_owned(), true)));
        super::super::layout::layout(&state.images, Size { columns: 20, rows: 50 }, std::time::Instant::now())
    }

    fn drawn(screen: &mut Screen<Vec<u8>>, said: &[&str], labels: &[&str], size: Size) -> String {
        let said: Vec<_> = said.iter().map(|text| (*text).to_owned()).collect();
        screen.frame(&said, &lines(labels), size).expect("written");
        String::from_utf8(std::mem::take(&mut screen.out)).expect("UTF-8")
    }

    fn ups(frame: &str) -> usize {
        frame.matches(UP_AND_ERASE_LINE).count()
    }

    #[test]
    fn a_frame_replaces_the_last_and_what_is_said_stays_above() {
        let mut screen = Screen::new(Vec::new(), false, SIZE);
        let first = drawn(&mut screen, &[], &["a", "b"], SIZE);
        assert_eq!(first, "\x1b[?2026h\ra  waiting\x1b[K\r\nb  waiting\x1b[K\r\n\x1b[J\x1b[?2026l");
        assert_eq!(drawn(&mut screen, &[], &["a", "b"], SIZE), "", "nothing new, nothing drawn");
        let second = drawn(&mut screen, &["said"], &["a"], SIZE);
        assert_eq!(
            second,
            "\x1b[?2026h\r\x1b[2K\x1b[A\x1b[2K\x1b[A\x1b[2Ksaid\x1b[K\r\na  waiting\x1b[K\r\n\x1b[J\x1b[?2026l"
        );
        assert_eq!(drawn(&mut screen, &[], &[], SIZE), "\x1b[?2026h\r\x1b[2K\x1b[A\x1b[2K\x1b[?2026l");
    }

    #[test]
    fn lines_that_the_terminal_wrapped_are_found() {
        let mut screen = Screen::new(Vec::new(), false, SIZE);
        drawn(&mut screen, &[], &["a", "b"], SIZE);
        let narrower = Size { columns: 6, ..SIZE };
        assert_eq!(ups(&drawn(&mut screen, &[], &["a", "b"], narrower)), 4);
    }

    #[test]
    fn rows_that_went_off_the_top_are_replaced_when_they_come_back() {
        let labels = ["a", "b", "c", "d"];
        let mut screen = Screen::new(Vec::new(), false, SIZE);
        drawn(&mut screen, &[], &labels, SIZE);
        let lower = drawn(&mut screen, &[], &labels[..2], Size { rows: 3, ..SIZE });
        assert_eq!(ups(&lower), 2, "{lower:?}");
        let higher = drawn(&mut screen, &[], &labels, SIZE);
        assert_eq!(ups(&higher), 4, "{higher:?}");
    }
}
