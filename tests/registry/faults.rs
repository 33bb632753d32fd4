//! Registries that are not well.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use lattice_images::reference::{Digest, Tag};
use lattice_images::registry::{Content, Kind, Manifest, Options, Remote};

use crate::front::{Act, Front, Seen};
use crate::server::{OCI_MANIFEST, Registry, anonymous, client, image, password, repository};

/// The repository `a` with an image under `latest`, in front of it `decide`.
async fn behind(decide: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> (Registry, Front, Remote, Manifest) {
    let registry = Registry::start();
    let manifest = image(&registry.remote("a"), OCI_MANIFEST, &[&vec![7; 300_000]]).await;
    registry.remote("a").put(&Tag::latest(), &manifest).await.expect("put");
    let front = Front::start(&registry.host, decide).await;
    let remote = anonymous().repository(&repository(&front.host, "a"));
    (registry, front, remote, manifest)
}

fn first(times: usize, seen: &Seen, method: &str, part: &str, act: impl Fn() -> Act) -> Act {
    if seen.is(method, part) && seen.before < times {
        act()
    } else {
        Act::Pass
    }
}

#[tokio::test]
async fn what_passes_is_waited_for() {
    for act in [
        || Act::status(500),
        || Act::status(503),
        || Act::status(408),
        || Act::Break,
        || Act::Cut(10),
    ] {
        let (_registry, front, remote, manifest) = behind(move |seen| first(2, seen, "GET", "manifests/", act)).await;
        let got = remote.get(&Tag::latest()).await.expect("it passed").expect("there");
        assert_eq!(got, manifest);
        assert_eq!(front.count("GET", "manifests/"), 3);
    }
}

#[tokio::test]
async fn what_does_not_pass_is_given_up() {
    let (_registry, front, remote, _) = behind(|seen| first(9, seen, "HEAD", "manifests/", || Act::status(500))).await;
    let error = remote.head(&Tag::latest()).await.expect_err("it does not pass");
    assert_eq!(error.kind(), Kind::Unavailable);
    assert_eq!(
        error.to_string(),
        format!("{}/a: manifest latest: the registry answered 500", front.host)
    );
    assert_eq!(front.count("HEAD", "manifests/"), 4);

    let (_registry, front, remote, manifest) = behind(|seen| match seen.method.as_str() {
        "POST" => Act::status(500),
        _ => Act::Pass,
    })
    .await;
    let upload = remote.upload(manifest.digest(), manifest.bytes().clone()).await;
    assert_eq!(upload.expect_err("it does not pass").kind(), Kind::Unavailable);
    assert_eq!(front.count("POST", "uploads"), 4, "tries within tries do not multiply");
}

#[tokio::test]
async fn a_refusal_is_not_asked_again() {
    for (status, kind) in [
        (401, Kind::Unauthorized),
        (403, Kind::Denied),
        (405, Kind::Unsupported),
        (418, Kind::Malformed),
        (501, Kind::Unsupported),
    ] {
        let (_registry, front, remote, _) = behind(move |seen| first(9, seen, "GET", "manifests/", || Act::status(status))).await;
        let error = remote.get(&Tag::latest()).await.expect_err("refused");
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!(front.count("GET", "manifests/"), 1);
    }
}

#[tokio::test]
async fn a_registry_that_asks_for_a_pause_gets_it_unless_it_is_long() {
    let slow_down = |seconds: &str| Act::Answer(429, vec![("retry-after", seconds.to_owned())], Vec::new());
    let (_registry, front, remote, _) = behind(move |seen| first(1, seen, "HEAD", "manifests/", || slow_down("2"))).await;
    let began = Instant::now();
    remote.head(&Tag::latest()).await.expect("it passed");
    assert!(began.elapsed() >= Duration::from_secs(2));
    assert_eq!(front.count("HEAD", "manifests/"), 2);

    let (_registry, front, remote, _) = behind(move |seen| first(1, seen, "HEAD", "manifests/", || slow_down("86400"))).await;
    let error = remote.head(&Tag::latest()).await.expect_err("too long");
    assert!(
        error.to_string().ends_with("answered 429 and asks to be left alone for 86400 s"),
        "{error}"
    );
    assert_eq!(front.count("HEAD", "manifests/"), 1);
}

#[tokio::test]
async fn an_upload_that_always_breaks_is_given_up() {
    let bytes = vec![9; 500_000];
    let digest = Digest::of(&bytes);
    for act in [|| Act::status(502), || Act::Break, || Act::status(404)] {
        let (registry, front, remote, _) = behind(move |seen| {
            if seen.is("PUT", "blobs/uploads") && seen.body.len() == 500_000 {
                act()
            } else {
                Act::Pass
            }
        })
        .await;
        let error = remote.upload(&digest, bytes.clone()).await.expect_err("broken");
        assert_ne!(error.kind(), Kind::Malformed, "{error}");
        assert_eq!(front.count("POST", "blobs/uploads"), 4, "{error}");
        assert!(!registry.remote("a").has_blob(&digest).await.expect("answered"));
    }
}

#[tokio::test]
async fn an_upload_that_breaks_once_is_whole_in_the_end() {
    let bytes = vec![9; 500_000];
    let digest = Digest::of(&bytes);
    let broken = Arc::new(AtomicUsize::new(0));
    for named in [true, false] {
        let broken = Arc::clone(&broken);
        let (registry, front, remote, _) = behind(move |seen| {
            let carries = ["PUT", "PATCH"].contains(&seen.method.as_str()) && seen.body.len() == 500_000;
            if carries && broken.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
                Act::Break
            } else {
                Act::Pass
            }
        })
        .await;
        if named {
            remote.upload(&digest, bytes.clone()).await.expect("uploaded");
        } else {
            let uploaded = remote.upload_unnamed(bytes.clone()).await.expect("uploaded");
            assert_eq!((uploaded.digest, uploaded.size), (digest.clone(), 500_000));
        }
        assert_eq!(front.count("POST", "blobs/uploads"), 2);
        assert_eq!(registry.remote("a").blob(&digest, 500_000).await.expect("there"), bytes);
    }
}

