//! The names of additional contexts, and which of them a Dockerfile means.

use super::{Build, NamedContext};

/// The form in which BuildKit looks for a name (moby/buildkit, `frontend/dockerui`): as Docker shows an image's, without
/// `:latest`.
pub(super) fn context_name(name: &str) -> &str {
    let hub = ["docker.io/", "index.docker.io/"];
    let path = hub.iter().find_map(|host| name.strip_prefix(host)).unwrap_or(name);
    let is_official = |rest: &&str| !rest.contains('/');
    let short = path.strip_prefix("library/").filter(is_official).unwrap_or(path);
    short.strip_suffix(":latest").unwrap_or(short)
}

impl Build {
    /// The additional context that stands for `name` in the Dockerfile: it goes before an image of that name.
    #[must_use]
    pub fn named_context(&self, name: &str) -> Option<&NamedContext> {
        self.additional_contexts.get(context_name(name))
    }
}

#[cfg(test)]
mod tests {
    use super::context_name;

    #[test]
    fn names_are_compared_as_buildkit_does() {
        for (name, normal) in [
            ("more", "more"),
            ("alpine:latest", "alpine"),
            ("debian:12", "debian:12"),
            ("docker.io/library/debian:12", "debian:12"),
            ("index.docker.io/library/debian", "debian"),
            ("docker.io/alpine", "alpine"),
            ("library/alpine", "alpine"),
            ("docker.io/grafana/agent:latest", "grafana/agent"),
            ("gcr.io/library/x:latest", "gcr.io/library/x"),
            ("library/a/b", "library/a/b"),
            ("localhost:5000/x", "localhost:5000/x"),
        ] {
            assert_eq!(context_name(name), normal, "{name}");
        }
    }
}
