//! Making ourselves known: passwords, and tokens from the token server that a registry names.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hyper::Method;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use url::Url;
use url::form_urlencoded::Serializer;

use super::answer::authority;
use super::ask::Ask;
use super::challenge::{Bearer, Challenge};
use super::content::Content;
use super::error::{Error, Kind, quoted};
use super::host::Host;
use super::retry::retried;
use super::tokens::{Scope, Token};
use crate::credentials::{Credential, unauthorized_hint};
use crate::docker_config::Secret;

const CLIENT_ID: &str = "lattice-images";
const LONGEST_TOKEN: usize = 256 * 1024;
const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");

impl Host {
    pub(super) async fn credential(&self) -> Result<Credential, Error> {
        let found = self.credentials.for_host(&self.name).await;
        found.map_err(|error| Error::new(Kind::Unauthorized, error.to_string()).hint(error.hint()))
    }

    /// `None` where there is nothing to say.
    pub(super) async fn authorization(self: &Arc<Self>, challenge: &Challenge, scope: &Scope) -> Result<Option<HeaderValue>, Error> {
        if let (Challenge::Bearer(_), Some(token)) = (challenge, self.tokens.wider(scope)) {
            return Ok(Some(bearer(&token.value)?));
        }
        match (challenge, self.credential().await?) {
            (_, Credential::RegistryToken(token)) => Ok(Some(bearer(&token)?)),
            (Challenge::Basic, Credential::Password { username, password }) => Ok(Some(basic(&username, &password)?)),
            (Challenge::Basic, Credential::Anonymous | Credential::IdentityToken(_)) => Ok(None),
            (Challenge::Bearer(server), credential) => {
                let fetch = async || retried(|| self.token(server, scope, &credential)).await;
                let token = self.tokens.get(scope, fetch).await?;
                self.has_learned.store(true, Relaxed);
                Ok(Some(bearer(&token.value)?))
            }
        }
    }

    /// Another authorization than the one that was refused, if there is one.
    pub(super) async fn renewed(
        self: &Arc<Self>,
        challenge: &Challenge,
        scope: &Scope,
        refused: Option<&HeaderValue>,
    ) -> Result<Option<HeaderValue>, Error> {
        let refused_token = refused
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "));
        if let Some(token) = refused_token {
            self.tokens.forget(&Secret::new(token));
        }
        let asked = match challenge {
            Challenge::Bearer(Bearer { scope: Some(asked), .. }) => Scope::parse(asked),
            _ => Scope::default(),
        };
        let renewed = self.authorization(challenge, &scope.clone().and(asked)).await?;
        Ok(renewed.filter(|renewed| Some(renewed) != refused))
    }

    async fn token(self: &Arc<Self>, server: &Bearer, scope: &Scope, credential: &Credential) -> Result<Token, Error> {
        let realm = self.realm(server)?;
        let subject = format!("{}: the token server {}", self.name, authority(&realm));
        let ask = Ask::new(Method::GET, "", Scope::default(), subject.clone());
        let answer = match credential {
            Credential::IdentityToken(token) => {
                let ask = Ask {
                    method: Method::POST,
                    content: Content::from(refresh(server, scope, token)),
                    ..ask
                };
                self.send(&ask.header(CONTENT_TYPE, FORM), realm, None).await?
            }
            Credential::Password { username, password } => {
                let password = basic(username, password)?;
                self.send(&ask, with_query(realm, server, scope), Some(password)).await?
            }
            _ => self.send(&ask, with_query(realm, server, scope), None).await?,
        };
        match answer.status.as_u16() {
            200 => {
                let body = answer.bytes(LONGEST_TOKEN).await?;
                Token::read(&body).ok_or_else(|| Error::malformed(&subject, "its answer holds no token"))
            }
            400 | 401 | 403 => {
                let message = format!("{subject} gives no token ({})", answer.said().await);
                Err(Error::new(Kind::Unauthorized, message).hint(unauthorized_hint(&self.name, credential)))
            }
            status => Err(Error::malformed(&subject, format!("it answered {status}"))),
        }
    }

    /// Where tokens come from: over HTTPS, or plain HTTP between insecure hosts.
    fn realm(&self, server: &Bearer) -> Result<Url, Error> {
        let shown = quoted(&server.realm);
        let refused = |why: &str| Error::malformed(&self.name, format!("its token server `{shown}` is not asked: {why}"));
        let realm = Url::parse(&server.realm).map_err(|_| refused("it is no URL"))?;
        if !realm.username().is_empty() || realm.password().is_some() {
            return Err(refused("its address names a user"));
        }
        let plain_is_right = self.surroundings.is_insecure(self.endpoint()) && self.is_insecure(&realm);
        match realm.scheme() {
            "https" => Ok(realm),
            "http" if plain_is_right => Ok(realm),
            _ => Err(refused("it is not HTTPS")),
        }
    }
}

fn with_query(mut realm: Url, server: &Bearer, scope: &Scope) -> Url {
    let service = server.service.iter().map(|service| ("service", service));
    realm.query_pairs_mut().extend_pairs(service);
    let scopes = scope.parameters();
    realm.query_pairs_mut().extend_pairs(scopes.iter().map(|scope| ("scope", scope)));
    realm
}

/// Source: distribution's `docs/spec/auth/oauth.md`.
fn refresh(server: &Bearer, scope: &Scope, token: &Secret) -> String {
    Serializer::new(String::new())
        .append_pair("grant_type", "refresh_token")
        .append_pair("refresh_token", token.expose())
        .append_pair("client_id", CLIENT_ID)
        .append_pair("scope", &scope.to_string())
        .extend_pairs(server.service.iter().map(|service| ("service", service)))
        .finish()
}

fn basic(username: &str, password: &Secret) -> Result<HeaderValue, Error> {
    let encoded = BASE64_STANDARD.encode(format!("{username}:{}", password.expose()));
    sensitive(&format!("Basic {encoded}"))
}

fn bearer(token: &Secret) -> Result<HeaderValue, Error> {
    sensitive(&format!("Bearer {}", token.expose()))
}

fn sensitive(value: &str) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::from_str(value).map_err(|_| Error::new(Kind::Unauthorized, "a token that cannot be sent in a header"))?;
    value.set_sensitive(true);
    Ok(value)
}
