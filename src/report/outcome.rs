//! The end of a run: what failed and why, and a table of every image.

use std::path::Path;

use anyhow::{Context as _, Error};
use serde_json::json;

use super::table::table;
use super::{Logs, RED, hints, result, status};
use crate::atomic;
use crate::cli::Progress;
use crate::plan::{Plan, Purpose};
use crate::problem::Problem;
use crate::summary::{Fate, Row};

/// Shows the failures on stderr and the results on stdout.
///
/// # Errors
/// When anything failed or was stopped: how many, and what that means for the channel.
pub fn finish(plan: &Plan, rows: &[Row<'_>], purpose: Purpose, progress: Progress, logs: &Logs) -> Result<(), Problem> {
    for row in rows {
        failure(row, logs);
    }
    match progress {
        Progress::Plain => {
            let cells = rows.iter().map(|row| cells(row, purpose));
            result(table(["image", "result", "digest", "time", "sent"], cells));
            if purpose == Purpose::Publish && rows.iter().all(|row| !row.step.publish || matches!(row.fate, Fate::Pushed { .. })) {
                result("");
                plan.channels.iter().for_each(|channel| super::plan::channel(plan, channel));
            }
        }
        Progress::Quiet => rows.iter().filter_map(|row| quiet_line(row, purpose)).for_each(result),
    }
    verdict(rows, purpose)
}

fn failure(row: &Row<'_>, logs: &Logs) {
    let Some(problem) = row.fate.problem() else { return };
    let label = row.step.label();
    let doing = if matches!(row.fate, Fate::BuildFailed { .. }) {
        "building"
    } else {
        "pushing"
    };
    status(format_args!("{RED}error{RED:#}: {doing} {label}: {problem:#}"));
    if let Fate::BuildFailed { .. } = row.fate {
        for line in logs.tail(&label) {
            status(format_args!("  | {line}"));
        }
        if let Some(path) = logs.path(&label) {
            status(format_args!("  whole log: {}", path.display()));
        }
    }
    hints(problem);
}

fn cells(row: &Row<'_>, purpose: Purpose) -> [String; 5] {
    let (digest, sent) = match &row.fate {
        Fate::Pushed { digest, bytes, .. } => (digest.to_string(), size(*bytes)),
        _ => (String::new(), String::new()),
    };
    let time = format!("{:.1} s", row.elapsed.as_secs_f64());
    [row.step.label(), fate(row, purpose), digest, time, sent]
}

fn fate(row: &Row<'_>, purpose: Purpose) -> String {
    match &row.fate {
        Fate::Built { .. } if row.step.publish => "built, not pushed".into(),
        Fate::Built { id } if purpose == Purpose::Build => format!("built {}", id.short()),
        Fate::Built { .. } => "built".into(),
        Fate::Pushed { .. } => "pushed".into(),
        Fate::BuildFailed { .. } => "failed".into(),
        Fate::PushFailed { .. } => "built, push failed".into(),
        Fate::Blocked { by } => format!("not built because {by} failed"),
        Fate::Stopped => "stopped".into(),
    }
}

/// `reference@digest` of what was pushed; of a build that was to stay in the daemon, the image's id.
fn quiet_line(row: &Row<'_>, purpose: Purpose) -> Option<String> {
    match &row.fate {
        Fate::Pushed { digest, .. } => Some(format!("{}@{digest}", row.step.reference.repository())),
        Fate::Built { id } if purpose == Purpose::Build => Some(id.to_string()),
        _ => None,
    }
}

fn verdict(rows: &[Row<'_>], purpose: Purpose) -> Result<(), Problem> {
    let count = |is: fn(&Fate) -> bool| rows.iter().filter(|row| is(&row.fate)).count();
    let failed = count(|fate| fate.problem().is_some() || matches!(fate, Fate::Blocked { .. }));
    let pushed: Vec<String> = rows
        .iter()
        .filter(|row| matches!(row.fate, Fate::Pushed { .. }))
        .map(|row| row.step.label())
        .collect();
    let to_push = rows.iter().filter(|row| row.step.publish).count();
    let state = match purpose {
        Purpose::Build => String::new(),
        Purpose::Publish if pushed.is_empty() => "; nothing was pushed".into(),
        Purpose::Publish => format!("; {} of {to_push} were pushed: {}", pushed.len(), pushed.join(", ")),
    };
    let stopped = rows.iter().any(|row| matches!(row.fate, Fate::Stopped)) || (failed == 0 && pushed.len() < to_push);
    if failed > 0 {
        Err(Problem::failed(format!("{failed} of {} images failed{state}", rows.len())))
    } else if stopped {
        Err(Problem::interrupted(&state))
    } else {
        Ok(())
    }
}

/// Writes what came of each image as JSON: an array of `image`, `variant`, `reference`, `id` (the image's in the daemon)
/// and `digest` (the manifest's in the registry, null where it was not pushed).
///
/// # Errors
/// When the file cannot be written.
pub fn metadata(rows: &[Row<'_>], path: &Path) -> Result<(), Error> {
    let entries: Vec<_> = rows
        .iter()
        .filter_map(|row| {
            let (id, digest) = match &row.fate {
                Fate::Pushed { id, digest, .. } => (id, Some(digest.as_str())),
                Fate::Built { id } => (id, None),
                _ => return None,
            };
            let (image, variant) = (row.step.image.as_str(), row.step.variant.to_string());
            Some(json!({ "image": image, "variant": variant, "reference": row.step.reference.to_string(), "id": id.as_str(), "digest": digest }))
        })
        .collect();
    let text = serde_json::to_string_pretty(&entries)? + "\n";
    atomic::write(path, text.as_bytes()).with_context(|| format!("writing {}", path.display()))
}

fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
    match UNITS.iter().find(|(unit, _)| bytes >= *unit) {
        #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
        Some((unit, name)) => format!("{:.1} {name}", bytes as f64 / *unit as f64),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes() {
        assert_eq!(
            [0, 999, 1_000, 1_250_000, 3_000_000_000].map(size),
            ["0 B", "999 B", "1.0 kB", "1.2 MB", "3.0 GB"]
        );
    }
}