#[tokio::test]
async fn an_upload_that_cannot_be_read_again_is_sent_once() {
    let (_registry, front, remote, _) = behind(|seen| if seen.method == "PUT" { Act::Break } else { Act::Pass }).await;
    let stream = futures_util::stream::iter([Ok(bytes::Bytes::from_static(b"once"))]);
    let content = Content::once(4, Box::pin(stream));
    let error = remote.upload(&Digest::of(b"once"), content).await.expect_err("broken");
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    assert_eq!((front.count("POST", "blobs/uploads"), front.count("PUT", "blobs/uploads")), (1, 1));
}

#[tokio::test]
async fn what_cannot_be_read_is_not_the_registrys_fault() {
    let registry = Registry::start();
    for size in [Some(100), None] {
        let content = Content::stream(size, || {
            let read = [Ok(bytes::Bytes::from_static(b"some")), Err("the disk is gone".into())];
            Box::pin(futures_util::stream::iter(read))
        });
        let error = registry.remote("a").upload_unnamed(content).await.expect_err("unreadable");
        assert_eq!(error.kind(), Kind::Content, "{error}");
        assert!(error.to_string().ends_with("cannot be read: the disk is gone"), "{error}");
    }
    assert_eq!(registry.requests(&["POST"]), 2);
}

#[tokio::test]
async fn a_silent_registry_is_told_of_once_and_given_up() {
    let (_registry, front, _, _) = behind(|seen| if seen.target.contains("manifests") { Act::Hang } else { Act::Pass }).await;
    let told = Arc::new(AtomicUsize::new(0));
    let (counted, host) = (Arc::clone(&told), front.host.clone());
    let options = Options {
        patience: Some(Duration::from_millis(1300)),
        on_waiting: Some(Arc::new(move |waited_for| {
            assert_eq!(waited_for, host);
            counted.fetch_add(1, Ordering::Relaxed);
        })),
        ..Options::default()
    };
    let remote = client(&[], options).repository(&repository(&front.host, "a"));
    let tag = Tag::latest();
    let (one, two) = tokio::join!(remote.head(&tag), remote.head(&tag));
    for error in [one, two].map(|result| result.expect_err("silent")) {
        assert_eq!(error.io(), Some(std::io::ErrorKind::TimedOut), "{error}");
    }
    assert_eq!(told.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn redirects_are_followed_without_the_credential() {
    let registry = Registry::start();
    let bytes = b"a blob that lies elsewhere".to_vec();
    let digest = Digest::of(&bytes);
    registry.remote("a").upload(&digest, bytes.clone()).await.expect("uploaded");
    let storage = Front::start(&registry.host, |_| Act::Pass).await;
    let elsewhere = storage.host.clone();
    let front = Front::start(&registry.host, move |seen| match seen {
        _ if seen.authorization.is_none() => Act::Answer(401, vec![("www-authenticate", "Basic realm=x".to_owned())], Vec::new()),
        _ if seen.target.ends_with("/v2/") => Act::status(200),
        _ if !seen.target.contains("here") => Act::to(307, format!("{}?here", seen.target)),
        _ => Act::to(302, format!("http://{elsewhere}{}", seen.target)),
    })
    .await;
    let remote = client(&[(&front.host, password("kevin", "secret"))], Options::default()).repository(&repository(&front.host, "a"));
    assert_eq!(remote.blob(&digest, 100).await.expect("there"), bytes);
    let parts: Vec<_> = remote.blob_stream(&digest).await.expect("there").collect().await;
    assert_eq!(parts.len(), 1);
    let seen = storage.seen();
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|seen| seen.authorization.is_none()), "{seen:?}");
    let with_credential = front
        .seen()
        .iter()
        .filter(|seen| seen.password().as_deref() == Some("kevin:secret"))
        .count();
    assert_eq!(with_credential, 4, "the registry's own redirects keep it");
}

