//! What a client does with a registry that is well.

use std::str::FromStr as _;

use futures_util::StreamExt as _;
use lattice_images::reference::{Digest, Tag};
use lattice_images::registry::{Content, Deleted, Kind};

use crate::server::{DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Registry, Setup, anonymous, image, index};

fn tag(text: &str) -> Tag {
    text.parse().expect("a tag")
}

#[tokio::test]
async fn what_is_put_is_got_byte_for_byte_in_all_four_media_types() {
    let registry = Registry::start();
    let remote = registry.remote("a/b");
    assert_eq!(remote.head(&Tag::latest()).await.expect("answered"), None);
    assert_eq!(remote.get(&Tag::latest()).await.expect("answered"), None);
    let oci = image(&remote, OCI_MANIFEST, &[b"one"]).await;
    let docker = image(&remote, DOCKER_MANIFEST, &[b"one", b"two"]).await;
    remote.put(oci.digest(), &oci).await.expect("put");
    remote.put(docker.digest(), &docker).await.expect("put");
    let manifests = [
        index(OCI_INDEX, &[&oci, &docker]),
        index(DOCKER_LIST, &[&oci, &docker]),
        oci,
        docker,
    ];
    for manifest in manifests {
        remote.put(&Tag::latest(), &manifest).await.expect("put");
        for _ in 0..2 {
            let head = remote.head(&Tag::latest()).await.expect("answered").expect("there");
            assert_eq!((&head.digest, head.media_type.as_str()), (manifest.digest(), manifest.media_type()));
            assert_eq!(head.size, Some(manifest.bytes().len() as u64));
        }
        assert_eq!(remote.get(&Tag::latest()).await.expect("answered").as_ref(), Some(&manifest));
        assert_eq!(remote.get(manifest.digest()).await.expect("answered").as_ref(), Some(&manifest));
    }
}

#[tokio::test]
async fn blobs_go_up_with_and_without_a_known_digest_and_come_down() {
    let registry = Registry::start();
    let remote = registry.remote("a");
    let bytes = vec![7; 3_000_000];
    let digest = Digest::of(&bytes);
    assert!(!remote.has_blob(&digest).await.expect("answered"));
    let error = remote.blob(&digest, 10).await.expect_err("not there");
    assert_eq!(error.kind(), Kind::NotFound, "{error}");

    remote.upload(&digest, bytes.clone()).await.expect("uploaded");
    assert!(remote.has_blob(&digest).await.expect("answered"));
    assert_eq!(remote.blob(&digest, bytes.len()).await.expect("there"), bytes);
    let error = remote.blob(&digest, bytes.len() - 1).await.expect_err("too long");
    assert_eq!(error.kind(), Kind::Malformed, "{error}");
    let stream = remote.blob_stream(&digest).await.expect("there");
    let parts: Vec<_> = stream.map(|part| part.expect("a part")).collect().await;
    assert_eq!(parts.concat(), bytes);

    let other = registry.remote("b");
    let parts = || {
        let parts = [&b"some "[..], b"bytes"].map(|part| Ok(bytes::Bytes::from_static(part)));
        Box::pin(futures_util::stream::iter(parts))
    };
    let uploaded = other.upload_unnamed(Content::once(None, parts())).await.expect("uploaded");
    assert_eq!((uploaded.digest, uploaded.size), (Digest::of(b"some bytes"), 10));
    other
        .upload(&Digest::of(b"some bytes"), Content::stream(10, move || parts()))
        .await
        .expect("uploaded");
    assert_eq!(registry.requests(&["PATCH", "202"]), 1);
}

#[tokio::test]
async fn an_upload_can_be_begun_before_its_blob_is_known() {
    let registry = Registry::start();
    let remote = registry.remote("a");
    let session = remote.open().await.expect("begun");
    for blob in ["one", "two"] {
        // the second finds the session spent, and begins another
        let digest = Digest::of(blob.as_bytes());
        remote.upload_in(Some(session.clone()), &digest, blob).await.expect("uploaded");
        assert!(remote.has_blob(&digest).await.expect("answered"));
    }
    assert_eq!(registry.requests(&["POST /v2/a/blobs/uploads/", " 202 "]), 2);
}

