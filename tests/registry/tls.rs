//! Whose certificate is trusted, and ways through proxies. Names resolve nowhere, so that all goes through the proxy.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lattice_images::problem::Problem;
use lattice_images::proxy::Proxies;
use lattice_images::reference::Tag;
use lattice_images::registry::{Client, Error, Kind, Options};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;

use crate::front::{Act, Front, Tunnel};
use crate::server::{OCI_MANIFEST, Registry, Setup, anonymous, client, image, openssl, repository};

/// A CA of our own with what it signed: a server called `registry.test`, and a client.
struct Authority {
    dir: TempDir,
}

impl Authority {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let run = |arguments: &str| {
            let arguments: Vec<_> = arguments.split(' ').collect();
            openssl(dir.path(), &arguments);
        };
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
        run(&format!("req -x509 {key} -subj /CN=ours -keyout ca.key -out ca.crt"));
        for (name, extension) in [
            ("server", "subjectAltName=DNS:registry.test,IP:127.0.0.1"),
            ("client", "extendedKeyUsage=clientAuth"),
        ] {
            let signer = format!("-CA ca.crt -CAkey ca.key -addext basicConstraints=critical,CA:FALSE -addext {extension}");
            run(&format!(
                "req -x509 {key} -subj /CN={name} -keyout {name}.key -out {name}.cert {signer}"
            ));
        }
        // as many a manual has it: a server's certificate that calls itself a CA
        run(&format!(
            "req -x509 {key} -subj /CN=self -addext subjectAltName=DNS:registry.test -keyout self.key -out self.cert"
        ));
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).expect("read")
    }

    fn registry(&self, server: &str, further: &str) -> Registry {
        let (cert, key) = (self.read(&format!("{server}.cert")), self.read(&format!("{server}.key")));
        Registry::with(Setup {
            http: &format!("  tls: {{ certificate: DIR/cert, key: DIR/key{further} }}"),
            files: &[("cert", &cert), ("key", &key), ("ca", &self.read("ca.crt"))],
            ..Setup::default()
        })
    }

    /// A `certs.d` with these files for `host`.
    fn certs_d(&self, host: &str, files: &[(&str, &str)]) -> PathBuf {
        let folder = self.path("certs.d");
        fs::create_dir_all(folder.join(host)).expect("created");
        for (from, to) in files {
            fs::copy(self.path(from), folder.join(host).join(to)).expect("copied");
        }
        folder
    }
}

fn through(proxy: &Tunnel) -> Options {
    Options {
        proxies: Proxies {
            https: format!("http://{}", proxy.host),
            http: format!("http://{}", proxy.host),
            ..Proxies::default()
        },
        ..Options::default()
    }
}

async fn works(client: &Client, host: &str) {
    let remote = client.repository(&repository(host, "a"));
    let manifest = image(&remote, OCI_MANIFEST, &[&vec![3; 200_000]]).await;
    remote.put(&Tag::latest(), &manifest).await.expect("put");
    assert_eq!(remote.get(&Tag::latest()).await.expect("answered"), Some(manifest));
}

async fn refused(options: Options, host: &str) -> Error {
    let error = client(&[], options).ping(host).await.expect_err("refused");
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    error
}

fn hint(error: Error) -> String {
    Problem::from(error).hints().join(" ")
}

#[tokio::test]
async fn a_certificate_is_trusted_for_its_ca_in_either_place() {
    let ours = Authority::new();
    let registry = ours.registry("server", "");
    let proxy = Tunnel::start(&registry.host).await;
    let host = format!("registry.test:{}", registry.port());

    let error = refused(through(&proxy), &host).await;
    assert!(
        error.to_string().contains("certificate of registry.test") && error.to_string().contains("is not trusted"),
        "{error}"
    );
    assert!(hint(error).contains(&format!("/etc/docker/certs.d/{host}/ca.crt")));

    let by_file = Options {
        certificate_file: Some(ours.path("ca.crt")),
        ..through(&proxy)
    };
    works(&client(&[], by_file), &host).await;
    assert!(
        registry.requests(&["HTTP/2.0"]) > 0 && registry.requests(&["HTTP/1.1"]) == 0,
        "{}",
        registry.log()
    );

    fs::create_dir(ours.path("hashed")).expect("created");
    fs::copy(ours.path("ca.crt"), ours.path("hashed/01234567.0")).expect("copied");
    let by_hash = Options {
        certificate_folder: Some(ours.path("hashed")),
        ..through(&proxy)
    };
    works(&client(&[], by_hash), &host).await;

    let by_folder = Options {
        certs_d: vec![Path::new("/nowhere").into(), ours.certs_d(&host, &[("ca.crt", "any.crt")])],
        ..through(&proxy)
    };
    works(&client(&[], by_folder.clone()), &host).await;
    let error = refused(by_folder.clone(), "other.test:5000").await;
    assert!(
        error.to_string().contains("is not trusted"),
        "what is trusted for one host is not for another: {error}"
    );
    ours.certs_d("other.test:5000", &[("ca.crt", "ca.crt")]);
    let error = refused(by_folder, "other.test:5000").await;
    assert!(error.to_string().contains("not valid for name"), "{error}");
}

