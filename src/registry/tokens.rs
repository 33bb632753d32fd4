//! Scopes, and the tokens that are good for them (distribution's token authentication).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex as AsyncMutex;

use crate::docker_config::Secret;

/// What a token without a word about it is good for.
const SHORTEST_LIFE: Duration = Duration::from_mins(1);
const LONGEST_LIFE: Duration = Duration::from_hours(24);
/// A token is renewed so long before it ends.
const MARGIN: Duration = Duration::from_secs(10);

/// What is to be done with which repositories, e.g. `repository:a/b:pull,push`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Scope(BTreeSet<(String, String)>);

impl Scope {
    pub(super) fn pull(path: &str) -> Self {
        Self::default().with("repository", path, &["pull"])
    }

    pub(super) fn push(path: &str) -> Self {
        Self::default().with("repository", path, &["pull", "push"])
    }

    pub(super) fn delete(path: &str) -> Self {
        Self::default().with("repository", path, &["delete", "pull"])
    }

    pub(super) fn catalog() -> Self {
        Self::default().with("registry", "catalog", &["*"])
    }

    #[must_use]
    pub(super) fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// As a challenge has it; what cannot be read is left out.
    pub(super) fn parse(text: &str) -> Self {
        text.split(' ').fold(Self::default(), |scope, entry| match entry.rsplit_once(':') {
            Some((resource, actions)) => {
                let actions = actions.split(',').map(|action| (resource.to_owned(), action.to_owned()));
                Self(scope.0.into_iter().chain(actions).collect())
            }
            None => scope,
        })
    }

    fn with(mut self, kind: &str, name: &str, actions: &[&str]) -> Self {
        let entries = actions.iter().map(|action| (format!("{kind}:{name}"), (*action).to_owned()));
        self.0.extend(entries);
        self
    }

    /// Whether it is about repositories, and lets nobody change anything there.
    pub(super) fn only_reads(&self) -> bool {
        let reads = |(resource, action): &(String, String)| resource.starts_with("repository:") && action == "pull";
        !self.0.is_empty() && self.0.iter().all(reads)
    }

    fn covers(&self, other: &Self) -> bool {
        self.0.is_superset(&other.0)
    }

    /// One `scope` parameter for each resource.
    pub(super) fn parameters(&self) -> Vec<String> {
        let mut resources: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (resource, action) in &self.0 {
            resources.entry(resource).or_default().push(action);
        }
        let written = resources
            .into_iter()
            .map(|(resource, actions)| format!("{resource}:{}", actions.join(",")));
        written.collect()
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.parameters().join(" "))
    }
}

#[derive(Clone, Debug)]
pub(super) struct Token {
    pub value: Secret,
    until: SystemTime,
}

impl Token {
    pub(super) fn until(value: Secret, until: SystemTime) -> Self {
        Self { value, until }
    }

    /// When it is to be renewed.
    pub(super) fn end(&self) -> SystemTime {
        self.until
    }

    /// Not so where the clock was set back.
    pub(super) fn is_fresh(&self) -> bool {
        let left = self.until.duration_since(SystemTime::now());
        left.is_ok_and(|left| !left.is_zero() && left <= LONGEST_LIFE)
    }

    /// What a token server answers. `None` where there is no token in it.
    pub(super) fn read(answer: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
            expires_in: Option<Value>,
        }
        let answer: Answer = serde_json::from_slice(answer).ok()?;
        let value = answer
            .token
            .into_iter()
            .chain(answer.access_token)
            .find(|token| !token.is_empty())?;
        let said = answer
            .expires_in
            .and_then(|seconds| seconds.as_f64())
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let life = said.map_or(SHORTEST_LIFE, |life| life.clamp(SHORTEST_LIFE, LONGEST_LIFE));
        Some(Self {
            value: Secret::new(value),
            until: SystemTime::now() + life.saturating_sub(MARGIN),
        })
    }
}

type Slot = Arc<AsyncMutex<Option<Token>>>;

/// The tokens of one registry. Who asks for a scope that is being fetched waits for it.
#[derive(Default)]
pub(super) struct Tokens {
    slots: Mutex<HashMap<Scope, Slot>>,
}

