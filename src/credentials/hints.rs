//! What to do where a registry lets nobody in.

use super::Credential;
use super::auths::{DOCKER_HUB, auth_key};

pub(super) fn registry_name(key: &str) -> &str {
    if key == DOCKER_HUB { "docker.io" } else { key }
}

pub(super) fn docker_login(host: &str) -> String {
    match registry_name(auth_key(host)) {
        "docker.io" => "docker login".to_owned(),
        host => format!("docker login {host}"),
    }
}

pub(super) fn is_google(host: &str) -> bool {
    host == "gcr.io" || host.ends_with(".gcr.io") || is_artifact_registry(host)
}

fn is_artifact_registry(host: &str) -> bool {
    host.ends_with(".pkg.dev")
}

/// How to log in to the registry: for when it refuses somebody without credentials.
#[must_use]
pub fn missing_credential_hint(host: &str) -> String {
    if !is_google(host) {
        return format!("log in with `{}`", docker_login(host));
    }
    // without a name both commands write down the gcr.io hosts only
    let (registries, registry) = if is_artifact_registry(host) {
        (format!(" --registries={host}"), format!(" {host}"))
    } else {
        (String::new(), String::new())
    };
    format!(
        "log in with `gcloud auth login`, then let Docker use that: `gcloud auth configure-docker{registry}`\n\
         or, with Google's own helper: `gcloud components install docker-credential-gcr`, `docker-credential-gcr configure-docker{registries}`"
    )
}

/// What to do when the registry does not know the person by this credential, or lack of one.
#[must_use]
pub fn unauthorized_hint(host: &str, credential: &Credential) -> String {
    match credential {
        Credential::Anonymous => missing_credential_hint(host),
        _ => format!(
            "the registry does not accept the credentials that Docker has for {host}: {}",
            docker_login(host)
        ),
    }
}

/// What somebody lacks the right to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    Pull,
    Push,
}

/// Whom to ask when the registry knows the person and says 403. `repository` is with or without
/// the host: `gcr.io/lattice-dev/stable-envoy-prepare`.
#[must_use]
pub fn forbidden_hint(host: &str, repository: &str, right: Right) -> String {
    let path = repository.strip_prefix(host);
    let repository = path.and_then(|path| path.strip_prefix('/')).unwrap_or(repository);
    if !is_google(host) {
        return format!(
            "ask whoever administers {host} for the right to {}{repository}, or log in as somebody who has it: `{}`",
            if right == Right::Push { "push to " } else { "pull from " },
            docker_login(host)
        );
    }
    let project = google_project(repository);
    let role = match right {
        Right::Pull => "roles/artifactregistry.reader",
        Right::Push => "roles/artifactregistry.writer (the first push to gcr.io needs roles/artifactregistry.createOnPushWriter)",
    };
    format!(
        "ask whoever administers the Google Cloud project {project} for the role {role}; `gcloud auth list` shows as whom you are logged in"
    )
}

/// The project of a repository at Google's registries; that of a domain is two parts long:
/// `example.com/project`.
fn google_project(repository: &str) -> &str {
    let mut ends = repository.match_indices('/').map(|(end, _)| end);
    let first = ends.next().unwrap_or(repository.len());
    if !repository[..first].contains('.') {
        return &repository[..first];
    }
    &repository[..ends.next().unwrap_or(repository.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_say_the_very_commands() {
        for host in ["gcr.io", "eu.gcr.io"] {
            assert_eq!(
                missing_credential_hint(host),
                "log in with `gcloud auth login`, then let Docker use that: `gcloud auth configure-docker`\n\
                 or, with Google's own helper: `gcloud components install docker-credential-gcr`, `docker-credential-gcr configure-docker`"
            );
        }
        let hint = missing_credential_hint("us-docker.pkg.dev");
        assert!(hint.contains("`docker-credential-gcr configure-docker --registries=us-docker.pkg.dev`"));
        assert!(hint.contains("`gcloud auth configure-docker us-docker.pkg.dev`"));
        assert_eq!(missing_credential_hint("notgcr.io"), "log in with `docker login notgcr.io`");
        assert_eq!(missing_credential_hint("docker.io"), "log in with `docker login`");
    }

    #[test]
    fn a_refusal_says_whom_to_ask() {
        let hint = forbidden_hint("gcr.io", "gcr.io/lattice-dev/stable-envoy-prepare", Right::Push);
        let without_host = forbidden_hint("gcr.io", "lattice-dev/stable-envoy-prepare", Right::Push);
        assert_eq!(hint, without_host);
        assert!(hint.contains("whoever administers the Google Cloud project lattice-dev for the role roles/artifactregistry.writer"));
        let hint = forbidden_hint("eu.gcr.io", "example.com/project/image", Right::Pull);
        assert!(hint.contains("project example.com/project for"), "{hint}");
        let hint = forbidden_hint("localhost:5000", "a/b", Right::Push);
        assert!(hint.starts_with("ask whoever administers localhost:5000 for the right to push to a/b"));
        assert!(hint.contains("`docker login localhost:5000`"));
        assert_eq!(google_project("p"), "p");
        assert_eq!(google_project("a.b"), "a.b");
    }
}
