//! Looking into images by way of containers that are never started, for daemons whose builder cannot do it.

use anyhow::{Context as _, Error};
use bollard::Docker;
use bollard::errors::Error as BollardError;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{
    ContainerArchiveInfoOptionsBuilder, CreateContainerOptionsBuilder, DownloadFromContainerOptionsBuilder, RemoveContainerOptionsBuilder,
};
use futures_util::StreamExt;

use super::utilities::{FOLDER, MAX_BYTES, PLACES, first_file};
use super::{Daemon, said};

impl Daemon {
    pub(super) async fn container_has_folder(&self, image: &str, platform: &str) -> Result<bool, Error> {
        let found = self
            .look_into(image, platform, |docker: Docker, container| async move {
                let options = ContainerArchiveInfoOptionsBuilder::default().path(&format!("/{FOLDER}")).build();
                docker.get_container_archive_info(&container, Some(options)).await
            })
            .await?;
        match found {
            Ok(_) => Ok(true),
            Err(BollardError::DockerResponseServerError { status_code: 404, .. }) => Ok(false),
            Err(error) => Err(said(error)).context("looking into the image"),
        }
    }

    pub(super) async fn container_binary(&self, image: &str, platform: &str) -> Result<Option<Vec<u8>>, Error> {
        self.look_into(image, platform, binary_in).await
    }

    /// Gives `look` a container that is never started: only its files are looked at. It is removed even if nobody waits for that.
    async fn look_into<T, F>(
        &self,
        image: &str,
        platform: &str,
        look: impl FnOnce(Docker, String) -> F + Send + 'static,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send,
    {
        if self.docker.inspect_image(image).await.is_err() {
            self.pull(image, platform).await?;
        }
        let docker = self.docker.clone();
        let body = ContainerCreateBody {
            image: Some(image.to_owned()),
            cmd: Some(vec!["/never-run".to_owned()]),
            ..ContainerCreateBody::default()
        };
        let looked = self.tidy.spawn(async move {
            let options = CreateContainerOptionsBuilder::default().build();
            let container = docker.create_container(Some(options), body).await.map_err(said)?.id;
            let found = look(docker.clone(), container.clone()).await;
            let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
            docker.remove_container(&container, Some(options)).await.map_err(said)?;
            Ok::<_, Error>(found)
        });
        looked.await?.context("looking into the image")
    }
}

/// The busybox in a container, if there is one.
async fn binary_in(docker: Docker, container: String) -> Option<Vec<u8>> {
    for place in PLACES {
        let options = DownloadFromContainerOptionsBuilder::default().path(place).build();
        let mut chunks = docker.download_from_container(&container, Some(options));
        let mut archive = Vec::new();
        while let Some(Ok(chunk)) = chunks.next().await {
            archive.extend_from_slice(&chunk);
            if archive.len() > MAX_BYTES {
                break;
            }
        }
        if let Some(binary) = first_file(&archive) {
            return Some(binary);
        }
    }
    None
}