#[tokio::test]
async fn a_certificate_that_signed_itself_is_trusted_where_it_is_named() {
    let ours = Authority::new();
    let registry = ours.registry("self", "");
    let proxy = Tunnel::start(&registry.host).await;
    let options = |host: &str, file: &str| Options {
        certs_d: vec![ours.certs_d(host, &[(file, "ca.crt")])],
        ..through(&proxy)
    };
    let host = format!("registry.test:{}", registry.port());
    refused(options(&host, "ca.crt"), &host).await;
    works(&client(&[], options(&host, "self.cert")), &host).await;
    let error = refused(options("other.test", "self.cert"), "other.test").await;
    assert!(error.to_string().contains("not valid for name"), "{error}");
}

#[tokio::test]
async fn a_registry_may_want_a_certificate_from_us() {
    let ours = Authority::new();
    let registry = ours.registry("server", ", clientcas: [DIR/ca]");
    let proxy = Tunnel::start(&registry.host).await;
    let host = format!("registry.test:{}", registry.port());
    let options = || Options {
        certs_d: vec![ours.path("certs.d")],
        ..through(&proxy)
    };
    ours.certs_d(&host, &[("ca.crt", "ca.crt")]);
    refused(options(), &host).await;
    ours.certs_d(&host, &[("client.cert", "us.cert")]);
    let error = refused(options(), &host).await;
    assert!(error.to_string().contains("us.key cannot be used"), "{error}");
    ours.certs_d(&host, &[("client.key", "us.key")]);
    works(&client(&[], options()), &host).await;
}

#[tokio::test]
async fn an_insecure_registry_is_spoken_to_over_tls_that_proves_nothing_or_none() {
    let ours = Authority::new();
    for registry in [ours.registry("self", ""), Registry::start()] {
        let proxy = Tunnel::start(&registry.host).await;
        let host = format!("registry.test:{}", registry.port());
        let error = refused(through(&proxy), &host).await;
        assert!(
            ["is not trusted", "does not speak TLS"]
                .iter()
                .any(|why| error.to_string().contains(why)),
            "{error}"
        );
        if error.to_string().contains("TLS") {
            assert!(hint(error).contains(&format!("list {host} under `insecure_registries`")));
        }
        let options = Options {
            insecure: vec![host.clone()],
            ..through(&proxy)
        };
        works(&client(&[], options), &host).await;
        // loopback is insecure by itself, and gone to directly
        let direct = client(&[], through(&Tunnel::start("127.0.0.1:1").await));
        works(&direct, &registry.host).await;
    }
}

#[tokio::test]
async fn plain_http_goes_through_its_proxy_as_a_whole_uri() {
    let registry = Registry::start();
    let proxy = Tunnel::asking(&registry.host, Some("kevin:p@ss")).await;
    let options = Options {
        insecure: vec!["registry.test:5000".to_owned()],
        proxies: Proxies {
            http: format!("http://kevin:p%40ss@{}", proxy.host),
            // TLS is tried first, and ends at once
            https: "http://127.0.0.1:1".to_owned(),
            ..Proxies::default()
        },
        ..Options::default()
    };
    works(&client(&[], options), "registry.test:5000").await;
    let heads = proxy.heads();
    assert!(
        heads.iter().all(|head| head.contains(" http://registry.test:5000/v2/")),
        "{heads:?}"
    );
}

#[tokio::test]
async fn a_proxy_that_is_gone_or_wants_to_know_us_is_told_of() {
    let ours = Authority::new();
    let registry = ours.registry("server", "");
    let host = "registry.test:5000";
    let asking = Tunnel::asking(&registry.host, Some("kevin:hunter2")).await;
    let options = |proxy: &str| Options {
        proxies: Proxies {
            https: proxy.to_owned(),
            ..Proxies::default()
        },
        certificate_file: Some(ours.path("ca.crt")),
        ..Options::default()
    };
    works(&client(&[], options(&format!("http://kevin:hunter2@{}", asking.host))), host).await;
    assert!(
        asking.heads()[0].starts_with("CONNECT registry.test:5000 HTTP/1.1\r\n"),
        "{:?}",
        asking.heads()
    );
    let error = refused(options(&format!("http://kevin:wrong@{}", asking.host)), host).await;
    assert!(error.to_string().contains("the proxy wants other credentials"), "{error}");
    assert!(!error.to_string().contains("wrong"), "{error}");
    let error = refused(options("http://127.0.0.1:1"), host).await;
    assert!(
        error.to_string().contains("the proxy cannot be reached: Connection refused"),
        "{error}"
    );
}

#[tokio::test]
async fn nothing_goes_from_https_to_plain_http() {
    let ours = Authority::new();
    let tls = || {
        let chain = CertificateDer::pem_slice_iter(&ours.read("server.cert"))
            .collect::<Result<_, _>>()
            .expect("a certificate");
        let key = PrivateKeyDer::from_pem_slice(&ours.read("server.key")).expect("a key");
        ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a pair")
    };
    let plain = Front::start("", |_| Act::status(200)).await;
    let elsewhere = format!("http://{}/x", plain.host);
    let front = Front::with_tls("", tls(), move |seen| match seen.target.as_str() {
        "/v2/" => Act::status(200),
        _ if seen.method == "POST" => Act::to(202, elsewhere.clone()),
        _ => Act::to(307, elsewhere.clone()),
    })
    .await;
    let remote = anonymous().repository(&repository(&front.host, "a"));
    for error in [
        remote.get(&Tag::latest()).await.map(drop).expect_err("not followed"),
        remote
            .upload(&lattice_images::reference::Digest::of(b"x"), "x")
            .await
            .expect_err("not followed"),
    ] {
        assert!(error.to_string().contains("from HTTPS to plain HTTP"), "{error}");
    }
    assert!(plain.seen().is_empty());
}
