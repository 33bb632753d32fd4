//! The move of one image's `latest`, and its way back.

use std::cell::Cell;

use super::channel::manifest;
use super::moves::{Change, Latest};
use crate::problem::Problem;
use crate::reference::{Digest, ImageName, Reference};
use crate::registry::{Deleted, Manifest, Remote};

pub(super) struct Flip {
    /// Whether the registry has taken it. Its answers may come later.
    is_put: Cell<bool>,
    pub(super) image: ImageName,
    pub(super) reference: Reference,
    repository: Remote,
    pub(super) to: Manifest,
    pub(super) before: Option<Digest>,
    /// What `before` is the digest of, once it was fetched.
    to_put_back: Option<Manifest>,
}

impl Flip {
    pub(super) async fn prepare(change: &Change, image: &ImageName, digest: &Digest, latest: &Latest) -> Result<Self, Problem> {
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
            match latest.get(image) {
                Some(known) => Ok(known.clone()),
                None => latest_of(&repository, &reference).await,
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
            to_put_back: None,
        })
    }

    pub(super) async fn fetch_before(&mut self) -> Result<(), Problem> {
        if let Some(before) = self.before.as_ref().filter(|_| self.moves()) {
            self.to_put_back = self.repository.get(before).await?;
        }
        Ok(())
    }

    /// False where `latest` has been what it is to be.
    pub(super) fn moves(&self) -> bool {
        self.before.as_ref() != Some(self.to.digest())
    }

    pub(super) async fn latest(&self) -> Result<Option<Digest>, Problem> {
        latest_of(&self.repository, &self.reference).await
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
        let is_told_late = self.is_put.get() && latest == self.before;
        if latest.as_ref() != Some(self.to.digest()) && !is_told_late {
            return Ok(true);
        }
        match &self.to_put_back {
            Some(before) => self.put(before).await.map(|()| true),
            None => Ok(matches!(
                self.repository.delete(self.reference.tag()).await?,
                Deleted::Gone | Deleted::WasNotThere
            )),
        }
    }
}

async fn latest_of(repository: &Remote, reference: &Reference) -> Result<Option<Digest>, Problem> {
    let latest = repository.head(reference.tag()).await?;
    Ok(latest.map(|descriptor| descriptor.digest))
}