#[tokio::test]
async fn redirects_without_end_and_to_odd_places_are_not_followed() {
    for (location, why) in [
        ("{target}", "without end"),
        ("http://192.0.2.1/x", "not spoken to over http"),
        ("ftp://127.0.0.1/x", "not spoken to over ftp"),
        ("http://me:hunter2@127.0.0.1:1/x", "names a user"),
        ("http://[", "no URL"),
    ] {
        let (_registry, front, remote, _) = behind(move |seen| {
            Act::when(seen.is("GET", "manifests"), || {
                Act::to(302, location.replace("{target}", &seen.target))
            })
        })
        .await;
        let error = remote.get(&Tag::latest()).await.expect_err("not followed");
        assert_eq!(error.kind(), Kind::Malformed);
        assert!(error.to_string().contains(why) && !error.to_string().contains("hunter2"), "{error}");
        assert!(front.count("GET", "manifests") <= 6);
    }
}

#[tokio::test]
async fn a_storage_that_refuses_is_named() {
    let storage = Front::start("", |_| Act::status(403)).await;
    let elsewhere = format!("http://{}/blob?signature=hunter2", storage.host);
    let (_registry, _front, remote, manifest) =
        behind(move |seen| Act::when(seen.is("GET", "blobs"), || Act::to(307, elsewhere.clone()))).await;
    let error = remote.blob(manifest.digest(), 10).await.expect_err("refused").to_string();
    assert!(error.contains(&storage.host) && !error.contains("hunter2"), "{error}");
}

#[tokio::test]
async fn other_bytes_than_those_asked_for_are_not_taken() {
    let lie = || Some(format!("sha256:{}", "0".repeat(64)));
    let (_registry, _front, remote, manifest) = behind(|seen| {
        Act::when(seen.is("GET", "/a/"), || {
            Act::Change(
                |mut bytes| {
                    bytes[0] ^= 1;
                    bytes
                },
                vec![("docker-content-digest", None)],
            )
        })
    })
    .await;
    let error = remote.get(manifest.digest()).await.expect_err("other bytes");
    assert_eq!(error.kind(), Kind::Malformed, "{error}");
    let layer = Digest::of(&vec![7; 300_000]);
    assert_eq!(remote.blob(&layer, 300_000).await.expect_err("other bytes").kind(), Kind::Malformed);
    let parts: Vec<_> = remote.blob_stream(&layer).await.expect("there").collect().await;
    let (last, parts) = parts.split_last().expect("parts");
    assert!(last.is_err() && parts.iter().all(Result::is_ok));

    let (_registry, _front, remote, manifest) = behind(move |_| Act::Change(|bytes| bytes, vec![("docker-content-digest", lie())])).await;
    assert_eq!(remote.get(&Tag::latest()).await.expect_err("a lie").kind(), Kind::Malformed);
    assert_eq!(remote.head(manifest.digest()).await.expect_err("a lie").kind(), Kind::Malformed);
    assert_eq!(
        remote.put(&Tag::latest(), &manifest).await.expect_err("a lie").kind(),
        Kind::Malformed
    );
}

