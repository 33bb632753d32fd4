//! How the time grows with images, files, bytes and latency, and behind doors: `make bench-growth`. This tool beside the
//! yardstick, each as far as it keeps up.

use std::fs;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use crate::Settings;
use crate::doors;
use crate::place::Place;
use crate::plot;
use crate::rounds::Bench;
use crate::table::{machine, median, plain, rounded};
use crate::tools::{self, Job, OURS, Tool, YARDSTICK};
use crate::workload::{Shape, Variants, Workload};

const JOBS: [Job; 2] = [Job::Cold, Job::Nothing];

#[derive(Serialize)]
pub struct Axis {
    pub name: &'static str,
    pub points: Vec<Point>,
}

#[derive(Serialize)]
pub struct Point {
    pub label: String,
    /// This tool cold, with nothing changed; the yardstick cold, with nothing changed.
    pub seconds: [Option<f64>; 4],
}

pub const LINES: [&str; 4] = [
    "lattice-images, cold",
    "lattice-images, nothing changed",
    "loop, cold",
    "loop, nothing changed",
];

struct Step {
    label: String,
    shape: Shape,
    latency: Duration,
}

const TINY: Shape = Shape {
    services: 1,
    binary: 10_000,
    files: 1,
    file: 100,
    extra: 0,
    base: 100_000,
};

/// `largest`: megabytes.
fn axes(largest: u64) -> [(&'static str, Vec<Step>); 4] {
    let step = |label: String, shape: Shape| Step {
        label,
        shape,
        latency: Duration::ZERO,
    };
    let images = [1, 10, 100, 1_000].map(|services| step(services.to_string(), Shape { services, ..TINY }));
    let files = [10, 100, 1_000, 10_000, 100_000].map(|files| step(files.to_string(), Shape { files, ..TINY }));
    let sizes = [1, 10, 100, 1_000, 10_000].into_iter().filter(|&megabytes| megabytes <= largest);
    let sizes = sizes.map(|megabytes| {
        let binary = megabytes * 1_000_000;
        step(megabytes.to_string(), Shape { binary, ..TINY })
    });
    let latencies = [0, 50, 100, 200].map(|milliseconds| Step {
        label: milliseconds.to_string(),
        shape: Shape { services: 6, ..TINY },
        latency: Duration::from_millis(milliseconds),
    });
    [
        ("images", images.into()),
        ("files of one image", files.into()),
        ("MB of one image", sizes.collect()),
        ("ms of latency, a set of six", latencies.into()),
    ]
}

pub fn run(place: &Place, settings: &Settings) -> Result<()> {
    let is_wanted = |name: &str| settings.axes.split(',').any(|part| name.contains(part));
    let mut grown = Vec::new();
    for (name, steps) in axes(settings.largest).into_iter().filter(|(name, _)| is_wanted(name)) {
        let mut tools = tools::for_growth();
        let mut points = Vec::new();
        for step in steps {
            eprintln!("{name}: {}", step.label);
            points.push(point(place, settings, &step, &mut tools)?);
        }
        let axis = Axis { name, points };
        println!("{}\n", text(&axis));
        grown.push(axis);
    }
    let mut passages = Vec::new();
    if is_wanted("doors") {
        passages = doors::run(place, settings)?;
        println!("{}\n", doors::text(&passages));
    }
    let all = serde_json::json!({ "format": 1, "engine": place.engine, "seed": settings.seed, "machine": machine(), "lines": LINES, "axes": grown, "doors": passages });
    fs::write(place.folder.join("growth.json"), serde_json::to_string_pretty(&all)? + "\n")?;
    fs::write(place.folder.join("growth.svg"), plot::svg(&grown))?;
    Ok(())
}

fn point(place: &Place, settings: &Settings, step: &Step, tools: &mut [Tool]) -> Result<Point> {
    let folder = place.folder.join("workload");
    let workload = Workload::create(&folder, step.shape, settings.seed, Variants::Normal, &settings.busybox)?;
    let registry = if step.latency.is_zero() {
        &place.registry
    } else {
        &place.proxy.host
    };
    place.proxy.delay(step.latency);
    let (_, results) = Bench::new(place, workload, tools, &JOBS).run(settings.rounds, registry)?;
    place.proxy.delay(Duration::ZERO);
    let seconds = |name: &str, job: Job| {
        let index = tools.iter().position(|tool| tool.name == name)?;
        median(
            results[index][job as usize]
                .samples
                .iter()
                .map(|sample| sample.usage.seconds)
                .collect(),
        )
    };
    let point = Point {
        label: step.label.clone(),
        seconds: [
            seconds(OURS, Job::Cold),
            seconds(OURS, Job::Nothing),
            seconds(YARDSTICK, Job::Cold),
            seconds(YARDSTICK, Job::Nothing),
        ],
    };
    for tool in tools {
        if seconds_of(&point, tool.name).is_none_or(|seconds| seconds > settings.patience) {
            tool.version = Err("too slow for more".to_owned());
        }
    }
    Ok(point)
}

fn seconds_of(point: &Point, tool: &str) -> Option<f64> {
    point.seconds[if tool == OURS { 0 } else { 2 }]
}

fn text(axis: &Axis) -> String {
    let rows = axis.points.iter().map(|point| {
        let cells = point.seconds.iter().map(|seconds| seconds.map(rounded).unwrap_or_default());
        [point.label.clone()].into_iter().chain(cells).collect()
    });
    plain(&[&[axis.name], &LINES[..]].concat(), rows)
}
