//! One registry: how it is reached, what it wants to know people by, and requests to it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderValue, USER_AGENT};
use hyper::{Method, Request, StatusCode, Uri};
use tokio::sync::{Mutex, Notify};
use tokio::time::timeout;
use url::Url;

use super::Surroundings;
use super::answer::{Answer, authority, server_named, unavailable};
use super::ask::{Ask, At};
use super::challenge::Challenge;
use super::error::{Again, Error, Kind, quoted};
use super::memory::Known;
use super::retry::retried;
use super::tokens::{Scope, Tokens};
use super::transport::{Failure, Transport};
use crate::credentials::Credentials;

const AGENT: HeaderValue = HeaderValue::from_static(concat!("lattice-images/", env!("CARGO_PKG_VERSION")));
const MOST_REDIRECTS: usize = 5;
/// A registry that did not answer is not asked again by those who waited for the same.
const UNREACHABLE_FOR: Duration = Duration::from_secs(5);
/// Somebody waits to be told whether there is a registry at all.
const FIRST_ANSWER: Duration = Duration::from_secs(15);

pub(super) struct Host {
    /// As it stands in a repository's name.
    pub name: String,
    pub surroundings: Arc<Surroundings>,
    pub credentials: Credentials,
    pub transport: Transport,
    pub tokens: Tokens,
    /// Whether it knows more than what it remembered.
    pub has_learned: AtomicBool,
    /// The microseconds of the fastest answer.
    fastest: AtomicU64,
    contact: Mutex<Option<Result<Contact, (Error, Instant)>>>,
}

/// What the first answer told.
#[derive(Clone)]
struct Contact {
    root: Url,
    challenge: Option<Challenge>,
    /// It was the first answer to another run, and may not be true any more.
    is_remembered: bool,
}

impl Host {
    pub(super) fn new(name: &str, surroundings: Arc<Surroundings>, credentials: Credentials) -> Self {
        Self {
            name: name.to_owned(),
            transport: Transport::new(name, Arc::clone(&surroundings)),
            surroundings,
            credentials,
            tokens: Tokens::default(),
            has_learned: AtomicBool::new(false),
            fastest: AtomicU64::new(u64::MAX),
            contact: Mutex::default(),
        }
        .with_memory()
    }

    fn with_memory(mut self) -> Self {
        let Some(known) = self.surroundings.memory.as_ref().and_then(|memory| memory.recall(&self.name)) else {
            return self;
        };
        let scheme = if known.is_plain { "http" } else { "https" };
        let is_right = !known.is_plain || self.surroundings.is_insecure(self.endpoint());
        if let Ok(root) = self.root(scheme)
            && is_right
        {
            self.tokens.give(known.tokens);
            *self.contact.get_mut() = Some(Ok(Contact {
                root,
                challenge: known.challenge,
                is_remembered: true,
            }));
        }
        self
    }

    /// Keeps for the next run what this one has learned.
    pub(super) fn remember(&self) {
        let Some(memory) = self.surroundings.memory.as_ref().filter(|_| self.has_learned.load(Relaxed)) else {
            return;
        };
        if let Ok(contact) = self.contact.try_lock()
            && let Some(Ok(contact)) = &*contact
        {
            let known = Known {
                is_plain: contact.root.scheme() == "http",
                challenge: contact.challenge.clone(),
                tokens: self.tokens.all(),
            };
            memory.keep(&self.name, &known);
        }
    }

    /// Whether what is read here needs no credential, by what is remembered.
    pub(super) fn needs_no_credential(&self) -> bool {
        let contact = self.contact.try_lock();
        contact.is_ok_and(|contact| match &*contact {
            Some(Ok(Contact { challenge, .. })) => match challenge {
                None => true,
                Some(Challenge::Basic) => false,
                Some(Challenge::Bearer(_)) => !self.tokens.all().is_empty(),
            },
            _ => false,
        })
    }

    /// None where there was no answer yet.
    pub(super) fn answers_in(&self) -> Option<Duration> {
        let fastest = self.fastest.load(Relaxed);
        (fastest < u64::MAX).then(|| Duration::from_micros(fastest))
    }

    /// Docker Hub's API has a host of its own.
    pub(super) fn endpoint(&self) -> &str {
        match self.name.as_str() {
            "docker.io" | "index.docker.io" => "registry-1.docker.io",
            name => name,
        }
    }

