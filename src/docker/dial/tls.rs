//! TLS as Docker's client speaks it: the daemon's CA and no other (the system's where it has none), and a certificate of the
//! client's own.

use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, Error as TlsError, RootCertStore};

use crate::endpoint::TlsMaterial;
use crate::tls::{self, Identity, Trust, UnusableFile};

pub(super) fn client_config(material: &TlsMaterial) -> Result<ClientConfig, UnusableFile> {
    let trust = if material.verify {
        Trust::Certificates(authorities(&material.ca)?)
    } else {
        Trust::Anybody
    };
    tls::client_config(trust, identity(material)?).map_err(|error| match error {
        TlsError::InconsistentKeys(_) => UnusableFile::new(&material.key, "it is not the key of cert.pem"),
        error => UnusableFile::new(&material.key, error),
    })
}

fn identity(material: &TlsMaterial) -> Result<Option<Identity>, UnusableFile> {
    if !material.cert.exists() {
        return Ok(None);
    }
    let key = tls::private_key(&material.key)?;
    Ok(Some((certificates(&material.cert)?, key)))
}

fn authorities(ca: &Path) -> Result<Vec<CertificateDer<'static>>, UnusableFile> {
    if !ca.exists() {
        return Ok(rustls_native_certs::load_native_certs().certs);
    }
    let found = certificates(ca)?;
    let mut readable = RootCertStore::empty();
    for certificate in &found {
        readable.add(certificate.clone()).map_err(|error| UnusableFile::new(ca, error))?;
    }
    Ok(found)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, UnusableFile> {
    let found = tls::certificates(path)?;
    if found.is_empty() {
        return Err(UnusableFile::new(path, "it holds no certificate"));
    }
    Ok(found)
}
