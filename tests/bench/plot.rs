//! The growth as a picture: a panel for each axis, seconds on a logarithmic scale.

use crate::growth::{Axis, LINES};

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 50.0;
const TOP: f64 = 30.0;
/// Powers of ten of a second, lowest and highest.
const RANGE: (i32, i32) = (-2, 3);
const COLOURS: [&str; 4] = ["#1b6ac9", "#7fb2f0", "#c0392b", "#e8a79f"];

pub fn svg(axes: &[Axis]) -> String {
    let panels = axes.iter().enumerate().map(|(index, axis)| {
        let (column, row) = (f64::from(u8::from(index % 2 == 1)), f64::from(u8::from(index >= 2)));
        let (x, y) = (column * (WIDTH + 90.0), row * (HEIGHT + 90.0));
        format!("<g transform=\"translate({},{})\">\n{}</g>\n", LEFT + x, TOP + y, panel(axis))
    });
    let (width, height) = (2.0 * (WIDTH + 90.0), 2.0 * (HEIGHT + 90.0) + 40.0);
    let legend = LINES.iter().zip(COLOURS).enumerate().map(|(index, (line, colour))| {
        let x = LEFT + 230.0 * f64::from(u8::try_from(index).expect("four"));
        format!("<text x=\"{x}\" y=\"{}\" fill=\"{colour}\">{line}</text>\n", height - 20.0)
    });
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n{}{}</svg>\n",
        panels.collect::<String>(),
        legend.collect::<String>()
    )
}

fn panel(axis: &Axis) -> String {
    let mut text = format!("<text y=\"-10\" font-weight=\"bold\">seconds by {}</text>\n", axis.name);
    for power in RANGE.0..=RANGE.1 {
        let y = height_of(10_f64.powi(power));
        text += &format!("<line x2=\"{WIDTH}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>\n");
        text += &format!(
            "<text x=\"-6\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n",
            y + 4.0,
            10_f64.powi(power)
        );
    }
    let places = places(axis.points.len());
    for (point, x) in axis.points.iter().zip(&places) {
        let y = HEIGHT + 18.0;
        text += &format!("<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{}</text>\n", point.label);
    }
    for (line, colour) in COLOURS.iter().enumerate() {
        let there = axis
            .points
            .iter()
            .zip(&places)
            .filter_map(|(point, x)| Some((x, point.seconds[line]?)));
        let there: Vec<String> = there.map(|(x, seconds)| format!("{x:.1},{:.1}", height_of(seconds))).collect();
        text += &format!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n",
            there.join(" ")
        );
    }
    text
}

fn places(points: usize) -> Vec<f64> {
    let points = u8::try_from(points).expect("a few");
    (0..points)
        .map(|index| WIDTH * (f64::from(index) + 0.5) / f64::from(points))
        .collect()
}

fn height_of(seconds: f64) -> f64 {
    let (low, high) = (f64::from(RANGE.0), f64::from(RANGE.1));
    HEIGHT * (1.0 - (seconds.log10().clamp(low, high) - low) / (high - low))
}
