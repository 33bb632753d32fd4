//! What a registry was like in an earlier run, so that this one need not ask: how it is reached, what it wants to know
//! people by, and tokens as long as they last.
//!
//! Each registry has a file of its own. Tokens are kept that allow to read and nothing else; those of another login, and what
//! cannot be believed, count as nothing.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::challenge::{Bearer, Challenge};
use super::tokens::{Scope, Token};
use crate::docker_config::Secret;
use crate::{atomic, kept};

const FORMAT: &str = "lattice-registry-1";
const MOST_REGISTRIES: usize = 20;
const MOST_TOKENS: usize = 500;
const LONGEST: u64 = 8 << 20;

/// Where it is kept, and for whom.
#[derive(Clone, Debug)]
pub struct Memory {
    /// Below the program's cache folder.
    pub cache: PathBuf,
    /// What changes with every `docker login`; see [`crate::docker_config::DockerConfig::login`].
    pub login: String,
}

/// What is known of a registry.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// It speaks plain HTTP.
    pub is_plain: bool,
    pub challenge: Option<Challenge>,
    pub tokens: Vec<(Scope, Token)>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    plain: bool,
    challenge: Option<StoredChallenge>,
    tokens: Vec<StoredToken>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredChallenge {
    Basic,
    Bearer { realm: String, service: Option<String> },
}

#[derive(Serialize, Deserialize)]
struct StoredToken {
    scope: String,
    token: String,
    /// In seconds since 1970.
    until: u64,
}

impl Memory {
    pub(super) fn recall(&self, host: &str) -> Option<Known> {
        let stored: Stored = kept::read(&self.file(host), FORMAT, &self.subject(host), LONGEST)?;
        let challenge = stored.challenge.map(|challenge| match challenge {
            StoredChallenge::Basic => Challenge::Basic,
            StoredChallenge::Bearer { realm, service } => Challenge::Bearer(Bearer {
                realm,
                service,
                ..Bearer::default()
            }),
        });
        let tokens = stored.tokens.into_iter().map(|stored| {
            let until = UNIX_EPOCH + Duration::from_secs(stored.until);
            (Scope::parse(&stored.scope), Token::until(Secret::new(stored.token), until))
        });
        Some(Known {
            is_plain: stored.plain,
            challenge,
            tokens: tokens.filter(|(_, token)| token.is_fresh()).collect(),
        })
    }

    /// That it cannot be kept costs time only.
    pub(super) fn keep(&self, host: &str, known: &Known) {
        let challenge = known.challenge.as_ref().map(|challenge| match challenge {
            Challenge::Basic => StoredChallenge::Basic,
            Challenge::Bearer(Bearer { realm, service, .. }) => StoredChallenge::Bearer {
                realm: realm.clone(),
                service: service.clone(),
            },
        });
        let tokens = known.tokens.iter().filter(|(scope, token)| scope.only_reads() && token.is_fresh());
        let stored = Stored {
            plain: known.is_plain,
            challenge,
            tokens: tokens.filter_map(stored).take(MOST_TOKENS).collect(),
        };
        let file = self.file(host);
        let written = kept::write(&file, FORMAT, &self.subject(host), &stored);
        let folder = file.parent().unwrap_or(&self.cache);
        if let Err(error) = written.and_then(|()| atomic::keep_newest(folder, MOST_REGISTRIES)) {
            tracing::debug!("{}: {error}", file.display());
        }
    }

    fn subject(&self, host: &str) -> String {
        format!("{host} {}", self.login)
    }

    fn file(&self, host: &str) -> PathBuf {
        let name = blake3::hash(host.as_bytes()).to_hex();
        self.cache.join("registries").join(&name.as_str()[..32])
    }
}

fn stored((scope, token): &(Scope, Token)) -> Option<StoredToken> {
    let until = token.end().duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(StoredToken {
        scope: scope.to_string(),
        token: token.value.expose().to_owned(),
        until: until.as_secs(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn memory(cache: &Path, login: &str) -> Memory {
        Memory {
            cache: cache.to_owned(),
            login: login.to_owned(),
        }
    }

    fn token(scope: Scope, seconds: u64) -> (Scope, Token) {
        let token = Token::until(Secret::new("secret"), SystemTime::now() + Duration::from_secs(seconds));
        (scope, token)
    }

    #[test]
    fn tokens_to_read_are_kept_while_they_last_and_for_one_login() {
        let dir = tempfile::tempdir().expect("a folder");
        let challenge = Challenge::Bearer(Bearer {
            realm: "https://h.test/token".to_owned(),
            service: Some("registry".to_owned()),
            ..Bearer::default()
        });
        let known = Known {
            is_plain: true,
            challenge: Some(challenge.clone()),
            tokens: vec![
                token(Scope::pull("a"), 60),
                token(Scope::push("b"), 60),
                token(Scope::delete("c"), 60),
                token(Scope::catalog(), 60),
                token(Scope::pull("d"), 0),
                token(Scope::default(), 60),
                token(Scope::pull("a").and(Scope::pull("e")), 60),
            ],
        };
        memory(dir.path(), "one").keep("h.test", &known);
        let recalled = memory(dir.path(), "one").recall("h.test").expect("kept");
        assert!(recalled.is_plain);
        assert_eq!(recalled.challenge, Some(challenge));
        let scopes: Vec<_> = recalled.tokens.iter().map(|(scope, _)| scope.to_string()).collect();
        assert_eq!(scopes, ["repository:a:pull", "repository:a:pull repository:e:pull"]);
        assert_eq!(recalled.tokens[0].1.value.expose(), "secret");
        assert!(memory(dir.path(), "two").recall("h.test").is_none(), "another login");
        assert!(memory(dir.path(), "one").recall("i.test").is_none(), "another registry");
    }

    #[test]
    fn a_token_that_would_last_too_long_is_not_believed() {
        let dir = tempfile::tempdir().expect("a folder");
        let known = Known {
            tokens: vec![token(Scope::pull("a"), 90_000)],
            ..Known::default()
        };
        memory(dir.path(), "one").keep("h.test", &known);
        assert!(memory(dir.path(), "one").recall("h.test").expect("kept").tokens.is_empty());
    }
}
