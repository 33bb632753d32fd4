//! What channels hold and held.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::table::table;
use super::{result, status};
use crate::fingerprint;
use crate::git::{Commit, Revision};
use crate::problem::printable;
use crate::publish::{Channel, Difference, Garbage, Held, Listed, State, Stored};
use crate::record::{Act, Entry, Record};
use crate::reference::{Digest, ImageName, Tag};

/// Two channels side by side.
pub struct Comparison<'a> {
    pub left: &'a Channel,
    pub right: &'a Channel,
    pub differences: Vec<(&'a ImageName, Difference, Option<&'a Held>, Option<&'a Held>)>,
    pub between: Option<Between>,
}

/// The commits between two revisions; none where the repository at hand does not know them.
pub struct Between {
    pub left: Commit,
    pub right: Commit,
    pub only_left: Option<Vec<String>>,
    pub only_right: Option<Vec<String>>,
}

pub fn channel_list(channels: &[Listed], json: bool) {
    let of = |(channel, state): &Listed| match state {
        Ok(state) => (channel.address(), Ok(state.record.as_ref().map(|stored| stored.record.clone()))),
        Err(problem) => (channel.address(), Err(problem.to_string())),
    };
    if json {
        let entries = channels.iter().map(of).map(|(channel, record)| match record {
            Ok(record) => json!({ "channel": channel, "record": record }),
            Err(problem) => json!({ "channel": channel, "record": null, "problem": problem }),
        });
        return print(&entries.collect());
    }
    let cells = channels.iter().map(of).map(|(channel, record)| match record {
        Ok(Some(record)) => [
            channel,
            record.sequence.to_string(),
            record.images.len().to_string(),
            writer(&record),
            record.writer.at.to_string(),
        ],
        other => {
            let by = if other.is_ok() { "another tool" } else { "cannot be read" };
            [channel, String::new(), String::new(), by.to_owned(), String::new()]
        }
    });
    result(table(["channel", "record", "images", "by", "at"], cells));
    for problem in channels.iter().filter_map(|(_, state)| state.as_ref().err()) {
        super::note(&problem.to_string());
    }
}

pub fn channel_show(channel: &Channel, state: &State, intent: Option<&Stored>, held: &BTreeMap<ImageName, Held>, json: bool) {
    let record = state.record.as_ref().map(|stored| &stored.record);
    if json {
        let images: BTreeMap<_, _> = held
            .iter()
            .map(|(image, held)| (image.as_str(), json!({ "latest": held.latest, "entry": held.entry })))
            .collect();
        let intent = intent.map(|intent| &intent.record);
        return print(&json!({ "channel": channel.address(), "record": record, "intent": intent, "images": images }));
    }
    match record {
        Some(record) => result(format_args!(
            "{}, record {}: {} by {} at {}",
            channel.address(),
            record.sequence,
            act(&record.act),
            writer(record),
            record.writer.at
        )),
        None => result(format_args!("{}, without a record: another tool pushed it", channel.address())),
    }
    if let Some(intent) = intent {
        result(format_args!(
            "interrupted or under way: record {} by {} at {}; the next run finishes or undoes it",
            intent.record.sequence,
            writer(&intent.record),
            intent.record.writer.at
        ));
    }
    result("");
    let is_coming = |image: &ImageName, latest: &Digest| {
        let coming = intent.and_then(|intent| intent.record.images.get(image)).map(|entry| &entry.digest);
        coming == Some(latest)
    };
    let cells = held.iter().map(|(image, held)| {
        let entry = held.entry.as_ref();
        let digest = match &held.latest {
            Some(latest) if !held.is_as_recorded() && is_coming(image, latest) => {
                format!("{} (of the record that is coming)", latest.short())
            }
            Some(latest) if held.entry.is_some() && !held.is_as_recorded() => format!("{} (moved by another tool)", latest.short()),
            Some(latest) => latest.short().to_owned(),
            None => "gone from the registry".to_owned(),
        };
        [
            image.to_string(),
            digest,
            entry.and_then(|entry| entry.fingerprint).map(short_fingerprint).unwrap_or_default(),
            entry.and_then(|entry| entry.revision.as_ref()).map(revision).unwrap_or_default(),
            entry
                .map(|entry| format!("{} on {}", printable(&entry.writer.user), printable(&entry.writer.host)))
                .unwrap_or_default(),
            entry.map(|entry| entry.writer.at.to_string()).unwrap_or_default(),
        ]
    });
    result(table(["image", "digest", "fingerprint", "revision", "by", "at"], cells));
}

pub fn channel_history(records: &[Stored], json: bool) {
    if json {
        let records = records
            .iter()
            .map(|stored| json!({ "digest": stored.manifest.digest(), "record": stored.record }));
        return print(&records.collect());
    }
    let cells = records.iter().map(|Stored { record, .. }| {
        let moved: Vec<&str> = record.before.keys().map(ImageName::as_str).collect();
        [
            record.sequence.to_string(),
            record.writer.at.to_string(),
            writer(record),
            act(&record.act),
            record.revision.as_ref().map(revision).unwrap_or_default(),
            if moved.is_empty() { "nothing".to_owned() } else { moved.join(", ") },
        ]
    });
    result(table(["record", "at", "by", "act", "revision", "moved"], cells));
}