    pub(super) async fn ping(self: &Arc<Self>) -> Result<(), Error> {
        let ask = Ask::new(Method::GET, "v2/", Scope::default(), self.name.clone());
        let answer = retried(|| self.attempt(&ask)).await?;
        answer.expect(&[StatusCode::OK]).await.map(drop)
    }

    /// One try. Answers that say to come back later are errors; all others, refusals too, are answers.
    pub(super) async fn attempt(self: &Arc<Self>, ask: &Ask) -> Result<Answer, Error> {
        let contact = self.contact().await?;
        if !contact.is_remembered {
            return self.attempt_at(&contact, ask).await;
        }
        if ask.content.is_there() {
            let answer = self.attempt_at(&contact, ask).await;
            if let Ok(answer) = answer
                && answer.is_of_a_registry()
            {
                self.confirm().await;
                return Ok(answer);
            }
        }
        // it is not what it was, or does not answer: that is for the first answer of this run to tell
        self.doubt().await;
        let contact = self.contact().await?;
        self.attempt_at(&contact, ask).await
    }

    async fn confirm(&self) {
        if let Some(Ok(contact)) = &mut *self.contact.lock().await {
            contact.is_remembered = false;
        }
    }

    async fn doubt(&self) {
        let mut contact = self.contact.lock().await;
        if matches!(&*contact, Some(Ok(contact)) if contact.is_remembered) {
            *contact = None;
        }
    }

    async fn attempt_at(self: &Arc<Self>, contact: &Contact, ask: &Ask) -> Result<Answer, Error> {
        let url = match &ask.at {
            At::Path(path) => contact.root.join(path).map_err(|error| Error::malformed(&ask.subject, error))?,
            At::Url(url) => url.clone(),
        };
        let ours = same_origin(&url, &contact.root);
        let credential = match &contact.challenge {
            Some(challenge) if ours => self.authorization(challenge, &ask.scope).await?,
            _ => None,
        };
        let answer = if contact.is_remembered {
            self.send_first(ask, url.clone(), credential.clone()).await?
        } else {
            self.send(ask, url.clone(), credential.clone()).await?
        };
        if answer.status != StatusCode::UNAUTHORIZED || !ours || !ask.content.is_there() {
            return self.follow(ask, answer, credential).await;
        }
        let Some(challenge) = Challenge::of(&answer.headers) else {
            return Ok(answer);
        };
        let Some(renewed) = self.renewed(&challenge, &ask.scope, credential.as_ref()).await? else {
            return Ok(answer);
        };
        if let Some(Ok(contact)) = &mut *self.contact.lock().await {
            contact.challenge = Some(challenge);
            self.has_learned.store(true, Relaxed);
        }
        let answer = self.send(ask, url, Some(renewed.clone())).await?;
        self.follow(ask, answer, Some(renewed)).await
    }

    /// Goes where the answer to a read sends us; the credential stays with the registry.
    async fn follow(self: &Arc<Self>, ask: &Ask, mut answer: Answer, credential: Option<HeaderValue>) -> Result<Answer, Error> {
        if ask.method != Method::GET && ask.method != Method::HEAD {
            return Ok(answer);
        }
        let registry = answer.url.clone();
        for _ in 0..MOST_REDIRECTS {
            if !matches!(answer.status.as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(answer);
            }
            let url = answer.location()?;
            let stays = same_origin(&url, &registry);
            answer = self.send(ask, url, credential.clone().filter(|_| stays)).await?;
            answer.from_registry = stays;
        }
        Err(Error::malformed(
            &ask.subject,
            "the registry sends from one place to the next without end",
        ))
    }

    /// [`Self::send`] where nobody knows yet whether there is a registry.
    async fn send_first(self: &Arc<Self>, ask: &Ask, url: Url, authorization: Option<HeaderValue>) -> Result<Answer, Error> {
        let silent = |_| unavailable(&self.name, &url, Failure::silence(FIRST_ANSWER));
        timeout(FIRST_ANSWER, self.send(ask, url.clone(), authorization))
            .await
            .map_err(silent)?
    }

