//! TLS as Docker's client speaks it: the daemon's CA and no other (the system's where it has none), and a certificate of the
//! client's own.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme};

use crate::endpoint::TlsMaterial;

/// A file does not hold what it should.
#[derive(Debug)]
pub(super) struct UnusableFile {
    path: PathBuf,
    reason: String,
}

impl fmt::Display for UnusableFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.reason)
    }
}

pub(super) fn client_config(tls: &TlsMaterial) -> Result<ClientConfig, UnusableFile> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&tls.ca, error.to_string()))?;
    let config = if tls.verify {
        config.with_root_certificates(roots(&tls.ca)?)
    } else {
        config.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider)))
    };
    if !tls.cert.exists() {
        return Ok(config.with_no_client_auth());
    }
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|error| match error {
        pem::Error::NoItemsFound => unusable(&tls.key, "it holds no private key that is free of a passphrase"),
        error => unreadable(&tls.key, error),
    })?;
    let accepted = config.with_client_auth_cert(certificates(&tls.cert)?, key);
    accepted.map_err(|error| match error {
        TlsError::InconsistentKeys(_) => unusable(&tls.key, "it is not the key of cert.pem"),
        error => unusable(&tls.key, error.to_string()),
    })
}

fn roots(ca: &Path) -> Result<RootCertStore, UnusableFile> {
    let mut roots = RootCertStore::empty();
    if !ca.exists() {
        // as other programs do: one that cannot be read does not spoil the rest
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(roots);
    }
    for certificate in certificates(ca)? {
        roots.add(certificate).map_err(|error| unusable(ca, error.to_string()))?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, UnusableFile> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(none) if none.is_empty() => Err(unusable(path, "it holds no certificate")),
        read => read.map_err(|error| unreadable(path, error)),
    }
}

fn unreadable(path: &Path, error: pem::Error) -> UnusableFile {
    match error {
        pem::Error::Io(error) => unusable(path, error.to_string()),
        error => unusable(path, format!("it is not PEM: {error}")),
    }
}

fn unusable(path: &Path, reason: impl Into<String>) -> UnusableFile {
    UnusableFile {
        path: path.to_owned(),
        reason: reason.into(),
    }
}

/// Takes any certificate, as `DOCKER_TLS` without `DOCKER_TLS_VERIFY` and `skip-tls-verify=true` ask for.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
