//! The timeline as one HTML file: a row a step, what the run waited for, and how much went on at once.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::Part;

const WIDTH: f64 = 1000.0;
const THE_RUN: &str = "the whole run";
const ROW: f64 = 22.0;
const CONCURRENCY: f64 = 80.0;
/// What a letter takes at most, on average.
const LETTER: f64 = 7.0;
/// In the order of their first use; more names begin again.
const COLOURS: [&str; 16] = [
    "#8cb4e0", "#ffbe7d", "#8cd17d", "#d4a6c8", "#86bcb6", "#f1ce63", "#d7b5a6", "#fabfd2", "#a0cbe8", "#e9a15f", "#b6d7a8", "#b6a0d8",
    "#b9d9d3", "#e0d890", "#c9b1a3", "#bab0ac",
];
const STYLE: &str = "body{font:14px system-ui,sans-serif;margin:2em}text{font-size:12px}svg{display:block}span{white-space:nowrap;margin-right:1em}\
table{border-collapse:collapse}td,th{padding:2px 12px;text-align:left}td:first-child{text-align:right}\
.critical{stroke:#c00;stroke-width:2}";

/// `critical` are the indexes of what the run waited for.
pub(super) fn html(parts: &[Part], critical: &[usize]) -> String {
    let total = parts.iter().map(|part| part.end).fold(0.001, f64::max);
    let colours = colours(parts);
    let legend: String = colours
        .iter()
        .map(|(name, colour)| format!("<span><b style=\"color:{colour}\">&#9632;</b> {}</span> ", escaped(name)))
        .collect();
    let waited: String = critical
        .iter()
        .map(|index| {
            let part = &parts[*index];
            let (name, step) = (escaped(&part.name), escaped(&part.step));
            format!("<tr><td>{:.3} s<td>{name}<td>{step}<td>from {:.3} s\n", part.seconds(), part.begin)
        })
        .collect();
    let drawing = Drawing::of(parts, critical, &colours, total);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>lattice-images: {total:.3} s</title><style>{STYLE}</style>\n\
         <h1>{total:.3} s</h1>\n<p>{legend}<span><b style=\"color:#c00\">&#9633;</b> what the run waited for</span></p>\n\
         {drawing}<h2>What the run waited for</h2>\n<table>\n{waited}</table>\n</html>\n"
    )
}

/// One `svg`: the names of the steps, and time from `left` on.
struct Drawing {
    shapes: String,
    left: f64,
    /// For a second.
    scale: f64,
}

impl Drawing {
    fn of(parts: &[Part], critical: &[usize], colours: &BTreeMap<&str, &str>, total: f64) -> String {
        let names = parts.iter().map(|part| letters(&part.step));
        let left = LETTER * names.fold(20.0, f64::max);
        let scale = WIDTH / total;
        let mut drawing = Self {
            shapes: String::new(),
            left,
            scale,
        };
        let rows = rows(parts);
        for (row, members) in rows.iter().enumerate() {
            let top = row_top(row);
            let name = parts[members[0]].step.as_str();
            drawing.text(0.0, top + 15.0, if name.is_empty() { THE_RUN } else { name });
            for index in members {
                let part = &parts[*index];
                drawing.bar(part, top, critical.contains(index), colours[part.name.as_str()]);
            }
        }
        let below = row_top(rows.len());
        drawing.concurrency(parts, below);
        let height = below + CONCURRENCY + 30.0;
        drawing.axis(total, height);
        let Self { shapes, .. } = drawing;
        let width = left + WIDTH + LETTER;
        format!("<svg width=\"{width:.0}\" height=\"{height:.0}\" role=\"img\" aria-label=\"timeline\">\n{shapes}</svg>\n")
    }

    /// With its name, where there is room.
    fn bar(&mut self, part: &Part, top: f64, critical: bool, colour: &str) {
        let class = if critical { " class=\"critical\"" } else { "" };
        let (x, width) = (self.x(part.begin), (part.seconds() * self.scale).max(0.5));
        let _ = writeln!(
            self.shapes,
            "<rect{class} x=\"{x:.2}\" y=\"{:.1}\" width=\"{width:.2}\" height=\"{:.1}\" fill=\"{colour}\"><title>{}</title></rect>",
            top + 2.0,
            ROW - 5.0,
            escaped(&told(part)),
        );
        if width > LETTER * (letters(&part.name) + 1.0) {
            self.text(x + LETTER / 2.0, top + 15.0, &part.name);
        }
    }

