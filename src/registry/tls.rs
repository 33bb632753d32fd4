//! Whose certificates are trusted: the system's store, `SSL_CERT_FILE`, `SSL_CERT_DIR`, and Docker's `certs.d`.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use tokio::sync::OnceCell;
use tracing::debug;

use crate::tls::{self, Identity, UnusableFile};

pub(super) struct Trust {
    file: Option<PathBuf>,
    folder: Option<PathBuf>,
    certs_d: Vec<PathBuf>,
    system: OnceCell<Vec<CertificateDer<'static>>>,
}

/// Whether a server has to prove who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    Needed,
    /// As Docker does with insecure registries.
    Waived,
}

impl Trust {
    pub(super) fn new(file: Option<PathBuf>, folder: Option<PathBuf>, certs_d: Vec<PathBuf>) -> Self {
        Self {
            file,
            folder,
            certs_d,
            system: OnceCell::new(),
        }
    }

    /// How to speak TLS with `authority`. The CAs of `registry` count as well: it is what sends there.
    pub(super) async fn config(&self, authority: &str, registry: &str, proof: Proof) -> io::Result<ClientConfig> {
        let trust = match proof {
            Proof::Waived => tls::Trust::Anybody,
            Proof::Needed => {
                let mut trusted = self.system().await.to_vec();
                trusted.extend(self.authorities(registry)?);
                if authority != registry {
                    trusted.extend(self.authorities(authority)?);
                }
                tls::Trust::Certificates(trusted)
            }
        };
        let mut config = tls::client_config(trust, self.identity(authority)?).map_err(io::Error::other)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    async fn system(&self) -> &[CertificateDer<'static>] {
        let load = || async {
            let (file, folder) = (self.file.clone(), self.folder.clone());
            let found = tokio::task::spawn_blocking(move || {
                if file.is_none() && folder.is_none() {
                    rustls_native_certs::load_native_certs()
                } else {
                    rustls_native_certs::load_certs_from_paths(file.as_deref(), folder.as_deref())
                }
            });
            let found = found.await.unwrap_or_default();
            found.errors.iter().for_each(|error| debug!("trusted certificates: {error}"));
            found.certs
        };
        self.system.get_or_init(load).await
    }

    fn authorities(&self, host: &str) -> io::Result<Vec<CertificateDer<'static>>> {
        let mut found = Vec::new();
        for file in self.files(host, "crt")? {
            found.extend(tls::certificates(&file).map_err(|file| unusable(&file))?);
        }
        Ok(found)
    }

    fn identity(&self, host: &str) -> io::Result<Option<Identity>> {
        let Some(file) = self.files(host, "cert")?.into_iter().next() else {
            return Ok(None);
        };
        let chain = tls::certificates(&file).map_err(|file| unusable(&file))?;
        let key = tls::private_key(&file.with_extension("key")).map_err(|file| unusable(&file))?;
        Ok(Some((chain, key)))
    }

    fn files(&self, host: &str, extension: &str) -> io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for folder in self.certs_d.iter().map(|folder| folder.join(host)) {
            let entries = match fs::read_dir(&folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries.map_err(|error| unreadable(&folder, &error))?,
            };
            let paths = entries.flatten().map(|entry| entry.path());
            files.extend(paths.filter(|path| path.extension().is_some_and(|found| found == extension)));
        }
        files.sort();
        Ok(files)
    }
}

fn unusable(file: &UnusableFile) -> io::Error {
    unreadable(&file.path, &file.reason)
}

fn unreadable(path: &Path, reason: &dyn fmt::Display) -> io::Error {
    io::Error::other(format!("{} cannot be used: {reason}", path.display()))
}