#[tokio::test]
async fn a_registry_that_does_not_name_digests_is_read_instead() {
    let (_registry, front, remote, manifest) = behind(|_| Act::Change(|bytes| bytes, vec![("docker-content-digest", None)])).await;
    let head = remote.head(&Tag::latest()).await.expect("answered").expect("there");
    assert_eq!(&head.digest, manifest.digest());
    assert_eq!(front.count("GET", "manifests"), 1);
}

#[tokio::test]
async fn what_is_too_long_is_not_read() {
    let (_registry, _front, remote, _) = behind(|seen| {
        if seen.target.contains("manifests") {
            Act::Answer(200, vec![("content-type", OCI_MANIFEST.to_owned())], vec![b' '; 5_000_000])
        } else {
            Act::Answer(400, Vec::new(), vec![b'x'; 5_000_000])
        }
    })
    .await;
    // the first answer, to /v2/, is no registry's either
    let error = remote.get(&Tag::latest()).await.expect_err("too long");
    assert!(error.to_string().contains("longer than 4194304 bytes"), "{error}");
    assert!(remote.tags().await.expect_err("too long").to_string().len() < 1000);
}

#[tokio::test]
async fn what_a_registry_says_is_shown_printable_and_bounded() {
    let (_registry, _front, remote, _) = behind(|seen| {
        Act::when(seen.target.contains("manifests"), || {
            let message = format!("no \\u001b[31m way\\n{}", "x".repeat(5000));
            let body = format!("{{\"errors\":[{{\"code\":\"DENIED\",\"message\":\"{message}\",\"detail\":{{}}}}]}}");
            Act::Answer(403, Vec::new(), body.into_bytes())
        })
    })
    .await;
    let error = remote.get(&Tag::latest()).await.expect_err("denied");
    assert_eq!(error.kind(), Kind::Denied);
    let error = error.to_string();
    assert!(error.contains("(403 DENIED no ?[31m way xxx") && error.len() < 600, "{error}");
}

#[tokio::test]
async fn all_four_media_types_are_always_accepted() {
    let (_registry, front, remote, manifest) = behind(|_| Act::Pass).await;
    remote.head(&Tag::latest()).await.expect("answered");
    remote.get(manifest.digest()).await.expect("answered");
    let seen = front.seen();
    let asked: Vec<_> = seen.iter().filter(|seen| seen.target.contains("manifests")).collect();
    assert_eq!(asked.len(), 2);
    for seen in asked {
        let accept = seen.accept.as_deref().unwrap_or_default();
        for kind in [
            "oci.image.index",
            "oci.image.manifest",
            "docker.distribution.manifest.list",
            "docker.distribution.manifest.v2",
        ] {
            assert!(accept.contains(kind), "{accept}");
        }
    }
}

#[tokio::test]
async fn uploads_go_on_where_the_registry_says_and_only_there_with_the_credential() {
    let registry = Registry::start();
    let other = Front::start(&registry.host, |_| Act::Pass).await;
    let host = other.host.clone();
    let front = Front::start(&registry.host, move |seen| match seen {
        _ if seen.target == "/v2/" && seen.authorization.is_none() => {
            Act::Answer(401, vec![("www-authenticate", "Basic realm=x".to_owned())], Vec::new())
        }
        _ if seen.is("POST", "/elsewhere/") => Act::to(202, format!("http://{host}/v2/elsewhere/blobs/uploads/x?_state=hunter2")),
        _ if seen.is("POST", "/relative/") => Act::to(202, "x?_state=y".to_owned()),
        _ if seen.method == "PUT" => Act::status(201),
        _ => Act::Pass,
    })
    .await;
    let client = client(&[(&front.host, password("kevin", "secret"))], Options::default());
    let digest = Digest::of(b"x");
    let upload = async |path: &str| client.repository(&repository(&front.host, path)).upload(&digest, "x").await;
    upload("relative").await.expect("uploaded");
    let put = front.seen().pop().expect("a request");
    assert_eq!(
        put.target,
        format!("/v2/relative/blobs/uploads/x?_state=y&digest=sha256%3A{}", digest.hex())
    );
    assert_eq!(put.password().as_deref(), Some("kevin:secret"));
    let error = upload("elsewhere").await.expect_err("the registry there knows nothing of it");
    assert!(!error.to_string().contains("hunter2"), "{error}");
    assert!(other.count("PUT", "/elsewhere/") >= 1);
    assert!(other.seen().iter().all(|seen| seen.authorization.is_none()));
}
