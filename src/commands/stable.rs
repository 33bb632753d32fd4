//! The guard before the channel `stable`.

use std::collections::BTreeMap;
use std::env;

use anyhow::Error;

use super::session;
use crate::cli::{Common, Push};
use crate::git::{Ancestry, Repository, Revision};
use crate::guard::{self, Images, Sources, Verdict};
use crate::manifest::Manifest;
use crate::problem::Problem;
use crate::publish::Held;
use crate::record::Record;
use crate::reference::ImageName;
use crate::release::Release;
use crate::report;

pub enum Admission {
    Granted {
        /// Whether the sources are newer than what is published, so that a record tells of them though no image changed.
        newer: bool,
    },
    Superseded,
}

/// Judges a copy into `stable` by the revision of what is copied, not by what is checked out.
pub async fn judge_copy(
    common: &Common,
    (source, held): (Option<&Record>, &BTreeMap<ImageName, Held>),
    published: Option<&Record>,
    overridden: bool,
) -> Result<(), Problem> {
    let manifest = session::manifest(common)?;
    let revision = source.and_then(|record| record.revision.clone());
    let revision = revision
        .map(|revision| Revision { branch: None, ..revision })
        .ok_or_else(|| "what is copied was not published from a repository".to_owned());
    let (branch, repository) = (&manifest.stable.branch, Repository::at(&manifest.folder));
    // of what another tool moved, nothing is known
    let entries = || {
        held.iter()
            .map(|(image, held)| (image, held.entry.as_ref().filter(|_| held.is_as_recorded())))
    };
    let mut images = Images::default();
    for (image, entry) in entries().filter_map(|(image, entry)| Some((image, entry?))) {
        let published = published.and_then(|record| record.images.get(image));
        images.add(image.as_str(), &entry.platforms, &entry.unresolved, published);
    }
    let sources = Sources::of(&repository, revision, branch, &published.into_iter().collect::<Vec<_>>(), images).await;
    let mut violations = match sources.judge(branch, false) {
        Verdict::Violated(violations) => violations,
        Verdict::Clear | Verdict::Superseded(_) => Vec::new(),
    };
    violations.extend(guard::strays(&repository, branch, entries()).await);
    refuse(violations, overridden)
}

fn refuse(violations: Vec<String>, overridden: bool) -> Result<(), Problem> {
    if !overridden && !violations.is_empty() {
        let problem = Problem::failed(format!("`stable` is not to be published from this: {}", violations.join("; ")));
        return Err(problem.hint("--override-stable-guard publishes all the same"));
    }
    for violation in violations {
        report::note(&format!("overridden: {violation}"));
    }
    Ok(())
}

pub async fn admit(
    release: &Release<'_>,
    manifest: &Manifest,
    revision: &Result<Revision, String>,
    push: &Push,
) -> Result<Admission, Error> {
    let in_ci = in_ci();
    let branch = &manifest.stable.branch;
    let records: Vec<&Record> = release.records().flatten().map(|stored| &stored.record).collect();
    let mut images = Images::default();
    for (index, published, _) in release.stands() {
        let step = &release.plan().steps[index];
        images.add(
            &step.label(),
            &release.plan().platforms(step),
            &release.unresolved(index),
            published,
        );
    }
    let sources = Sources::of(&Repository::at(&manifest.folder), revision.clone(), branch, &records, images).await;
    let newer = sources.published.is_empty() || sources.published.iter().any(|(_, ancestry)| *ancestry != Ancestry::Same);
    match sources.judge(branch, in_ci) {
        Verdict::Superseded(by) => {
            report::result(format_args!("superseded by {}", by.as_str()));
            return Ok(Admission::Superseded);
        }
        Verdict::Violated(violations) => refuse(violations, push.override_stable_guard)?,
        Verdict::Clear => {}
    }
    let untracked = revision.iter().flat_map(|revision| &revision.untracked);
    for file in untracked {
        report::note(&format!("{file} is in a context, and git does not track it"));
    }
    let changes: Vec<String> = release.to_publish().map(|step| step.reference.to_string()).collect();
    if !(changes.is_empty() || in_ci || push.yes) {
        confirm(&changes).await?;
    }
    Ok(Admission::Granted { newer })
}

/// Where `CI=true` confirms what is done to `stable`.
pub fn in_ci() -> bool {
    env::var("CI").is_ok_and(|value| value == "true")
}

async fn confirm(changes: &[String]) -> Result<(), Problem> {
    if !report::somebody_is_there() {
        return Err(
            Problem::usage("a push to the channel `stable` is to be confirmed, and there is no terminal to ask at")
                .hint("--yes, or CI=true, confirms it"),
        );
    }
    let question = format!("These change:\n  {}\nPublish them to `stable`?", changes.join("\n  "));
    if report::confirm(&question).await {
        Ok(())
    } else {
        Err(Problem::failed("not confirmed; nothing was done"))
    }
}
