//! Who we are to a registry.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use lattice_images::credentials::{Credentials, HELPER_TIMEOUT};
use lattice_images::docker_config::{AuthEntry, DockerConfig, Secret};
use lattice_images::problem::Problem;
use lattice_images::reference::{Digest, Tag};
use lattice_images::registry::{Client, Deleted, Error, Kind, Options, Remote};

use crate::front::{Act, Front};
use crate::server::{OCI_MANIFEST, Registry, Setup, anonymous, client, image, password, repository};
use crate::tokens::{IDENTITY, TokenServer};

/// `kevin` with the password `pa?>ss~~w`.
const HTPASSWD: &str = "kevin:$2y$05$KTaWD80aiKxEl/zEPrr7RuGAJeZES3PmYVHicaFDAroDMWph8X0hy\n";

fn asks_for_a_password() -> Registry {
    Registry::with(Setup {
        config: "auth: { htpasswd: { realm: test, path: DIR/htpasswd } }",
        files: &[("htpasswd", HTPASSWD.as_bytes())],
        ..Setup::default()
    })
}

fn hint(error: Error) -> String {
    Problem::from(error).hints().join(" ")
}

/// Everything that a channel does with a repository.
async fn everything(client: &Client, host: &str) {
    let (one, two) = (
        client.repository(&repository(host, "one")),
        client.repository(&repository(host, "two")),
    );
    client.ping(host).await.expect("known");
    one.may_push().await.expect("allowed");
    let manifest = image(&one, OCI_MANIFEST, &[b"layer"]).await;
    one.put(&Tag::latest(), &manifest).await.expect("put");
    two.copy(&one, &manifest, &[Tag::latest()]).await.expect("copied");
    assert!(two.head(&Tag::latest()).await.expect("answered").is_some());
    assert_eq!(two.tags().await.expect("answered").expect("there").tags.len(), 1);
    assert_eq!(client.catalog(host).await.expect("answered").expect("there").len(), 2);
    assert_eq!(two.delete(manifest.digest()).await.expect("answered"), Deleted::Gone);
}

#[tokio::test]
async fn a_password_opens_everything() {
    let registry = asks_for_a_password();
    let client = client(&[(&registry.host, password("kevin", "pa?>ss~~w"))], Options::default());
    everything(&client, &registry.host).await;
    // the challenge is known after the first answer; https was tried before
    assert_eq!(registry.requests(&[" 401 "]), 1, "{}", registry.log());
}

#[tokio::test]
async fn a_wrong_password_and_none_are_told_apart_and_not_shown() {
    let registry = asks_for_a_password();
    let wrong = client(&[(&registry.host, password("kevin", "hunter2"))], Options::default());
    let errors = [
        wrong.ping(&registry.host).await,
        wrong.repository(&registry.repository("a")).may_push().await,
        wrong.repository(&registry.repository("a")).head(&Tag::latest()).await.map(drop),
    ];
    for error in errors.map(|result| result.expect_err("refused")) {
        assert_eq!(error.kind(), Kind::Unauthorized);
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        assert!(hint(error).contains("does not accept the credentials that Docker has"));
    }
    let error = registry.remote("a").may_push().await.expect_err("refused");
    assert_eq!(error.kind(), Kind::Unauthorized);
    assert_eq!(hint(error), format!("log in with `docker login {}`", registry.host));
}

#[tokio::test]
async fn a_helper_is_asked_once_and_only_where_it_is_needed() {
    let registry = asks_for_a_password();
    let open = Registry::start();
    let bin = tempfile::tempdir().expect("a folder");
    let helper = bin.path().join("docker-credential-test");
    let asked = bin.path().join("asked");
    let script = format!(
        "#!/bin/sh\nread host; echo \"$host\" >> {}\nprintf '{{\"Username\":\"kevin\",\"Secret\":\"pa?>ss~~w\"}}'\n",
        asked.display()
    );
    fs::write(&helper, script).expect("written");
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).expect("executable");
    let mut config = DockerConfig::default();
    config.creds_store = Some("test".to_owned());
    let credentials = Credentials::new(&config, Some(bin.path().into()), HELPER_TIMEOUT);
    let client = Client::new(credentials, Options::default()).expect("a client");
    everything(&client, &open.host).await;
    let remotes: Vec<Remote> = ["a", "b", "c"].map(|path| client.repository(&registry.repository(path))).into();
    for remote in &remotes {
        remote.may_push().await.expect("allowed");
    }
    let asked = fs::read_to_string(asked).unwrap_or_default();
    assert_eq!(asked, format!("{}\n", registry.host));
}

