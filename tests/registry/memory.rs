//! What one run tells the next of a registry.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use lattice_images::docker_config::AuthEntry;
use lattice_images::reference::Tag;
use lattice_images::registry::{Client, Kind, Memory, Options};

use crate::front::{Act, Front};
use crate::server::{OCI_MANIFEST, Registry, anonymous, client, image, password, repository};
use crate::tokens::TokenServer;

fn remembering(cache: &Path, login: &str, auths: &[(&str, AuthEntry)]) -> Client {
    let memory = Memory {
        cache: cache.to_owned(),
        login: login.to_owned(),
    };
    let options = Options {
        memory: Some(memory),
        ..Options::default()
    };
    client(auths, options)
}

async fn has_latest(client: &Client, host: &str) -> bool {
    let remote = client.repository(&repository(host, "a"));
    remote.head(&Tag::latest()).await.expect("answered").is_some()
}

async fn fill(client: &Client, host: &str) {
    let remote = client.repository(&repository(host, "a"));
    let manifest = image(&remote, OCI_MANIFEST, &[b"layer"]).await;
    remote.put(&Tag::latest(), &manifest).await.expect("put");
}

#[tokio::test]
async fn the_next_run_reads_with_one_request_and_no_credential() {
    let server = TokenServer::start(0).await;
    let registry = server.registry();
    let auths = [(registry.host.as_str(), password("kevin", "secret"))];
    fill(&client(&auths, Options::default()), &registry.host).await;
    let dir = tempfile::tempdir().expect("a folder");
    assert!(has_latest(&remembering(dir.path(), "one", &auths), &registry.host).await);

    let before = (server.scopes().len(), registry.requests(&[]));
    let next = remembering(dir.path(), "one", &[]);
    assert!(next.needs_no_credential(&registry.host));
    assert!(has_latest(&next, &registry.host).await);
    assert_eq!((server.scopes().len(), registry.requests(&[])), (before.0, before.1 + 1));
    let refused = next.repository(&registry.repository("a")).may_push().await;
    assert_eq!(refused.expect_err("only reading").kind(), Kind::Unauthorized);

    let before = server.scopes().len();
    let other = remembering(dir.path(), "two", &auths);
    assert!(!other.needs_no_credential(&registry.host), "another login");
    assert!(has_latest(&other, &registry.host).await);
    assert_eq!(server.scopes().len(), before + 1);
}

#[tokio::test]
async fn no_token_to_write_is_kept() {
    let server = TokenServer::start(0).await;
    let registry = server.registry();
    let auths = [(registry.host.as_str(), password("kevin", "secret"))];
    let dir = tempfile::tempdir().expect("a folder");
    fill(&remembering(dir.path(), "one", &auths), &registry.host).await;
    let next = remembering(dir.path(), "one", &auths);
    assert!(!next.needs_no_credential(&registry.host));
    assert!(has_latest(&next, &registry.host).await);
    assert_eq!(server.scopes().last().map(String::as_str), Some("repository:a:pull"));
}

#[tokio::test]
async fn what_is_not_so_any_more_is_asked_again() {
    const OPEN: u8 = 0;
    const LOCKED: u8 = 1;
    const NONE: u8 = 2;
    let registry = Registry::start();
    fill(&anonymous(), &registry.host).await;
    let state = Arc::new(AtomicU8::new(OPEN));
    let now = Arc::clone(&state);
    let front = Front::start(&registry.host, move |seen| match now.load(Ordering::SeqCst) {
        LOCKED if seen.password().as_deref() != Some("kevin:secret") => {
            Act::Answer(401, vec![("www-authenticate", "Basic realm=\"x\"".to_owned())], Vec::new())
        }
        NONE => Act::status(404),
        _ => Act::Pass,
    })
    .await;
    let dir = tempfile::tempdir().expect("a folder");
    let host = front.host.clone();
    let auths = [(host.as_str(), password("kevin", "secret"))];
    let next = || remembering(dir.path(), "one", &auths);
    let pings = || front.seen().iter().filter(|seen| seen.target == "/v2/").count();

    assert!(has_latest(&next(), &host).await);
    assert_eq!(pings(), 1);
    for (now, pinged) in [(OPEN, 1), (LOCKED, 1), (LOCKED, 1), (OPEN, 1)] {
        state.store(now, Ordering::SeqCst);
        assert!(has_latest(&next(), &host).await, "{now}");
        assert_eq!(pings(), pinged);
    }
    // another server stands there, and later on none
    state.store(NONE, Ordering::SeqCst);
    let remote = next().repository(&repository(&host, "a"));
    let error = remote.head(&Tag::latest()).await.expect_err("no registry");
    assert!(error.to_string().contains("no registry"), "{error}");
    drop(front);
    let remote = next().repository(&repository(&host, "a"));
    assert_eq!(remote.head(&Tag::latest()).await.expect_err("nothing").kind(), Kind::Unavailable);
}
