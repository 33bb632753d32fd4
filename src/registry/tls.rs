//! Whose certificates are trusted: the system's store, `SSL_CERT_FILE`, `SSL_CERT_DIR`, and Docker's `certs.d`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio::sync::OnceCell;
use tracing::debug;

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
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = match proof {
            Proof::Waived => Arc::new(Unverified(Arc::clone(&provider))),
            Proof::Needed => {
                let mut trusted = self.system().await.to_vec();
                trusted.extend(self.authorities(registry)?);
                if authority != registry {
                    trusted.extend(self.authorities(authority)?);
                }
                Arc::new(Verified::new(trusted, Arc::clone(&provider)).map_err(io::Error::other)?)
            }
        };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match self.client_pair(authority)? {
            None => config.with_no_client_auth(),
            Some((chain, key)) => config.with_client_auth_cert(chain, key).map_err(io::Error::other)?,
        };
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
            found.extend(certificates(&file)?);
        }
        Ok(found)
    }

    fn client_pair(&self, host: &str) -> io::Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>> {
        let Some(file) = self.files(host, "cert")?.into_iter().next() else {
            return Ok(None);
        };
        let chain = certificates(&file)?;
        let key = file.with_extension("key");
        let key = PrivateKeyDer::from_pem_file(&key).map_err(|error| unreadable(&key, &error))?;
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

fn certificates(file: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    read.map_err(|error| unreadable(file, &error))
}

fn unreadable(path: &Path, error: &dyn std::error::Error) -> io::Error {
    io::Error::other(format!("{} cannot be used: {error}", path.display()))
}

/// What a CA vouches for, or a certificate that is itself among the trusted ones.
#[derive(Debug)]
struct Verified {
    by_authorities: Arc<WebPkiServerVerifier>,
    trusted: Vec<CertificateDer<'static>>,
}

impl Verified {
    fn new(trusted: Vec<CertificateDer<'static>>, provider: Arc<CryptoProvider>) -> Result<Self, rustls::client::VerifierBuilderError> {
        let mut roots = RootCertStore::empty();
        // as other programs do: a certificate in the store that cannot be read does not spoil the rest
        roots.add_parsable_certificates(trusted.iter().cloned());
        let by_authorities = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
        Ok(Self { by_authorities, trusted })
    }
}

impl ServerCertVerifier for Verified {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self
            .by_authorities
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        // self-signed certificates are often CAs by their own word, which webpki takes for no server's; Go does
        if verified.is_err() && self.trusted.iter().any(|trusted| trusted == end_entity) {
            verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            return Ok(ServerCertVerified::assertion());
        }
        verified
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_authorities.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_authorities.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.by_authorities.supported_verify_schemes()
    }
}

#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