#[tokio::test]
async fn tokens_open_everything_and_serve_as_long_as_they_can() {
    let server = TokenServer::start(0).await;
    let registry = server.registry();
    let client = client(&[(&registry.host, password("kevin", "secret"))], Options::default());
    everything(&client, &registry.host).await;
    assert_eq!(
        server.scopes(),
        [
            "",
            "repository:one:delete,pull,push",
            "repository:one:pull repository:two:pull,push",
            "registry:catalog:*",
            "repository:two:delete,pull",
        ]
    );
    everything(&client, &registry.host).await;
    assert_eq!(server.scopes().len(), 5, "all tokens serve again");
    assert!(
        server
            .front
            .seen()
            .iter()
            .all(|seen| seen.password().as_deref() == Some("kevin:secret"))
    );
}

#[tokio::test]
async fn many_who_need_the_same_token_wait_for_one() {
    let server = TokenServer::start(0).await;
    let registry = server.registry();
    let client = client(&[(&registry.host, password("kevin", "secret"))], Options::default());
    let remote = client.repository(&registry.repository("a"));
    let asks = (0..20).map(|_| {
        let remote = remote.clone();
        tokio::spawn(async move { remote.head(&Tag::latest()).await })
    });
    for asked in asks.collect::<Vec<_>>() {
        assert_eq!(asked.await.expect("no panic").expect("answered"), None);
    }
    assert_eq!(server.scopes(), ["repository:a:pull"]);
    assert_eq!(registry.requests(&["GET /v2/ "]), 1);
}

#[tokio::test]
async fn a_token_that_is_refused_is_renewed_once() {
    let server = TokenServer::start(1).await;
    let registry = server.registry();
    let client = client(&[(&registry.host, password("kevin", "secret"))], Options::default());
    let remote = client.repository(&registry.repository("a"));
    remote.upload(&Digest::of(b"x"), "x").await.expect("uploaded");
    assert_eq!(server.scopes().len(), 2);

    let server = TokenServer::start(99).await;
    let registry = server.registry();
    let remote =
        crate::server::client(&[(&registry.host, password("kevin", "secret"))], Options::default()).repository(&registry.repository("a"));
    let error = remote.head(&Tag::latest()).await.expect_err("refused");
    assert_eq!(error.kind(), Kind::Unauthorized, "{error}");
    assert_eq!(server.scopes().len(), 2);
}

#[tokio::test]
async fn identity_and_registry_tokens_open_everything_too() {
    let server = TokenServer::start(0).await;
    let registry = server.registry();
    let identity = AuthEntry {
        identity_token: Secret::new(IDENTITY),
        ..AuthEntry::default()
    };
    everything(&client(&[(&registry.host, identity)], Options::default()), &registry.host).await;
    let asked = server.front.seen().len();
    assert!(
        server
            .front
            .seen()
            .iter()
            .all(|seen| seen.method == "POST" && seen.authorization.is_none())
    );

    let access =
        ["one", "two"].map(|name| format!("{{\"type\":\"repository\",\"name\":\"{name}\",\"actions\":[\"pull\",\"push\",\"delete\"]}}"));
    let catalog = "{\"type\":\"registry\",\"name\":\"catalog\",\"actions\":[\"*\"]}".to_owned();
    let token = server.signer().token(&[&access[..], &[catalog]].concat(), 600);
    let own = AuthEntry {
        registry_token: Secret::new(token),
        ..AuthEntry::default()
    };
    everything(&client(&[(&registry.host, own)], Options::default()), &registry.host).await;
    assert_eq!(server.front.seen().len(), asked, "the token server is not asked");

    let wrong = AuthEntry {
        identity_token: Secret::new("hunter2"),
        ..AuthEntry::default()
    };
    let error = client(&[(&registry.host, wrong)], Options::default())
        .ping(&registry.host)
        .await
        .expect_err("refused");
    assert_eq!(error.kind(), Kind::Unauthorized);
    assert!(
        error.to_string().contains("gives no token (401 UNAUTHORIZED who is that)"),
        "{error}"
    );
    assert!(!format!("{error:?}").contains("hunter2"));
}