impl Tokens {
    /// A token that is good for `scope` at least; `fetch` gets one.
    pub(super) async fn get<E>(&self, scope: &Scope, fetch: impl AsyncFnOnce() -> Result<Token, E>) -> Result<Token, E> {
        if let Some(token) = self.wider(scope) {
            return Ok(token);
        }
        let slot = Arc::clone(self.slots().entry(scope.clone()).or_default());
        let mut slot = slot.lock().await;
        if let Some(token) = slot.as_ref().filter(|token| token.is_fresh()) {
            return Ok(token.clone());
        }
        let token = fetch().await?;
        *slot = Some(token.clone());
        Ok(token)
    }

    /// Those of another run.
    pub(super) fn give(&self, tokens: Vec<(Scope, Token)>) {
        let given = tokens
            .into_iter()
            .map(|(scope, token)| (scope, Arc::new(AsyncMutex::new(Some(token)))));
        self.slots().extend(given);
    }

    pub(super) fn all(&self) -> Vec<(Scope, Token)> {
        let slots = self.slots();
        let held = slots
            .iter()
            .filter_map(|(scope, slot)| Some((scope.clone(), slot.try_lock().ok()?.clone()?)));
        held.collect()
    }

    /// A token that is good for `scope`, if there is one.
    pub(super) fn wider(&self, scope: &Scope) -> Option<Token> {
        let slots = self.slots();
        let candidates = slots.iter().filter(|(held, _)| held.covers(scope));
        let mut tokens = candidates.filter_map(|(_, slot)| slot.try_lock().ok()?.clone());
        tokens.find(Token::is_fresh)
    }

    /// A registry did not take this one.
    pub(super) fn forget(&self, refused: &Secret) {
        for slot in self.slots().values() {
            // one that is locked is being fetched anew
            if let Ok(mut slot) = slot.try_lock()
                && slot.as_ref().is_some_and(|token| token.value == *refused)
            {
                *slot = None;
            }
        }
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, HashMap<Scope, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_written_one_a_resource() {
        let scope = Scope::push("a/b").and(Scope::pull("c")).and(Scope::pull("a/b"));
        assert_eq!(scope.parameters(), ["repository:a/b:pull,push", "repository:c:pull"]);
        assert_eq!(Scope::catalog().to_string(), "registry:catalog:*");
        assert!(scope.covers(&Scope::pull("a/b")) && !scope.covers(&Scope::push("c")));
        assert_eq!(Scope::parse(&scope.to_string()), scope);
        assert_eq!(Scope::parse("odd repository:x:pull"), Scope::pull("x"));
    }

    #[test]
    fn tokens_are_read_under_both_names() {
        let value = |text: &str| Token::read(text.as_bytes()).map(|token| token.value.expose().to_owned());
        assert_eq!(value(r#"{"token":"t","expires_in":3600}"#).as_deref(), Some("t"));
        assert_eq!(value(r#"{"token":"","access_token":"a"}"#).as_deref(), Some("a"));
        assert_eq!(value(r#"{"access_token":"a","expires_in":-1e300}"#).as_deref(), Some("a"));
        assert_eq!(value("{}"), None);
        assert_eq!(value("<html>"), None);
    }

    #[tokio::test]
    async fn a_token_serves_until_it_ends_or_is_refused_and_for_what_it_covers() {
        let tokens = Tokens::default();
        let life = |seconds: u64, value: &str| Token {
            value: Secret::new(value),
            until: SystemTime::now() + Duration::from_secs(seconds),
        };
        let get = async |scope: &Scope, token: Token| {
            let got = tokens.get(scope, async || Ok::<_, ()>(token)).await;
            got.expect("a token").value.expose().to_owned()
        };
        assert_eq!(get(&Scope::push("a"), life(60, "first")).await, "first");
        assert_eq!(get(&Scope::push("a"), life(60, "second")).await, "first");
        assert_eq!(get(&Scope::pull("a"), life(60, "second")).await, "first");
        assert_eq!(get(&Scope::pull("b"), life(0, "ended")).await, "ended");
        assert_eq!(get(&Scope::pull("b"), life(60, "third")).await, "third");
        tokens.forget(&Secret::new("first"));
        assert_eq!(get(&Scope::push("a"), life(60, "fourth")).await, "fourth");
        assert_eq!(get(&Scope::pull("b"), life(60, "fifth")).await, "third");
    }
}
