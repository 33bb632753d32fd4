use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Error};
use tracing::Instrument;

use super::interrupt::Interrupt;
use super::remarks::{Target, remarks};
use super::session::{self, Docker, Planned};
use super::sources::sources;
use super::stable;
use crate::channel::{Owner, Variant};
use crate::cli::{Common, Push};
use crate::context::Contexts;
use crate::docker::PushBy;
use crate::event::Events;
use crate::execute::Limits;
use crate::git::{Repository, Revision};
use crate::machine;
use crate::manifest::Manifest;
use crate::plan::{Plan, Purpose};
use crate::problem::Problem;
use crate::publish::Channel;
use crate::record::Writer;
use crate::reference::Registry;
use crate::registry::Client;
use crate::release::{self, Author, Places, Release};
use crate::report;
use crate::run::Workshop;
use crate::timing;
use crate::user;

pub async fn push(common: &Common, push: &Push, images: &[String]) -> Result<(), Error> {
    let form = report::choose(push.run.progress(), common.verbose)?;
    let Planned {
        manifest,
        owner,
        registry,
        plan,
    } = session::planned(common, push.variants, images, Purpose::Publish)?;
    if push.run.dry_run {
        report::plan(&plan);
        return Ok(());
    }
    let push_by = session::push_by(push.push_by)?;
    session::warn_of_downloads(&plan)?;
    let interrupt = Interrupt::listen().context("listening for Ctrl-C")?;
    let writer = Writer::new(user::os_name(), machine::host());
    let channels: Vec<String> = plan.channels.iter().map(|channel| format!("{registry}/{channel}")).collect();
    let _turn = session::unless_interrupted(&interrupt, async { Ok(session::turn(&channels, &writer).await) }).await?;
    let desk = Desk {
        manifest: &manifest,
        docker: session::Docker::configured()?,
        contexts: session::contexts(),
        owner: &owner,
        stable: session::registry(common, || Ok(manifest.registry_of(&Owner::Stable).clone()))?,
        writer,
        push_by,
    };
    let ready = session::unless_interrupted(&interrupt, desk.ready(&plan, &registry, push)).await?;
    let Some(Ready { release, workshop, author }) = ready else {
        return Ok(());
    };
    let carry = async |limits: &Limits, events: &Events| release::carry_out(&release, workshop.as_ref(), &author, limits, events).await;
    let (carried, logs) = session::shown(form, &plan, &push.run, &interrupt, carry).await?;
    let metadata = push
        .run
        .metadata_file
        .as_ref()
        .map_or(Ok(()), |path| report::metadata(&carried.rows, path));
    remember(&release);
    let target = Target::new(common, &plan.channels, &registry);
    for remark in remarks(&manifest, &target, &carried.records) {
        report::note(&remark);
    }
    let verdict = report::finish(&plan, &carried.rows, &carried.records, Purpose::Publish, form, &logs);
    carried.problem.map_or(Ok(()), Err)?;
    verdict?;
    // what became of the images goes before a file that could not be written
    metadata
}

/// What a push is prepared with.
struct Desk<'m> {
    manifest: &'m Manifest,
    docker: Docker,
    contexts: Arc<Contexts>,
    owner: &'m Owner,
    /// The registry of the channel `stable`.
    stable: Registry,
    writer: Writer,
    /// None leaves it to the tool.
    push_by: Option<PushBy>,
}

/// A push that only has to be carried out.
struct Ready<'p> {
    release: Release<'p>,
    workshop: Option<Workshop>,
    author: Author,
}