#[tokio::test]
async fn who_may_read_may_not_push_and_is_told_whom_to_ask() {
    let server = TokenServer::start(0).await;
    let registry = server.registry();
    let writer = client(&[(&registry.host, password("kevin", "secret"))], Options::default());
    let reader = client(&[(&registry.host, password("reader", "secret"))], Options::default());
    let (written, read) = (
        writer.repository(&registry.repository("a")),
        reader.repository(&registry.repository("a")),
    );
    let manifest = image(&written, OCI_MANIFEST, &[b"x"]).await;
    written.put(&Tag::latest(), &manifest).await.expect("put");
    assert_eq!(read.get(&Tag::latest()).await.expect("answered"), Some(manifest.clone()));
    for error in [
        read.may_push().await.expect_err("refused"),
        read.put(&Tag::latest(), &manifest).await.expect_err("refused"),
        read.copy(&written, &manifest, &[Tag::latest()]).await.expect_err("refused"),
    ] {
        assert_eq!(error.kind(), Kind::Denied, "{error}");
        assert!(hint(error).contains(&format!("whoever administers {} for the right to push to a", registry.host)));
    }
    assert!(matches!(
        read.delete(manifest.digest()).await.expect("answered"),
        Deleted::Refused(_)
    ));
    let error = reader.catalog(&registry.host).await.expect_err("refused");
    assert_eq!(error.kind(), Kind::Denied, "{error}");
}

#[tokio::test]
async fn nobody_reads_what_is_public_and_is_told_to_log_in_for_more() {
    let server = TokenServer::start(0).await;
    let registry = server.registry();
    assert_eq!(registry.remote("public/a").head(&Tag::latest()).await.expect("allowed"), None);
    for error in [
        registry.remote("public/a").may_push().await.expect_err("refused"),
        registry.remote("private").head(&Tag::latest()).await.expect_err("refused"),
    ] {
        assert_eq!(error.kind(), Kind::Unauthorized, "{error}");
        assert_eq!(hint(error), format!("log in with `docker login {}`", registry.host));
    }
}

#[tokio::test]
async fn a_mount_from_where_we_may_not_read_becomes_an_upload() {
    let server = TokenServer::start(0).await;
    let registry = server.registry();
    let kevin = client(&[(&registry.host, password("kevin", "secret"))], Options::default());
    let one = kevin.repository(&registry.repository("one"));
    let front = Front::start(&registry.host, |seen| Act::when(seen.is("POST", "mount="), || Act::status(403))).await;
    let digest = Digest::of(b"x");
    one.upload(&digest, "x").await.expect("uploaded");
    let through = client(&[(&front.host, password("kevin", "secret"))], Options::default());
    let two = through.repository(&repository(&front.host, "two"));
    assert!(!two.mount(&digest, &repository(&front.host, "one")).await.expect("answered"));
}

#[tokio::test]
async fn a_token_server_that_is_not_well() {
    let tokens = async |act: fn(usize) -> Act| {
        let server = Front::start("", move |seen| act(seen.before)).await;
        let challenge = format!("Bearer realm=\"http://{}/token\",service=\"x\"", server.host);
        let front = Front::start("", move |_| {
            Act::Answer(401, vec![("www-authenticate", challenge.clone())], Vec::new())
        })
        .await;
        let error = anonymous()
            .repository(&repository(&front.host, "a"))
            .head(&Tag::latest())
            .await
            .expect_err("no token");
        (error, server.seen().len())
    };
    let (error, asked) = tokens(|_| Act::status(500)).await;
    assert_eq!((error.kind(), asked), (Kind::Unavailable, 4), "{error}");
    let (error, asked) = tokens(|_| Act::Answer(200, Vec::new(), vec![b' '; 1_000_000])).await;
    assert_eq!((error.kind(), asked), (Kind::Malformed, 1), "{error}");
    let (error, asked) = tokens(|_| Act::Answer(200, Vec::new(), b"{\"token\":\"a\\nb\"}".to_vec())).await;
    assert_eq!((error.kind(), asked), (Kind::Unauthorized, 1), "{error}");
    let (error, asked) = tokens(|_| Act::to(302, "http://127.0.0.1:1/".to_owned())).await;
    assert_eq!((error.kind(), asked), (Kind::Malformed, 1), "{error}");
    let (error, asked) = tokens(|before| if before == 0 { Act::status(503) } else { Act::status(403) }).await;
    assert_eq!((error.kind(), asked), (Kind::Unauthorized, 2), "{error}");
}

#[tokio::test]
async fn the_password_goes_to_no_odd_token_server() {
    for realm in [
        "http://192.0.2.1/token",
        "ftp://127.0.0.1/x",
        "http://me:x@127.0.0.1:1/",
        "/token",
        "http://registry.test:5000/",
    ] {
        let challenge = format!("Bearer realm=\"{realm}\",service=\"x\"");
        let front = Front::start("", move |_| {
            Act::Answer(401, vec![("www-authenticate", challenge.clone())], Vec::new())
        })
        .await;
        let kevin = client(&[(&front.host, password("kevin", "secret"))], Options::default());
        let error = kevin
            .repository(&repository(&front.host, "a"))
            .may_push()
            .await
            .expect_err("no token");
        assert_eq!(error.kind(), Kind::Malformed, "{error}");
        assert!(error.to_string().contains("is not asked"), "{error}");
    }
}
