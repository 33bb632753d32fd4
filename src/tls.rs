//! TLS as registries, daemons and builders are spoken to: what is read of PEM files, and which servers are believed.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// Who may be the server.
pub(crate) enum Trust {
    /// Whoever a CA among these vouches for, and whoever has one of these as its own certificate. One that cannot be read
    /// does not spoil the rest, as in other programs.
    Certificates(Vec<CertificateDer<'static>>),
    Anybody,
}

/// A certificate with what leads to its CA, and its key: what a server knows us by.
pub(crate) type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// How to speak TLS with such a server.
pub(crate) fn client_config(trust: Trust, identity: Option<Identity>) -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Verifier {
        algorithms: provider.signature_verification_algorithms,
        trusted: match trust {
            Trust::Certificates(certificates) => Some(Trusted::new(certificates)),
            Trust::Anybody => None,
        },
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    match identity {
        None => Ok(config.with_no_client_auth()),
        Some((chain, key)) => config.with_client_auth_cert(chain, key),
    }
}

/// A file does not hold what it should.
#[derive(Debug)]
pub(crate) struct UnusableFile {
    pub(crate) path: PathBuf,
    pub(crate) reason: String,
}

impl UnusableFile {
    pub(crate) fn new(path: &Path, reason: impl fmt::Display) -> Self {
        Self {
            path: path.to_owned(),
            reason: reason.to_string(),
        }
    }

    fn of(path: &Path, error: pem::Error) -> Self {
        match error {
            pem::Error::Io(error) => Self::new(path, error),
            error => Self::new(path, format!("it is not PEM: {error}")),
        }
    }
}

/// All of the file's; it may hold none.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, UnusableFile> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    read.map_err(|error| UnusableFile::of(path, error))
}

pub(crate) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, UnusableFile> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| match error {
        pem::Error::NoItemsFound => UnusableFile::new(path, "it holds no private key that is free of a passphrase"),
        error => UnusableFile::of(path, error),
    })
}

#[derive(Debug)]
struct Trusted {
    authorities: RootCertStore,
    certificates: Vec<CertificateDer<'static>>,
}

impl Trusted {
    fn new(certificates: Vec<CertificateDer<'static>>) -> Self {
        let mut authorities = RootCertStore::empty();
        authorities.add_parsable_certificates(certificates.iter().cloned());
        Self { authorities, certificates }
    }
}

/// Without `trusted` it takes any certificate.
#[derive(Debug)]
struct Verifier {
    algorithms: WebPkiSupportedAlgorithms,
    trusted: Option<Trusted>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(trusted) = &self.trusted {
            let certificate = ParsedCertificate::try_from(end_entity)?;
            let authorities = &trusted.authorities;
            match verify_server_cert_signed_by_trust_anchor(&certificate, authorities, intermediates, now, self.algorithms.all) {
                Err(error) if is_about_time(&error) => return Err(error),
                // self-signed certificates are often CAs by their own word, which webpki takes for no server's; Go does
                Err(_) if trusted.certificates.contains(end_entity) => {}
                judged => judged?,
            }
            verify_server_name(&certificate, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn is_about_time(error: &Error) -> bool {
    matches!(
        error,
        Error::InvalidCertificate(Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. })
    )
}
