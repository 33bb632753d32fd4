//! The images that a daemon has: the names that a run gives them, and what is known of them.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard};

use anyhow::{Context as _, Error};
use bollard::Docker;
use bollard::query_parameters::{CreateImageOptionsBuilder, RemoveImageOptionsBuilder, TagImageOptionsBuilder};
use futures_util::StreamExt;
use futures_util::future::join_all;

use super::{Daemon, said};
use crate::problem::printable;
use crate::reference::Digest;
use crate::resolve::{Base, Source, named};

/// Where images stand for the time of a run by names of ours. Docker takes it for a registry on this machine.
const SIBLINGS: &str = "localhost/lattice-images";

/// The names that images have for the time of a run alone.
#[derive(Debug)]
pub(super) struct PassingNames {
    /// No other run has it, so that none takes away what this one still needs.
    run: String,
    /// What is to be taken away at its end.
    given: Mutex<BTreeSet<String>>,
}

impl PassingNames {
    pub(super) fn new(run: String) -> Self {
        Self {
            run,
            given: Mutex::default(),
        }
    }

    fn given(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.given.lock().expect("nobody panics with the lock")
    }

    /// Before it is given: whoever gives it may be stopped at any moment.
    pub(super) fn remember(&self, name: String) {
        self.given().insert(name);
    }
}

impl Daemon {
    /// Gives the image a name that is this run's alone.
    pub(super) async fn hold(&self, image: &str, id: &Digest) -> Result<String, Error> {
        let (repository, tag) = (format!("{SIBLINGS}/{image}"), format!("{}-{}", id.short(), self.passing.run));
        self.tag_for_now(id, &repository, &tag).await
    }

    /// Gives the image a name that it does not keep.
    pub(super) async fn tag_for_now(&self, id: &Digest, repository: &str, name: &str) -> Result<String, Error> {
        let full = format!("{repository}:{name}");
        self.passing.remember(full.clone());
        let (docker, id, repository, name) = (self.docker.clone(), id.clone(), repository.to_owned(), name.to_owned());
        // the daemon carries out what nobody waits for, too: it must not come after the name is taken away
        self.tidy
            .spawn(async move { tag(&docker, &id, &repository, &name).await })
            .await??;
        Ok(full)
    }

    /// Takes away what is left of the names that images do not keep.
    pub(super) async fn forget_names(&self) {
        let given = std::mem::take(&mut *self.passing.given());
        join_all(given.iter().map(|name| untag(&self.docker, name))).await;
    }

    pub(super) async fn tag(&self, id: &Digest, repository: &str, name: &str) -> Result<(), Error> {
        tag(&self.docker, id, repository, name).await
    }

    /// Takes away a name that the image does not keep.
    pub(super) async fn untag(&self, name: &str) {
        untag(&self.docker, name).await;
        self.passing.given().remove(name);
    }

    /// As [`Self::untag`], until the run ends.
    pub(super) fn untag_meanwhile(&self, name: String) {
        self.passing.given().remove(&name);
        let docker = self.docker.clone();
        self.tidy.spawn(async move { untag(&docker, &name).await });
    }

    /// What the daemon has under a name of elsewhere.
    pub async fn known(&self, name: &str) -> Option<Base> {
        let image = self.docker.inspect_image(name).await.ok()?;
        let digests = image.repo_digests.unwrap_or_default();
        // the same image may have come from other repositories, too
        let repository = named(name).ok()?.0;
        let from_registry = digests.iter().find_map(|known| {
            let is_of_it = named(known).is_ok_and(|(other, _)| other == repository);
            known.split_once('@').filter(|_| is_of_it)?.1.parse().ok()
        });
        let (digest, source) = match from_registry {
            Some(digest) => (digest, Source::Daemon),
            None => (image.id?.parse().ok()?, Source::DaemonAlone),
        };
        Some(Base {
            digest,
            source,
            triggers: Some(
                image
                    .config
                    .and_then(|config| config.on_build)
                    .is_some_and(|triggers| !triggers.is_empty()),
            ),
        })
    }

    pub(super) async fn pull(&self, image: &str, platform: &str) -> Result<(), Error> {
        let (repository, tag) = named(image)?;
        let (_, credentials) = self.credentials(repository.host()).await?;
        let full = match image.split_once('@') {
            Some(_) => image.to_owned(),
            None => repository.tagged(tag).to_string(),
        };
        let options = CreateImageOptionsBuilder::default().from_image(&full).platform(platform).build();
        let mut answers = self.docker.create_image(Some(options), None, Some(credentials));
        while let Some(answer) = answers.next().await {
            answer.map_err(said).with_context(|| format!("pulling {}", printable(image)))?;
        }
        Ok(())
    }
}

async fn tag(docker: &Docker, id: &Digest, repository: &str, name: &str) -> Result<(), Error> {
    let options = TagImageOptionsBuilder::default().repo(repository).tag(name).build();
    docker.tag_image(id.as_str(), Some(options)).await.map_err(said)
}

async fn untag(docker: &Docker, name: &str) {
    let options = RemoveImageOptionsBuilder::default().noprune(true).build();
    if let Err(error) = docker.remove_image(name, Some(options), None).await {
        tracing::debug!("{name} stays in the daemon: {}", said(error));
    }
}