    /// How many parts went on at once, as steps.
    fn concurrency(&mut self, parts: &[Part], top: f64) {
        let mut changes: Vec<(f64, i32)> = parts.iter().flat_map(|part| [(part.begin, 1), (part.end, -1)]).collect();
        changes.sort_by(|left, right| left.0.total_cmp(&right.0).then(left.1.cmp(&right.1)));
        let (mut now, mut most) = (0, 1);
        let levels: Vec<(f64, i32)> = changes
            .into_iter()
            .map(|(at, change)| {
                now += change;
                most = most.max(now);
                (at, now)
            })
            .collect();
        let height = |level: i32| top + 10.0 + CONCURRENCY * (1.0 - f64::from(level) / f64::from(most));
        let mut points = format!("{:.2},{:.2}", self.left, height(0));
        let mut before = 0;
        for (at, level) in levels {
            let x = self.x(at);
            let _ = write!(points, " {x:.2},{:.2} {x:.2},{:.2}", height(before), height(level));
            before = level;
        }
        self.text(0.0, top + 25.0, &format!("at once, {most} at most"));
        let _ = writeln!(self.shapes, "<polyline points=\"{points}\" fill=\"#ddd\" stroke=\"#888\"/>");
    }

    fn axis(&mut self, total: f64, height: f64) {
        for tenth in 0..=10 {
            let seconds = total * f64::from(tenth) / 10.0;
            let x = self.x(seconds);
            let _ = writeln!(
                self.shapes,
                "<line x1=\"{x:.2}\" x2=\"{x:.2}\" y1=\"0\" y2=\"{:.1}\" stroke=\"#0002\"/>",
                height - 16.0
            );
            if tenth < 10 {
                self.text(x, height - 4.0, &format!("{seconds:.3}"));
            }
        }
    }

    fn text(&mut self, x: f64, y: f64, text: &str) {
        let _ = writeln!(self.shapes, "<text x=\"{x:.2}\" y=\"{y:.1}\">{}</text>", escaped(text));
    }

    fn x(&self, seconds: f64) -> f64 {
        self.left + seconds * self.scale
    }
}

#[expect(clippy::cast_precision_loss, reason = "a few thousand at most")]
fn letters(text: &str) -> f64 {
    text.chars().count() as f64
}

#[expect(clippy::cast_precision_loss, reason = "a few thousand at most")]
fn row_top(row: usize) -> f64 {
    row as f64 * ROW
}

/// The parts of each step in a row of their own, and what overlaps there in one more; the whole run first.
fn rows(parts: &[Part]) -> Vec<Vec<usize>> {
    let mut rows: Vec<(&str, Vec<usize>)> = Vec::new();
    let mut order: Vec<&str> = vec![""];
    for part in parts {
        if !order.contains(&part.step.as_str()) {
            order.push(&part.step);
        }
    }
    for step in order {
        let first = rows.len();
        for (index, part) in parts.iter().enumerate().filter(|(_, part)| part.step == step) {
            let free = |(_, members): &&mut (&str, Vec<usize>)| members.iter().all(|other| parts[*other].end <= part.begin);
            match rows[first..].iter_mut().find(free) {
                Some((_, members)) => members.push(index),
                None => rows.push((step, vec![index])),
            }
        }
    }
    rows.into_iter().map(|(_, members)| members).collect()
}

fn colours(parts: &[Part]) -> BTreeMap<&str, &'static str> {
    let mut colours = BTreeMap::new();
    for part in parts {
        let next = COLOURS[colours.len() % COLOURS.len()];
        colours.entry(part.name.as_str()).or_insert(next);
    }
    colours
}

fn told(part: &Part) -> String {
    format!(
        "{} {}: {:.3} s, from {:.3} to {:.3}",
        part.name,
        part.step,
        part.seconds(),
        part.begin,
        part.end
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_has_a_row_and_what_overlaps_one_more() {
        let part = |step: &str, begin: f64, end: f64| Part {
            name: "build".to_owned(),
            step: step.to_owned(),
            begin,
            end,
        };
        let parts = [part("a", 0.0, 1.0), part("", 0.0, 0.5), part("a", 0.5, 0.7), part("a", 1.0, 2.0)];
        assert_eq!(rows(&parts), [vec![1], vec![0, 3], vec![2]]);
        let html = html(&parts, &[0, 3]);
        assert_eq!(html.matches("<rect").count(), 4);
        assert_eq!(html.matches("class=\"critical\"").count(), 2);
        // one ends as another begins: these are not at once
        assert!(html.contains(">at once, 2 at most<"), "{html}");
    }
}