    /// Sends the request to `url`, and only there. What says to come back later is an error.
    pub(super) async fn send(self: &Arc<Self>, ask: &Ask, url: Url, authorization: Option<HeaderValue>) -> Result<Answer, Error> {
        let progress = Arc::new(Notify::new());
        let Some(body) = ask.content.body(&progress) else {
            return Err(Error::new(
                Kind::Unavailable,
                format!("{}: the upload broke off and cannot be begun again", ask.subject),
            ));
        };
        let mut request = Request::new(body);
        *request.method_mut() = ask.method.clone();
        *request.uri_mut() = self.uri(&url, &ask.subject)?;
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, AGENT);
        headers.extend(ask.headers.iter().cloned());
        let uploads = [Method::PUT, Method::PATCH, Method::POST].contains(&ask.method);
        if let Some(size) = ask.content.size().filter(|_| uploads) {
            headers.insert(CONTENT_LENGTH, size.into());
        }
        if let Some(authorization) = authorization {
            headers.insert(AUTHORIZATION, authorization);
        }
        let since = Instant::now();
        let sent = self.transport.send(request, &progress).await;
        let response = sent.map_err(|failure| unavailable(&ask.subject, &url, failure))?;
        let taken = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.fastest.fetch_min(taken, Relaxed);
        let answer = Answer::new(response, url, self, ask);
        match answer.status.as_u16() {
            408 | 429 | 500 | 502..=504 | 507..=599 => Err(answer.come_back_later().await),
            _ => Ok(answer),
        }
    }

    fn uri(&self, url: &Url, subject: &str) -> Result<Uri, Error> {
        if !(url.scheme() == "https" || url.scheme() == "http" && self.is_insecure(url)) {
            let ((about, server), place) = (server_named(subject, url), authority(url));
            let what = format!("{about}{server} is not spoken to over {}", quoted(url.scheme()));
            return Err(
                Error::new(Kind::Malformed, what).hint(format!("where plain HTTP is right, list {place} under `insecure_registries`"))
            );
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error::malformed(subject, "the registry sends us to an address that names a user"));
        }
        let uri = Uri::try_from(url.as_str());
        uri.map_err(|error| Error::malformed(subject, error))
    }

    /// Whether plain HTTP is right with the host of `url`.
    pub(super) fn is_insecure(&self, url: &Url) -> bool {
        let with_port = url
            .port_or_known_default()
            .map(|port| format!("{}:{port}", url.host_str().unwrap_or_default()));
        let is_insecure = |authority: String| self.surroundings.is_insecure(&authority);
        is_insecure(authority(url)) || with_port.is_some_and(is_insecure)
    }

    /// Asks once which scheme the registry speaks, and what it wants to know people by.
    async fn contact(self: &Arc<Self>) -> Result<Contact, Error> {
        let mut known = self.contact.lock().await;
        match &*known {
            Some(Ok(contact)) => return Ok(contact.clone()),
            Some(Err((error, at))) if at.elapsed() < UNREACHABLE_FOR => return Err(error.clone()),
            _ => {}
        }
        let found = retried(|| self.reach()).await;
        *known = Some(found.clone().map_err(|error| (error, Instant::now())));
        self.has_learned.store(true, Relaxed);
        found
    }

    async fn reach(self: &Arc<Self>) -> Result<Contact, Error> {
        let plain_too = self.surroundings.is_insecure(self.endpoint());
        let mut answered = self.first_answer("https").await;
        if plain_too && answered.as_ref().is_err_and(|error| error.io().is_some()) {
            answered = self.first_answer("http").await;
        }
        answered.map_err(|error| match error.worth() {
            Again::Soon if error.io().is_some() => error.again(Again::Once),
            _ => error,
        })
    }

    async fn first_answer(self: &Arc<Self>, scheme: &str) -> Result<Contact, Error> {
        let root = self.root(scheme)?;
        let url = root.join("v2/").map_err(|error| Error::malformed(&self.name, error))?;
        let ask = Ask::new(Method::GET, "v2/", Scope::default(), self.name.clone());
        let answer = self.send_first(&ask, url, None).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Err(Error::malformed(
                &self.name,
                "what answers there is no registry (it does not know /v2/)",
            ));
        }
        Ok(Contact {
            challenge: Challenge::of(&answer.headers).filter(|_| answer.status == StatusCode::UNAUTHORIZED),
            root,
            is_remembered: false,
        })
    }

    fn root(&self, scheme: &str) -> Result<Url, Error> {
        Url::parse(&format!("{scheme}://{}/", self.endpoint())).map_err(|error| Error::malformed(&self.name, error))
    }
}

fn same_origin(one: &Url, other: &Url) -> bool {
    one.origin() == other.origin()
}
