//! The end of a run: what failed and why, and a table of every image.

use std::io;
use std::path::Path;

use anyhow::{Context as _, Error};
use serde_json::json;
use terminal_size::terminal_size_of;

use super::table::table;
use super::width::{end_cut, middle_cut, width};
use super::{Form, Logs, hints, json, result, status};
use crate::atomic;
use crate::plan::{Plan, Purpose};
use crate::problem::Problem;
use crate::publish::Stored;
use crate::reference::Digest;
use crate::summary::{Fate, Row};

/// Shows the failures on stderr and the results on stdout. `records` are those that the channels have now.
///
/// # Errors
/// When anything failed or was stopped: how many, and what that means for the channel.
pub fn finish(plan: &Plan, rows: &[Row<'_>], records: &[Stored], purpose: Purpose, form: Form, logs: &Logs) -> Result<(), Problem> {
    if form == Form::Json {
        json::results(rows, logs);
    } else {
        for row in rows {
            failure(row, form, logs);
        }
    }
    match form {
        Form::Tty | Form::Plain | Form::GitHub | Form::Json => {
            let cells = rows.iter().map(|row| cells(row, purpose)).collect();
            result(fitting(cells, terminal_size_of(io::stdout()).map(|(width, _)| width.0.into())));
            if purpose == Purpose::Publish && rows.iter().all(|row| row.published || !row.step.publish) {
                result("");
                for channel in &plan.channels {
                    let address = format!("{}/{channel}", plan.registry);
                    let written = records.iter().find(|stored| stored.record.channel == address);
                    super::plan::channel(plan, channel, written.map(|stored| stored.record.sequence));
                }
            }
        }
        Form::Quiet => rows.iter().filter_map(|row| quiet_line(row, purpose)).for_each(result),
    }
    verdict(rows, purpose)
}

fn failure(row: &Row<'_>, form: Form, logs: &Logs) {
    let Some(problem) = row.fate.problem() else { return };
    let label = row.step.label();
    let doing = if matches!(row.fate, Fate::BuildFailed { .. }) {
        "building"
    } else {
        "pushing"
    };
    super::failure(&format!("{doing} {label}: {problem:#}"));
    if let Fate::BuildFailed { .. } = row.fate {
        // the others have shown it when it failed
        if matches!(form, Form::Plain | Form::Quiet) {
            for line in logs.tail(&label) {
                status(format_args!("  | {line}"));
            }
        }
        if let Some(path) = logs.path(&label) {
            status(format_args!("  whole log: {}", path.display()));
        }
    }
    hints(problem);
}

/// The table; for a terminal with too few columns without what a person can do without.
fn fitting(mut cells: Vec<[String; 5]>, columns: Option<usize>) -> String {
    let table = |cells: &[[String; 5]]| table(["image", "result", "digest", "time", "sent"], cells.iter().cloned());
    let is_wide = |text: &str, columns| text.lines().any(|line| width(line) > columns);
    let whole = table(&cells);
    let Some(columns) = columns.filter(|columns| is_wide(&whole, *columns)) else {
        return whole;
    };
    for [label, _, digest, ..] in &mut cells {
        *label = middle_cut(label, columns * 2 / 5);
        *digest = digest.parse().map_or(String::new(), |digest: Digest| digest.short().to_owned());
    }
    let lines: Vec<_> = table(&cells).lines().map(|line| end_cut(line, columns)).collect();
    lines.join("\n")
}

fn cells(row: &Row<'_>, purpose: Purpose) -> [String; 5] {
    let digest = row.fate.digest().map(ToString::to_string).unwrap_or_default();
    let sent = match &row.fate {
        Fate::Pushed { bytes, .. } => bytes.map(size).unwrap_or_default(),
        _ => String::new(),
    };
    let time = format!("{:.1} s", row.elapsed.as_secs_f64());
    [row.step.label(), fate(row, purpose), digest, time, sent]
}

fn fate(row: &Row<'_>, purpose: Purpose) -> String {
    let not_published = row.step.publish && !row.published;
    match &row.fate {
        Fate::Built { .. } | Fate::Pushed { .. } if not_published => "built, not published".into(),
        Fate::Found { .. } | Fate::Copied { .. } if not_published => "not published".into(),
        Fate::Built { id } if purpose == Purpose::Build => format!("built {}", id.short()),
        Fate::Built { .. } => "built".into(),
        Fate::Pushed { .. } if row.step.publish => "pushed".into(),
        Fate::Pushed { .. } => "built, staged".into(),
        Fate::UpToDate { .. } => "up to date".into(),
        Fate::Found { .. } => "built before".into(),
        Fate::Copied { from, .. } => format!("copied from {from}"),
        Fate::BuildFailed { .. } => "failed".into(),
        Fate::PushFailed { .. } => "push failed".into(),
        Fate::Blocked { by } => format!("not built because {by} failed"),
        Fate::Stopped => "stopped".into(),
    }
}

/// `reference@digest` of what is in the channel; of a build that was to stay in the daemon, the image's id.
fn quiet_line(row: &Row<'_>, purpose: Purpose) -> Option<String> {
    match purpose {
        Purpose::Publish => {
            let digest = row.fate.digest().filter(|_| row.published)?;
            Some(format!("{}@{digest}", row.step.reference.repository()))
        }
        Purpose::Build => row.fate.id().map(ToString::to_string),
    }
}

fn verdict(rows: &[Row<'_>], purpose: Purpose) -> Result<(), Problem> {
    let failed = rows
        .iter()
        .filter(|row| row.fate.problem().is_some() || matches!(row.fate, Fate::Blocked { .. }))
        .count();
    let state = match purpose {
        Purpose::Build => "",
        Purpose::Publish => "; nothing was published",
    };
    if failed > 0 {
        Err(Problem::failed(format!("{failed} of {} images failed{state}", rows.len())))
    } else if rows
        .iter()
        .any(|row| matches!(row.fate, Fate::Stopped) || (row.step.publish && !row.published))
    {
        Err(Problem::interrupted(state))
    } else {
        Ok(())
    }
}

/// Writes what came of each image as JSON: an array of `image`, `variant`, `reference`, `id` (the image's in the daemon,
/// null where it was not built) and `digest` (the manifest's in the registry, null where it is not there).
///
/// # Errors
/// When the file cannot be written.
pub fn metadata(rows: &[Row<'_>], path: &Path) -> Result<(), Error> {
    let done = rows.iter().filter(|row| row.fate.id().or(row.fate.digest()).is_some());
    let entries: Vec<_> = done
        .map(|row| {
            json!({
                "image": row.step.image.as_str(),
                "variant": row.step.variant.to_string(),
                "reference": row.step.reference.to_string(),
                "id": row.fate.id(),
                "digest": row.fate.digest(),
            })
        })
        .collect();
    let text = serde_json::to_string_pretty(&entries)? + "\n";
    atomic::write_named(path, text.as_bytes()).with_context(|| format!("writing {}", path.display()))
}

pub(super) fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
    match UNITS.iter().find(|(unit, _)| bytes >= *unit) {
        #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
        Some((unit, name)) => format!("{:.1} {name}", bytes as f64 / *unit as f64),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrow_terminal_gets_what_fits() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let cells = ["kubernetes-component-builder:debug", "pushed", &digest, "0.6 s", "15.6 MB"].map(str::to_owned);
        let of = |columns| fitting(vec![cells.clone()], columns);
        assert!(of(None).contains(&digest) && of(Some(200)) == of(None));
        assert_eq!(
            of(Some(80)),
            "image                             result  digest        time   sent
kubernetes-…ponent-builder:debug  pushed  000000000000  0.6 s  15.6 MB"
        );
        assert_eq!(
            of(Some(40)),
            "image             result  digest       …
kuber…lder:debug  pushed  000000000000 …"
        );
    }

    #[test]
    fn sizes() {
        assert_eq!(
            [0, 999, 1_000, 1_250_000, 3_000_000_000].map(size),
            ["0 B", "999 B", "1.0 kB", "1.2 MB", "3.0 GB"]
        );
    }
}