pub fn channel_diff(comparison: &Comparison<'_>, json: bool) {
    let Comparison {
        left,
        right,
        differences,
        between,
    } = comparison;
    let latest = |held: Option<&Held>| held.and_then(|held| held.latest.clone());
    if json {
        let images = differences.iter().map(|(image, difference, left, right)| {
            json!({ "image": image, "difference": word(difference), "left": latest(*left), "right": latest(*right) })
        });
        let images: Vec<Value> = images.collect();
        let between = between.as_ref().map(|between| json!({ "left": between.left, "right": between.right, "only_left": between.only_left, "only_right": between.only_right }));
        return print(&json!({ "left": left.address(), "right": right.address(), "images": images, "revisions": between }));
    }
    let cells = differences.iter().map(|(image, difference, left, right)| {
        let short = |held| latest(held).map(|digest: Digest| digest.short().to_owned()).unwrap_or_default();
        [image.to_string(), word(difference).to_owned(), short(*left), short(*right)]
    });
    result(table(
        ["image", "difference", &left.name.to_string(), &right.name.to_string()],
        cells,
    ));
    let Some(between) = between else { return };
    result("");
    for (channel, commit, only) in [
        (left, &between.left, &between.only_left),
        (right, &between.right, &between.only_right),
    ] {
        match only {
            Some(only) if only.is_empty() => {}
            Some(only) => {
                result(format_args!("only in {} ({}):", channel.name, commit.short()));
                for subject in only {
                    result(format_args!("  {subject}"));
                }
            }
            None => result(format_args!(
                "{} is at {}, which this repository does not have",
                channel.name,
                commit.short()
            )),
        }
    }
}

/// The records that an act wrote.
pub fn committed(records: &[Stored]) {
    for Stored { record, .. } in records {
        result(format_args!("{}: record {}, {}", record.channel, record.sequence, act(&record.act)));
        for image in record.before.keys() {
            if let Some(entry) = record.images.get(image) {
                result(format_args!("  {image} is {}", entry.digest));
            }
        }
    }
}

pub fn to_remove(former: &BTreeSet<ImageName>, garbage: &[Garbage]) {
    for image in former {
        result(format_args!("{image}: the manifest no longer publishes it"));
    }
    for garbage in garbage {
        let tags: Vec<_> = garbage.tags.iter().map(Tag::as_str).collect();
        result(format_args!(
            "{}@{} ({})",
            garbage.repository.repository(),
            garbage.digest(),
            tags.join(", ")
        ));
    }
    if former.is_empty() && garbage.is_empty() {
        status("there is nothing to remove");
    }
}

pub fn removed(manifests: usize) {
    result(format_args!("{manifests} manifests removed"));
}

fn print(value: &Value) {
    result(serde_json::to_string_pretty(value).unwrap_or_default());
}

fn word(difference: &Difference) -> &'static str {
    match difference {
        Difference::Same => "same",
        Difference::Changed => "changed",
        Difference::OnlyLeft => "only left",
        Difference::OnlyRight => "only right",
    }
}

fn writer(record: &Record) -> String {
    format!("{} on {}", printable(&record.writer.user), printable(&record.writer.host))
}

fn act(act: &Act) -> String {
    match act {
        Act::Push => "push".to_owned(),
        Act::Copy { from, sequence: None } => format!("copy of {}", printable(from)),
        Act::Copy {
            from,
            sequence: Some(sequence),
        } => format!("copy of {}, record {sequence}", printable(from)),
        Act::Rollback { to } => format!("rollback to record {to}"),
        Act::Clean => "clean".to_owned(),
    }
}

fn revision(revision: &Revision) -> String {
    let branch = revision
        .branch
        .as_deref()
        .map(|branch| format!(" {}", printable(branch)))
        .unwrap_or_default();
    let dirty = if revision.dirty { " dirty" } else { "" };
    format!("{}{branch}{dirty}", revision.commit.short())
}

fn short_fingerprint(fingerprint: fingerprint::Fingerprint) -> String {
    fingerprint.to_string()[..12].to_owned()
}

/// How an image stands to this checkout.
pub struct Stand<'a> {
    pub label: String,
    pub reference: String,
    pub entry: Option<&'a Entry>,
    /// None: up to date.
    pub why: Option<Vec<String>>,
}

pub fn stands(stands: &[Stand<'_>], verbose: bool, json: bool) {
    if json {
        let images = stands.iter().map(
            |stand| json!({ "image": stand.label, "reference": stand.reference, "up_to_date": stand.why.is_none(), "why": stand.why }),
        );
        return print(&images.collect());
    }
    let cells = stands.iter().map(|stand| {
        let published = stand.entry.map(|entry| {
            format!(
                "{} on {}, {}",
                printable(&entry.writer.user),
                printable(&entry.writer.host),
                entry.writer.at
            )
        });
        let stands = if stand.why.is_none() { "up to date" } else { "differs" };
        [
            stand.label.clone(),
            stands.to_owned(),
            published.unwrap_or_else(|| "never".to_owned()),
        ]
    });
    result(table(["image", "state", "published"], cells));
    for stand in stands.iter().filter(|_| verbose) {
        for why in stand.why.iter().flatten() {
            result(format_args!("{}: {}", stand.label, printable(why)));
        }
    }
}