#[tokio::test]
async fn a_blob_with_another_digest_is_not_taken() {
    let registry = Registry::start();
    let remote = registry.remote("a");
    let error = remote.upload(&Digest::of(b"one"), "two").await.expect_err("refused");
    assert_eq!(error.kind(), Kind::Malformed, "{error}");
    assert!(error.to_string().contains("DIGEST_INVALID"), "{error}");
}

#[tokio::test]
async fn the_right_to_push_is_found_out_without_a_trace() {
    let registry = Registry::start();
    registry.remote("a/b").may_push().await.expect("allowed");
    assert_eq!(registry.requests(&["POST /v2/a/b/blobs/uploads/", " 202 "]), 1);
    assert_eq!(registry.requests(&["DELETE /v2/a/b/blobs/uploads/", " 204 "]), 1);
    assert_eq!(registry.remote("a/b").tags().await.expect("answered"), None);
}

#[tokio::test]
async fn what_another_repository_has_is_mounted() {
    let registry = Registry::start();
    let (one, two) = (registry.remote("one"), registry.remote("two"));
    let digest = Digest::of(b"layer");
    assert!(!two.mount(&digest, one.repository()).await.expect("answered"));
    one.upload(&digest, "layer").await.expect("uploaded");
    assert!(two.mount(&digest, one.repository()).await.expect("answered"));
    assert!(two.has_blob(&digest).await.expect("answered"));
}

#[tokio::test]
async fn deletions_are_told_apart() {
    let registry = Registry::start();
    let remote = registry.remote("a");
    let manifest = image(&remote, OCI_MANIFEST, &[b"one"]).await;
    remote.put(&Tag::latest(), &manifest).await.expect("put");
    let refused = remote.delete(&Tag::latest()).await.expect("answered");
    assert!(matches!(&refused, Deleted::Refused(why) if why.starts_with("400")), "{refused:?}");
    assert_eq!(remote.delete(manifest.digest()).await.expect("answered"), Deleted::Gone);
    assert_eq!(remote.delete(manifest.digest()).await.expect("answered"), Deleted::WasNotThere);
    assert_eq!(remote.head(&Tag::latest()).await.expect("answered"), None);

    let keeps = Registry::with(Setup {
        deletes: false,
        ..Setup::default()
    });
    let remote = keeps.remote("a");
    let manifest = image(&remote, OCI_MANIFEST, &[b"one"]).await;
    remote.put(&Tag::latest(), &manifest).await.expect("put");
    let refused = remote.delete(manifest.digest()).await.expect("answered");
    assert!(matches!(&refused, Deleted::Refused(why) if why.starts_with("405")), "{refused:?}");
}

#[tokio::test]
async fn lists_are_read_page_by_page() {
    let registry = Registry::start();
    let remote = registry.remote("a");
    let manifest = image(&remote, OCI_MANIFEST, &[b"one"]).await;
    for number in 0..5 {
        remote.put(&tag(&format!("r-{number}")), &manifest).await.expect("put");
        let other = registry.remote(&format!("z/{number}"));
        other.copy(&remote, &manifest, &[Tag::latest()]).await.expect("copied");
    }
    let listing = remote.tags().await.expect("answered").expect("there");
    let tags: Vec<_> = listing.tags.iter().map(Tag::as_str).collect();
    assert_eq!(tags, ["r-0", "r-1", "r-2", "r-3", "r-4"]);
    let catalog = anonymous().catalog(&registry.host).await.expect("answered").expect("there");
    let names: Vec<_> = catalog.iter().map(|repository| repository.path().to_owned()).collect();
    assert_eq!(names, ["a", "z/0", "z/1", "z/2", "z/3", "z/4"]);
}

#[tokio::test]
async fn a_client_knows_whether_a_registry_answers() {
    let registry = Registry::start();
    anonymous().ping(&registry.host).await.expect("it answers");
    let host = registry.host.clone();
    drop(registry);
    let began = std::time::Instant::now();
    let error = anonymous().ping(&host).await.expect_err("it is gone");
    assert_eq!(error.kind(), Kind::Unavailable);
    assert_eq!(error.io(), Some(std::io::ErrorKind::ConnectionRefused), "{error}");
    assert!(began.elapsed() < std::time::Duration::from_secs(1));
    assert!(Digest::from_str("sha256:no").is_err());
}
