//! Copies between repositories, and between registries.

use lattice_images::reference::{Digest, Tag};
use lattice_images::registry::{Kind, Manifest, Remote};

use crate::front::{Act, Front};
use crate::server::{DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Registry, Setup, anonymous, image, index, repository};

fn tags(names: &[&str]) -> Vec<Tag> {
    names.iter().map(|name| name.parse().expect("a tag")).collect()
}

/// An index of two images that share a layer, in `remote`.
async fn set_up(remote: &Remote, kinds: [&str; 2]) -> Manifest {
    let one = image(remote, kinds[0], &[b"shared", b"one"]).await;
    let two = image(remote, kinds[0], &[b"shared", b"two", b"three"]).await;
    for manifest in [&one, &two] {
        remote.put(manifest.digest(), manifest).await.expect("put");
    }
    let index = index(kinds[1], &[&one, &two]);
    remote.put(&Tag::latest(), &index).await.expect("put");
    index
}

/// All of it is in `remote`, and works there.
async fn is_whole(remote: &Remote, index: &Manifest, children: &[Manifest], tags: &[Tag]) {
    for tag in tags {
        assert_eq!(remote.get(tag).await.expect("answered").as_ref(), Some(index));
    }
    assert_eq!(children.len(), 2);
    for child in children {
        assert_eq!(remote.get(child.digest()).await.expect("answered").as_ref(), Some(child));
    }
    for blob in ["shared", "one", "two", "three"] {
        let digest = Digest::of(blob.as_bytes());
        assert_eq!(remote.blob(&digest, 10).await.expect("there"), blob);
    }
}

#[tokio::test]
async fn within_a_registry_no_byte_of_a_blob_goes_through_us() {
    let registry = Registry::start();
    for (name, kinds) in [("oci", [OCI_MANIFEST, OCI_INDEX]), ("docker", [DOCKER_MANIFEST, DOCKER_LIST])] {
        let (from, to) = (registry.remote(name), registry.remote(&format!("to/{name}")));
        let index = set_up(&from, kinds).await;
        let uploads = || registry.requests(&["PUT", "/blobs/uploads/"]) + registry.requests(&["PATCH"]);
        let before = uploads();
        let names = tags(&["latest", "in-0123"]);
        let copied = to.copy(&from, &index, &names).await.expect("copied");
        // two configs, and four layers that are different
        assert_eq!(registry.requests(&["POST", &format!("/to/{name}/"), "mount=", " 201 "]), 6);
        assert_eq!(uploads(), before);
        is_whole(&to, &index, &copied, &names).await;

        let again = to.copy(&from, &index, &names).await.expect("copied");
        assert_eq!(uploads(), before);
        is_whole(&to, &index, &again, &names).await;
    }
}

#[tokio::test]
async fn another_registry_gets_what_it_lacks() {
    let (here, there) = (Registry::start(), Registry::start());
    let (from, to) = (here.remote("a"), there.remote("b"));
    let index = set_up(&from, [OCI_MANIFEST, OCI_INDEX]).await;
    to.upload(&Digest::of(b"shared"), "shared").await.expect("uploaded");
    let copied = to.copy(&from, &index, &[]).await.expect("copied");
    is_whole(&to, &index, &copied, &[]).await;
    assert_eq!(to.get(index.digest()).await.expect("answered"), Some(index));
    assert_eq!(there.requests(&["mount=", " 201 "]), 0);
    assert_eq!(there.requests(&["PUT", "/blobs/uploads/", Digest::of(b"shared").hex()]), 1);
    assert!(to.tags().await.expect("answered").is_none_or(|listing| listing.tags.is_empty()));
}

#[tokio::test]
async fn where_nothing_is_mounted_the_blobs_go_through_us() {
    let registry = Registry::start();
    let index = set_up(&registry.remote("a"), [OCI_MANIFEST, OCI_INDEX]).await;
    for refusal in [None, Some(403), Some(404), Some(405), Some(400)] {
        // what 2.8 answers to a mount of what is not there: 202, and an upload
        let front = Front::start(&registry.host, move |seen| match (seen.is("POST", "mount="), refusal) {
            (true, Some(status)) => Act::status(status),
            (true, None) => Act::PassTo(seen.target.split('?').next().expect("a path").to_owned()),
            _ => Act::Pass,
        })
        .await;
        let client = anonymous();
        let to = client.repository(&repository(&front.host, &format!("to-{}", refusal.unwrap_or_default())));
        let from = client.repository(&repository(&front.host, "a"));
        let copied = to.copy(&from, &index, &tags(&["latest"])).await.expect("copied");
        assert_eq!(front.count("PUT", "/blobs/uploads/"), 6);
        is_whole(&to, &index, &copied, &tags(&["latest"])).await;
    }
}