impl Desk<'_> {
    /// None where the sources are superseded: nothing is to be done then.
    async fn ready<'p>(&self, plan: &'p Arc<Plan>, registry: &Registry, push: &Push) -> Result<Option<Ready<'p>>, Error> {
        let client = session::client(&self.docker, self.manifest.insecure_registries.clone())?;
        let places = places(self.owner, registry, &self.stable, &client)?;
        let anew = push.force || push.run.pull || push.run.no_cache;
        let sources = sources(plan, self.manifest, &self.docker, &client, &self.contexts);
        let credential = async {
            // a helper may take its time, so it begins at once, unless it may not be needed at all
            if client.needs_no_credential(registry.host()) {
                return Ok(());
            }
            self.docker.credentials.for_host(registry.host()).await.map(drop)
        };
        let (looked, credential, revision) = tokio::join!(
            session::noting(async |events| Release::look(plan, places, sources, anew, events).await),
            credential.instrument(timing::part("credentials")),
            self.revision(plan).instrument(timing::part("git")),
        );
        let release = match (looked, credential) {
            (Ok(release), _) => release,
            (Err(looked), Err(credential)) => {
                report::error(&looked);
                return Err(Problem::failed(credential.to_string()).hint(credential.hint()).into());
            }
            (Err(looked), Ok(())) => return Err(looked),
        };
        self.tell(&release, &revision);
        let mut record_anyway = false;
        if *self.owner == Owner::Stable {
            match stable::admit(&release, self.manifest, &revision, push).await? {
                stable::Admission::Superseded => return Ok(None),
                stable::Admission::Granted { newer } => record_anyway = newer,
            }
        }
        let mut workshop = self.workshop(&client, &release, push).await?;
        if let Some(workshop) = &mut workshop {
            let answers_in = client.answers_in(registry.host()).unwrap_or_default();
            if let Some(note) = workshop.engine.push_by(self.push_by, answers_in) {
                report::note(&note);
            }
        }
        let author = Author {
            writer: self.writer.clone(),
            revision: revision.ok(),
            record_anyway,
        };
        Ok(Some(Ready { release, workshop, author }))
    }

    /// What a person may want to know before anything is done.
    fn tell(&self, release: &Release<'_>, revision: &Result<Revision, String>) {
        for step in release.moved_by_others() {
            report::note(&format!(
                "{} is not what the channel's record says: it is put right",
                step.reference
            ));
        }
        // of `stable`, the guard tells it
        let Owner::User(_) = self.owner else { return };
        if let Err(why) = revision
            && self.repository().is_there()
        {
            report::note(&format!("the channel's record does not tell the commit: {why}"));
        }
        for stored in release.records().flatten() {
            let (last, me) = (&stored.record.writer, &self.writer);
            if (&last.user, &last.host) != (&me.user, &me.host) {
                let channel = &stored.record.channel;
                report::note(&format!(
                    "{channel} was last written by {} on {} ({})",
                    last.user, last.host, last.at
                ));
            }
        }
    }

    fn repository(&self) -> Repository {
        Repository::at(&self.manifest.folder)
    }

    async fn revision(&self, plan: &Plan) -> Result<Revision, String> {
        let contexts: Vec<&Path> = plan.builds().map(|build| build.context.as_path()).collect();
        self.repository().revision(&contexts).await
    }

    /// What is missing is said at once, before any build: the daemon, and the right to push.
    async fn workshop(&self, client: &Client, release: &Release<'_>, push: &Push) -> Result<Option<Workshop>, Error> {
        if release.to_build().next().is_none() {
            return Ok(None);
        }
        session::refuse_missing_secrets(release.to_build())?;
        let digests = release.sources().digests();
        let connecting = session::workshop(
            &self.docker,
            client,
            self.manifest,
            release.plan(),
            &self.contexts,
            &digests,
            &push.run,
        );
        let (refused, workshop) = tokio::join!(
            release.refused_uploads().instrument(timing::part("may we push")),
            connecting.instrument(timing::part("connect")),
        );
        let mut errors: Vec<Error> = refused.into_iter().map(Error::from).collect();
        let workshop = workshop.map_err(|error| errors.push(error)).ok();
        match errors.pop() {
            None => Ok(workshop),
            Some(last) => {
                errors.iter().for_each(report::error);
                Err(last)
            }
        }
    }
}

/// `stable` is the registry of the channel `stable`.
pub(super) fn places(owner: &Owner, registry: &Registry, stable: &Registry, client: &Client) -> Result<Places, Problem> {
    let channel = |owner: &Owner, variant, registry: &Registry| Channel::new(owner.channel(variant), registry.clone(), client.clone());
    // copies run downhill only: a push to stable takes nothing from another channel
    let takes_copies = *owner != Owner::Stable;
    let mut uphill = Vec::new();
    if takes_copies && stable.host() == registry.host() {
        for variant in [Variant::Normal, Variant::Debug] {
            uphill.push(channel(&Owner::Stable, variant, stable)?);
        }
    }
    Ok(Places {
        normal: channel(owner, Variant::Normal, registry)?,
        debug: channel(owner, Variant::Debug, registry)?,
        takes_copies,
        uphill,
    })
}

/// What the images were built from, so that a later `status` can say why they differ.
fn remember(release: &Release<'_>) {
    let Some(cache) = session::cache() else { return };
    for print in &release.sources().prints {
        if let Err(error) = print.parts.keep(&cache, &print.fingerprint) {
            tracing::debug!("{error}");
        }
    }
}
