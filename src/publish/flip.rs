//! The move of one image's `latest`, and its way back.

use std::cell::{Cell, OnceCell};
use std::time::{Duration, Instant};

use super::channel::manifest;
use super::moves::Change;
use crate::problem::Problem;
use crate::reference::{Digest, ImageName, Reference, Tag};
use crate::registry::{Deleted, Manifest, Remote};

/// An answer that is younger is as good as a new one: to move all of a set takes about as long.
const STILL_NEW: Duration = Duration::from_secs(1);

/// What an image's `latest` was found to be.
#[derive(Clone, Debug)]
pub struct Latest {
    pub digest: Option<Digest>,
    asked: Instant,
}

impl Latest {
    pub(super) async fn of(repository: &Remote) -> Result<Self, Problem> {
        let asked = Instant::now();
        let latest = repository.head(&Tag::latest()).await?;
        Ok(Self {
            digest: latest.map(|descriptor| descriptor.digest),
            asked,
        })
    }
}

pub(super) struct Flip {
    /// Whether the registry has taken it. Its answers may come later.
    is_put: Cell<bool>,
    pub(super) image: ImageName,
    pub(super) reference: Reference,
    repository: Remote,
    pub(super) to: Manifest,
    pub(super) before: Latest,
    /// The manifest of `before`, once it was fetched.
    to_put_back: OnceCell<Manifest>,
}

impl Flip {
    pub(super) async fn prepare(change: &Change, image: &ImageName, digest: &Digest, seen: Option<&Latest>) -> Result<Self, Problem> {
        let channel = &change.channel;
        let reference = channel.name.reference(&channel.registry, image)?;
        let repository = channel.repository(image)?;
        let at_hand = change.at_hand.get(image).filter(|manifest| manifest.digest() == digest);
        let to = async {
            match at_hand {
                Some(manifest) => Ok(manifest.clone()),
                None => manifest(&repository, digest).await,
            }
        };
        let before = async {
            match seen {
                Some(seen) => Ok(seen.clone()),
                None => Latest::of(&repository).await,
            }
        };
        let (to, before) = tokio::join!(to, before);
        Ok(Self {
            is_put: Cell::new(false),
            image: image.clone(),
            reference,
            repository,
            to: to?,
            before: before?,
            to_put_back: OnceCell::new(),
        })
    }

    pub(super) async fn fetch_before(&self) -> Result<(), Problem> {
        if let Some(before) = self.before.digest.as_ref().filter(|_| self.moves())
            && let Some(manifest) = self.repository.get(before).await?
        {
            let _ = self.to_put_back.set(manifest);
        }
        Ok(())
    }

    /// False where `latest` has been what it is to be.
    pub(super) fn moves(&self) -> bool {
        self.before.digest.as_ref() != Some(self.to.digest())
    }

    pub(super) async fn latest(&self) -> Result<Option<Digest>, Problem> {
        Ok(Latest::of(&self.repository).await?.digest)
    }

    /// Whether `latest` is what it was.
    pub(super) async fn stays(&self) -> Result<bool, Problem> {
        Ok(self.before.asked.elapsed() < STILL_NEW || self.latest().await? == self.before.digest)
    }

    pub(super) async fn put(&self, manifest: &Manifest) -> Result<(), Problem> {
        Ok(self.repository.put(self.reference.tag(), manifest).await?)
    }

    pub(super) async fn carry_out(&self) -> Result<(), Problem> {
        if self.moves() {
            self.put(&self.to).await?;
            self.is_put.set(true);
        }
        Ok(())
    }

    /// Makes `latest` what it was, if it is ours. False where it did not exist and the registry cannot take a tag away.
    pub(super) async fn undo(&self) -> Result<bool, Problem> {
        if !self.moves() {
            return Ok(true);
        }
        let latest = self.latest().await?;
        let is_told_late = self.is_put.get() && latest == self.before.digest;
        if latest.as_ref() != Some(self.to.digest()) && !is_told_late {
            return Ok(true);
        }
        match self.to_put_back.get() {
            Some(before) => self.put(before).await.map(|()| true),
            None => Ok(matches!(
                self.repository.delete(self.reference.tag()).await?,
                Deleted::Gone | Deleted::WasNotThere
            )),
        }
    }
}
