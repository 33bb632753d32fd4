//! Lists that have pages, fields of Google's, or no end.

use std::collections::BTreeSet;

use lattice_images::reference::{Digest, Repository, Tag};
use lattice_images::registry::Kind;

use crate::front::{Act, Front};
use crate::server::{OCI_MANIFEST, Registry, anonymous, image, repository};

#[tokio::test]
async fn pages_are_followed_to_the_last() {
    let registry = Registry::start();
    let first = registry.remote("a");
    let manifest = image(&first, OCI_MANIFEST, &[b"x"]).await;
    first.put(&Tag::latest(), &manifest).await.expect("put");
    for name in ["b/c", "b/d", "e", "f"] {
        let remote = registry.remote(name);
        remote.copy(&first, &manifest, &[Tag::latest()]).await.expect("copied");
    }
    let front = Front::start(&registry.host, |seen| Act::PassTo(seen.target.replace("n=1000", "n=2"))).await;
    let catalog = anonymous().catalog(&front.host).await.expect("answered").expect("there");
    let paths: Vec<_> = catalog.iter().map(Repository::path).collect();
    assert_eq!(paths, ["a", "b/c", "b/d", "e", "f"]);
    assert_eq!(front.count("GET", "_catalog"), 3);
}

#[tokio::test]
async fn lists_without_end_and_those_that_lead_away_are_not_followed() {
    for (link, why, most) in [
        ("</v2/a/tags/list?again>; rel=\"next\"", "does not end", 1000),
        ("<http://192.0.2.1/v2/a/tags/list>; rel=\"next\"", "goes on at another host", 1),
    ] {
        let front = Front::start("", move |_| {
            Act::Answer(200, vec![("link", link.to_owned())], b"{\"name\":\"a\",\"tags\":[\"x\"]}".to_vec())
        })
        .await;
        let error = anonymous()
            .repository(&repository(&front.host, "a"))
            .tags()
            .await
            .expect_err("no end");
        assert_eq!(error.kind(), Kind::Malformed);
        assert!(error.to_string().contains(why), "{error}");
        assert_eq!(front.count("GET", "tags/list"), most);
    }
}

#[tokio::test]
async fn googles_lists_tell_more() {
    let digest = Digest::of(b"x");
    let list = format!(
        "{{\"child\":[\"kevin-api\",\"stable-api\"],\"manifest\":{{\"{digest}\":{{\"imageSizeBytes\":\"12\",\"tag\":[\"latest\"],\"timeUploadedMs\":\"1700000000000\"}}}},\"name\":\"p\",\"tags\":[\"latest\"]}}"
    );
    let front = Front::start("", move |seen| {
        if seen.target.contains("tags") {
            Act::Answer(200, Vec::new(), list.clone().into_bytes())
        } else {
            Act::status(200)
        }
    })
    .await;
    let listing = anonymous()
        .repository(&repository(&front.host, "p"))
        .tags()
        .await
        .expect("answered")
        .expect("there");
    assert_eq!(listing.children, BTreeSet::from(["kevin-api".to_owned(), "stable-api".to_owned()]));
}

#[tokio::test]
async fn a_registry_without_a_catalog_is_told_apart() {
    for (status, kind) in [(401, Kind::Unauthorized), (403, Kind::Denied), (405, Kind::Unsupported)] {
        let front = Front::start("", move |seen| Act::status(if seen.target == "/v2/" { 200 } else { status })).await;
        let error = anonymous().catalog(&front.host).await.expect_err("refused");
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().starts_with(&format!("{}: its catalog", front.host)), "{error}");
    }
    let front = Front::start("", |seen| Act::status(if seen.target == "/v2/" { 200 } else { 404 })).await;
    assert_eq!(anonymous().catalog(&front.host).await.expect("answered"), None);
    let front = Front::start("", |_| Act::status(404)).await;
    let error = anonymous().catalog(&front.host).await.expect_err("no registry");
    assert!(error.to_string().contains("no registry"), "{error}");
}
