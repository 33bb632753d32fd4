//! Whether a base has instructions for what is FROM it.

use std::collections::{BTreeMap, BTreeSet};

use lattice_images::reference::{Digest, Tag};
use lattice_images::registry::{Manifest, Remote};
use lattice_images::resolve::{Base, Source, triggers};

use crate::server::{OCI_INDEX, OCI_MANIFEST, Registry, anonymous, index};

async fn image(remote: &Remote, config: &str) -> Manifest {
    let digest = Digest::of(config.as_bytes());
    remote.upload(&digest, config.as_bytes().to_vec()).await.expect("uploaded");
    let manifest = Manifest::new(
        OCI_MANIFEST,
        format!(
            "{{\"schemaVersion\":2,\"mediaType\":\"{OCI_MANIFEST}\",\"config\":{{\"mediaType\":\"application/vnd.oci.image.config.v1+json\",\"digest\":\"{digest}\",\"size\":{}}},\"layers\":[]}}",
            config.len()
        ),
    );
    remote.put(manifest.digest(), &manifest).await.expect("put");
    manifest
}

#[tokio::test]
async fn each_digest_is_asked_for_once_and_of_an_index_the_image_of_the_platform() {
    let registry = Registry::start();
    let remote = registry.remote("base");
    let plain = image(&remote, r#"{"config":{"Env":["A=1"],"OnBuild":null}}"#).await;
    let deferring = image(&remote, r#"{"config":{"OnBuild":["COPY a /a"]}}"#).await;
    let both = index(OCI_INDEX, &[&plain, &deferring]);
    remote.put(&Tag::latest(), &both).await.expect("put");
    let base = |digest: &Digest, told| Base {
        digest: digest.clone(),
        source: Source::Registry,
        triggers: told,
    };
    let name = |name: &str| format!("{}/base:{name}", registry.host);
    let bases = BTreeMap::from([
        (name("plain"), base(plain.digest(), None)),
        (name("deferring"), base(deferring.digest(), None)),
        (name("both"), base(both.digest(), None)),
        (name("gone"), base(&Digest::of(b"gone"), None)),
        (name("told"), base(&Digest::of(b"gone"), Some(true))),
    ]);
    let cache = tempfile::tempdir().expect("a folder");
    let client = anonymous();
    let ask = async |platform: &str| {
        let named: BTreeSet<_> = bases.keys().map(|name| (name.clone(), platform.to_owned())).collect();
        triggers(&named, &bases, &client, Some(cache.path())).await
    };
    let names = |all: &[&str]| all.iter().map(|one| name(one)).collect::<BTreeSet<_>>();
    assert_eq!(ask("linux/amd64").await, (names(&["deferring", "told"]), names(&["gone"])));
    assert_eq!(
        ask("linux/arm64/v8").await,
        (names(&["both", "deferring", "told"]), names(&["gone"]))
    );
    let before = registry.requests(&["GET"]);
    ask("linux/amd64").await;
    assert_eq!(
        registry.requests(&["GET"]) - before,
        1,
        "only what is not there: {}",
        registry.log()
    );
    // an index without the platform: nobody can tell
    assert_eq!(ask("linux/s390x").await.1, names(&["both", "gone"]));
}
