//! Docker's contexts, which lie as docker/cli's `cli/context/store` keeps them:
//! `contexts/meta/<sha256 of the name>/meta.json` and `contexts/tls/<sha256>/docker/*.pem`.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::address::default_port;
use super::tls::tls_material;
use super::{Address, DEFAULT_CONTEXT, Endpoint, EndpointError, Source, malformed, parse_address};
use crate::docker_config::{DockerConfig, parse, without_values};

/// `meta.json`; of its endpoints only the one called `docker` matters here.
#[derive(Default, Deserialize)]
struct ContextJson {
    #[serde(rename = "Name", alias = "name")]
    name: Option<String>,
    #[serde(rename = "Endpoints", alias = "endpoints")]
    endpoints: Option<EndpointsJson>,
}

#[derive(Default, Deserialize)]
struct EndpointsJson {
    docker: Option<EndpointJson>,
}

#[derive(Default, Deserialize)]
struct EndpointJson {
    #[serde(rename = "Host")]
    host: Option<String>,
    #[serde(rename = "SkipTLSVerify")]
    skip_tls_verify: Option<bool>,
}

/// The daemon of Docker's context of this name.
pub(crate) fn of_context(config: &DockerConfig, name: &str, source: Source) -> Result<Endpoint, EndpointError> {
    let id = format!("{:x}", Sha256::digest(name));
    let contexts = config.directory().map(|d| d.join("contexts"));
    let contexts = contexts.ok_or_else(|| unknown_context(&source, &[]))?;
    let meta = contexts.join("meta").join(&id).join("meta.json");
    let text = match fs::read(&meta) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(unknown_context(&source, &known_contexts(&contexts)));
        }
        Err(error) => return Err(broken_context(&source, &meta.display(), &error.to_string())),
    };
    let context: ContextJson = parse(&text).map_err(|error| {
        let place = format!("{}:{}", meta.display(), error.line());
        broken_context(&source, &place, &without_values(&error))
    })?;
    let Some(docker) = context.endpoints.and_then(|endpoints| endpoints.docker) else {
        return Err(broken_context(&source, &meta.display(), "no endpoint `docker`"));
    };
    let certificates = contexts.join("tls").join(&id).join("docker");
    endpoint_from_meta(&docker, source, &certificates)
}

fn endpoint_from_meta(docker: &EndpointJson, source: Source, certificates: &Path) -> Result<Endpoint, EndpointError> {
    let verify = !docker.skip_tls_verify.unwrap_or_default();
    let with_tls = certificates.is_dir() || !verify;
    let host = match docker.host.as_deref() {
        None | Some("") => "unix://",
        Some(host) => host,
    };
    let address = parse_address(host, default_port(with_tls)).map_err(|reason| malformed(&source, host, &reason))?;
    let tls = if with_tls && matches!(address, Address::Tcp { .. }) {
        let hint = "make the context anew: `docker context rm`, then `docker context create`";
        Some(tls_material(certificates, verify, hint)?)
    } else {
        None
    };
    Ok(Endpoint { address, source, tls })
}

/// The names of all contexts that can be read, `default` among them, sorted.
fn known_contexts(contexts: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(contexts.join("meta"))
        .into_iter()
        .flatten()
        .filter_map(|folder| {
            let text = fs::read(folder.ok()?.path().join("meta.json")).ok()?;
            parse::<ContextJson>(&text).ok()?.name
        })
        .collect();
    names.push(DEFAULT_CONTEXT.to_owned());
    names.sort();
    names
}

fn unknown_context(source: &Source, known: &[String]) -> EndpointError {
    let mut message = format!("{source} does not exist");
    if !known.is_empty() {
        message = format!("{message} (contexts: {})", known.join(", "));
    }
    EndpointError {
        message,
        hint: other_context(source),
    }
}

fn broken_context(source: &Source, place: &dyn fmt::Display, reason: &str) -> EndpointError {
    EndpointError {
        message: format!("{source} cannot be used, {place}: {reason}"),
        hint: other_context(source),
    }
}

fn other_context(source: &Source) -> String {
    match source {
        Source::CurrentContext(_) => "`docker context ls` lists the contexts, `docker context use NAME` chooses one",
        _ => "`docker context ls` lists the contexts; unset DOCKER_CONTEXT to use the current one",
    }
    .to_owned()
}