#[tokio::test]
async fn a_blob_that_breaks_off_is_begun_again() {
    let (here, there) = (Registry::start(), Registry::start());
    let index = set_up(&here.remote("a"), [OCI_MANIFEST, OCI_INDEX]).await;
    let front = Front::start(&here.host, |seen| {
        Act::when(seen.is("GET", "blobs") && seen.before == 0, || Act::Cut(2))
    })
    .await;
    let client = anonymous();
    let (from, to) = (
        client.repository(&repository(&front.host, "a")),
        client.repository(&there.repository("b")),
    );
    let copied = to.copy(&from, &index, &tags(&["latest"])).await.expect("copied");
    is_whole(&to, &index, &copied, &tags(&["latest"])).await;
}

#[tokio::test]
async fn the_registry_that_fails_is_the_one_that_is_named() {
    let (here, there) = (Registry::start(), Registry::start());
    let index = set_up(&here.remote("a"), [OCI_MANIFEST, OCI_INDEX]).await;
    let front = Front::start(&here.host, |seen| Act::when(seen.is("GET", "blobs"), || Act::status(404))).await;
    let client = anonymous();
    let (from, to) = (
        client.repository(&repository(&front.host, "a")),
        client.repository(&there.repository("b")),
    );
    let error = to.copy(&from, &index, &tags(&["latest"])).await.expect_err("a blob is missing");
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
    assert!(error.to_string().starts_with(&format!("{}/a: blob sha256:", front.host)), "{error}");
    assert_eq!(to.head(&Tag::latest()).await.expect("answered"), None, "no tag moved");
    let nothing = format!("{{\"manifests\":[{{\"digest\":\"{}\",\"size\":1}}]}}", Digest::of(b"nothing"));
    let nothing = Manifest::new(OCI_INDEX, nothing);
    assert_eq!(to.copy(&from, &nothing, &[]).await.expect_err("not there").kind(), Kind::NotFound);
}

#[tokio::test]
async fn a_tag_within_a_repository_is_one_manifest() {
    let registry = Registry::start();
    let remote = registry.remote("a");
    let index = set_up(&remote, [OCI_MANIFEST, OCI_INDEX]).await;
    let uploads = registry.requests(&["POST"]);
    let copied = remote.copy(&remote, &index, &tags(&["r-1"])).await.expect("copied");
    assert_eq!(registry.requests(&["POST"]), uploads);
    is_whole(&remote, &index, &copied, &tags(&["r-1"])).await;
}

#[tokio::test]
async fn layers_that_lie_elsewhere_stay_there() {
    let here = Registry::start();
    let there = Registry::with(Setup {
        config: "validation: { manifests: { urls: { allow: [.*] } } }",
        ..Setup::default()
    });
    let (from, to) = (here.remote("a"), there.remote("b"));
    let whole = image(&from, DOCKER_MANIFEST, &[b"layer"]).await;
    let foreign = format!(
        "{{\"mediaType\":\"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip\",\"digest\":\"{}\",\"size\":9,\"urls\":[\"https://example.com/x\"]}},",
        Digest::of(b"elsewhere")
    );
    let text = String::from_utf8(whole.bytes().to_vec()).expect("UTF-8");
    let manifest = Manifest::new(DOCKER_MANIFEST, text.replace("\"layers\":[", &format!("\"layers\":[{foreign}")));
    let front = Front::start(&here.host, {
        let bytes = manifest.bytes().to_vec();
        move |seen| {
            Act::when(seen.is("GET", "manifests"), || {
                Act::Answer(200, vec![("content-type", DOCKER_MANIFEST.to_owned())], bytes.clone())
            })
        }
    })
    .await;
    let from = anonymous().repository(&repository(&front.host, "a"));
    to.copy(&from, &manifest, &[]).await.expect("copied");
    assert_eq!(to.get(manifest.digest()).await.expect("answered"), Some(manifest));
    assert_eq!(front.count("GET", Digest::of(b"elsewhere").hex()), 0);
    assert!(to.has_blob(&Digest::of(b"layer")).await.expect("answered"));
}

#[tokio::test]
async fn what_is_no_image_is_not_copied() {
    let deep = format!(
        "{{\"schemaVersion\":2,\"manifests\":[{}]}}",
        vec![format!("{{\"digest\":\"{}\",\"size\":1}}", Digest::of(b"x")); 1001].join(",")
    );
    for (text, why) in [
        ("[]", "no manifest that can be copied"),
        ("{\"layers\":[{\"digest\":\"sha256:no\",\"size\":1}]}", "a digest that is none"),
        (deep.as_str(), "so many manifests"),
    ] {
        let manifest = Manifest::new(OCI_MANIFEST, text.to_owned());
        let bytes = manifest.bytes().to_vec();
        let front = Front::start("", move |seen| match seen.is("GET", "manifests") {
            true => Act::Answer(200, vec![("content-type", OCI_MANIFEST.to_owned())], bytes.clone()),
            false if seen.is("HEAD", "") => Act::status(404),
            false => Act::status(200),
        })
        .await;
        let remote = |path: &str| anonymous().repository(&repository(&front.host, path));
        let error = remote("b").copy(&remote("a"), &manifest, &[]).await.expect_err("no image");
        assert_eq!(error.kind(), Kind::Malformed);
        assert!(error.to_string().contains(why), "{error}");
    }
}
