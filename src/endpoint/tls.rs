//! What it takes to trust a daemon, and to be trusted by it: three files of a folder.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::EndpointError;
use crate::docker_config::{DockerConfig, Environment, variable};

/// The PEM files for a TLS connection. Whether they can be read was checked when the endpoint was
/// resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsMaterial {
    /// `ca.pem`: what signed the daemon's certificate, and the only CA that counts. Where it is missing, those of the
    /// system do.
    pub ca: PathBuf,
    /// `cert.pem`: what the daemon knows the client by. It may be missing, together with the key,
    /// for a daemon that does not ask.
    pub cert: PathBuf,
    /// `key.pem`: what belongs to the certificate.
    pub key: PathBuf,
    /// Whether the daemon's certificate is checked.
    pub verify: bool,
    /// Whom the certificate is to be for, where that is not the address' host.
    pub server_name: Option<String>,
}

/// Whether the environment asks for TLS, and if so whether to verify the daemon
/// (docker/cli's `cli/flags/options.go`: any value switches on, `0` too).
pub(super) fn of_environment(env: &Environment<'_>) -> Option<bool> {
    let verify = variable(env, "DOCKER_TLS_VERIFY").is_some();
    (verify || variable(env, "DOCKER_TLS").is_some()).then_some(verify)
}

pub(super) fn of_folder(env: &Environment<'_>, config: &DockerConfig, verify: bool) -> Result<TlsMaterial, EndpointError> {
    let folder = variable(env, "DOCKER_CERT_PATH")
        .map(PathBuf::from)
        .or_else(|| config.directory().map(Path::to_owned))
        .ok_or_else(|| EndpointError {
            message: "there is no folder with the certificates for TLS to the daemon".to_owned(),
            hint: "set DOCKER_CERT_PATH to the folder of ca.pem, cert.pem and key.pem".to_owned(),
        })?;
    let hint = "DOCKER_CERT_PATH names the folder of ca.pem, cert.pem and key.pem; unset DOCKER_TLS_VERIFY and DOCKER_TLS if the daemon is reached without TLS";
    let tls = tls_material(&folder, verify, hint)?;
    if verify && !tls.ca.exists() {
        return Err(missing_certificate(&tls.ca, "there is none", hint));
    }
    Ok(tls)
}

pub(super) fn tls_material(folder: &Path, verify: bool, hint: &str) -> Result<TlsMaterial, EndpointError> {
    let tls = TlsMaterial {
        ca: folder.join("ca.pem"),
        cert: folder.join("cert.pem"),
        key: folder.join("key.pem"),
        verify,
        server_name: None,
    };
    is_there(&tls.ca, hint)?;
    match (is_there(&tls.cert, hint)?, is_there(&tls.key, hint)?) {
        (true, false) => Err(missing_certificate(&tls.key, "there is only cert.pem", hint)),
        (false, true) => Err(missing_certificate(&tls.cert, "there is only key.pem", hint)),
        (true, true) | (false, false) => Ok(tls),
    }
}

fn is_there(certificate: &Path, hint: &str) -> Result<bool, EndpointError> {
    match File::open(certificate) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(missing_certificate(certificate, &error.to_string(), hint)),
    }
}

fn missing_certificate(path: &Path, reason: &str, hint: &str) -> EndpointError {
    EndpointError {
        message: format!("TLS to the daemon needs {}, which cannot be read: {reason}", path.display()),
        hint: hint.to_owned(),
    }
}
