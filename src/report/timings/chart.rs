//! The timeline as one HTML file: a row a step, what the run waited for, and how much went on at once.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::Part;

const WIDTH: f64 = 1000.0;
const NAMES: f64 = 200.0;
const ROW: f64 = 22.0;
const CONCURRENCY: f64 = 80.0;
/// In the order of their first use; more names begin again.
const COLOURS: [&str; 8] = [
    "#4e79a7", "#f28e2b", "#59a14f", "#b07aa1", "#76b7b2", "#edc948", "#9c755f", "#ff9da7",
];
const STYLE: &str = "body{font:14px system-ui,sans-serif;margin:2em}text{font-size:12px}table{border-collapse:collapse}\
td,th{padding:2px 12px;text-align:left}td:first-child{text-align:right}.critical{stroke:#c00;stroke-width:2}";

/// `critical` are the indexes of what the run waited for.
pub(super) fn html(parts: &[Part], critical: &[usize]) -> String {
    let total = parts.iter().map(|part| part.end).fold(0.001, f64::max);
    let scale = (WIDTH - NAMES) / total;
    let rows = rows(parts);
    let colours = colours(parts);
    let mut drawing = String::new();
    for (row, members) in rows.iter().enumerate() {
        let top = row_top(row);
        let name = parts[members[0]].step.as_str();
        let name = if name.is_empty() { "the whole run" } else { name };
        text(&mut drawing, 0.0, top + 15.0, &escaped(name));
        for index in members {
            let part = &parts[*index];
            let class = if critical.contains(index) { " class=\"critical\"" } else { "" };
            let _ = writeln!(
                drawing,
                "<rect{class} x=\"{:.2}\" y=\"{:.1}\" width=\"{:.2}\" height=\"{:.1}\" fill=\"{}\"><title>{}</title></rect>",
                NAMES + part.begin * scale,
                top + 2.0,
                (part.seconds() * scale).max(0.5),
                ROW - 5.0,
                colours[part.name.as_str()],
                escaped(&told(part)),
            );
        }
    }
    let below = row_top(rows.len());
    concurrency(&mut drawing, parts, scale, below);
    let height = below + CONCURRENCY + 30.0;
    axis(&mut drawing, total, scale, height);
    let legend: String = colours
        .iter()
        .map(|(name, colour)| format!("<span style=\"color:{colour}\">&#9632;</span> {} ", escaped(name)))
        .collect();
    let waited: String = critical
        .iter()
        .map(|index| {
            let part = &parts[*index];
            let (name, step) = (escaped(&part.name), escaped(&part.step));
            format!("<tr><td>{:.3} s<td>{name}<td>{step}<td>from {:.3} s\n", part.seconds(), part.begin)
        })
        .collect();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>lattice-images: {total:.2} s</title><style>{STYLE}</style>\n\
         <h1>{total:.2} s</h1>\n<p>{legend}<span style=\"color:#c00\">&#9633;</span> what the run waited for\n\
         <svg width=\"{WIDTH}\" height=\"{height:.0}\" role=\"img\" aria-label=\"timeline\">\n{drawing}</svg>\n\
         <h2>What the run waited for</h2>\n<table>\n{waited}</table>\n</html>\n"
    )
}

fn row_top(row: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a few thousand rows at most")]
    let row = row as f64;
    row * ROW
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

/// How many parts went on at once, as steps.
fn concurrency(drawing: &mut String, parts: &[Part], scale: f64, top: f64) {
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
    let mut points = format!("{NAMES:.2},{:.2}", height(0));
    let mut before = 0;
    for (at, level) in levels {
        let x = NAMES + at * scale;
        let _ = write!(points, " {x:.2},{:.2} {x:.2},{:.2}", height(before), height(level));
        before = level;
    }
    text(drawing, 0.0, top + 25.0, &format!("at once, {most} at most"));
    let _ = writeln!(drawing, "<polyline points=\"{points}\" fill=\"#ddd\" stroke=\"#888\"/>");
}

fn axis(drawing: &mut String, total: f64, scale: f64, height: f64) {
    for tenth in 0..=10 {
        let seconds = total * f64::from(tenth) / 10.0;
        let x = NAMES + seconds * scale;
        let _ = writeln!(
            drawing,
            "<line x1=\"{x:.2}\" x2=\"{x:.2}\" y1=\"0\" y2=\"{:.1}\" stroke=\"#0002\"/>",
            height - 16.0
        );
        if tenth < 10 {
            text(drawing, x, height - 4.0, &format!("{seconds:.2}"));
        }
    }
}

fn text(drawing: &mut String, x: f64, y: f64, text: &str) {
    let _ = writeln!(drawing, "<text x=\"{x:.2}\" y=\"{y:.1}\">{text}</text>");
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
