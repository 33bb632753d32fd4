use super::*;
use sha2::{Digest as _, Sha256};
use std::fs;
use tempfile::TempDir;

/// A home folder with Docker's configuration, and the environment.
struct Machine {
    home: TempDir,
}

impl Machine {
    fn new() -> Self {
        let home = TempDir::new().expect("a folder");
        fs::create_dir_all(home.path().join(".docker/buildx/instances")).expect("created");
        for file in ["ca.pem", "cert.pem", "key.pem"] {
            fs::write(home.path().join(file), "").expect("written");
        }
        Self { home }
    }

    /// As `docker buildx create` writes it.
    fn instance(self, name: &str, json: &str) -> Self {
        let json = json.replace("HOME", &self.home.path().display().to_string());
        fs::write(self.home.path().join(".docker/buildx/instances").join(name), json).expect("written");
        self
    }

    fn resolve(&self, text: &str) -> Result<Choice, Problem> {
        let home = self.home.path().display().to_string();
        let env = |name: &str| (name == "HOME").then(|| home.clone());
        let named = Named {
            texts: vec![text.to_owned()],
            origin: Origin::Option,
            folder: self.home.path().to_owned(),
        };
        resolve(Some(&named), &env, &DockerConfig::load(&env).expect("loaded"))
    }

    #[track_caller]
    fn nodes(&self, text: &str) -> Vec<Node> {
        match self.resolve(text).expect(text) {
            Choice::BuildKits(nodes) => nodes,
            Choice::Daemon(daemon) => panic!("the daemon at {}", daemon.address),
        }
    }

    #[track_caller]
    fn refused(&self, text: &str) -> String {
        self.resolve(text).expect_err(text).to_string()
    }
}

fn tls(node: &Node) -> Option<&TlsMaterial> {
    match &node.reach {
        Reach::Listening(endpoint) => endpoint.tls.as_ref(),
        Reach::Container { .. } => None,
    }
}

#[test]
fn addresses() {
    let machine = Machine::new();
    for (text, shown) in [
        ("tcp://builder", "tcp://builder:1234"),
        ("tcp://10.0.0.1:99", "tcp://10.0.0.1:99"),
        ("unix:///run/b.sock", "unix:///run/b.sock"),
        ("docker-container://b_1", "docker-container://b_1"),
    ] {
        let nodes = machine.nodes(text);
        assert_eq!(nodes.iter().map(ToString::to_string).collect::<Vec<_>>(), [shown]);
        assert_eq!(tls(&nodes[0]), None);
    }
    let with = machine.nodes("tcp://b:1,cacert=ca.pem,cert=cert.pem,key=key.pem,servername=s, unix:///run/b.sock ,tcp://b:1");
    assert_eq!(with.len(), 2, "each once");
    let tls = tls(&with[0]).expect("with TLS");
    assert_eq!(
        (tls.ca.clone(), tls.server_name.as_deref()),
        (machine.home.path().join("ca.pem"), Some("s"))
    );
}

#[test]
fn what_cannot_be_right() {
    let machine = Machine::new();
    for (text, reason) in [
        ("tcp://b:x", "`x` is no port"),
        ("tcp://b/path", "nothing else"),
        ("http://b", "is none of"),
        ("ssh://b", "not reached by ssh"),
        ("unix://b.sock", "absolute"),
        ("docker-container://a/b", "no container's name"),
        ("docker-container://-x", "no container's name"),
        ("../../etc/passwd", "neither an address nor a name"),
        ("a b\u{1b}[31m", "neither an address nor a name"),
        ("nobody", "no such builder (builders: default)"),
        ("tcp://b,cacert=ca.pem,cert=cert.pem", "belong together"),
        ("tcp://b,cacert=none.pem", "none.pem cannot be read"),
        ("unix:///b,cacert=ca.pem", "no TLS"),
        ("cacert=ca.pem", "names no builder"),
        ("tcp://a,,tcp://b", "names no builder"),
        ("default,tcp://b", "cannot be one of several builders"),
        ("default,cacert=ca.pem", "only an address"),
    ] {
        let refused = machine.refused(text);
        assert!(refused.contains(reason) && !refused.contains('\u{1b}'), "{text}: {refused}");
    }
}

#[test]
fn the_persons_own_daemon() {
    assert!(matches!(Machine::new().resolve("default"), Ok(Choice::Daemon(_))));
}

#[test]
fn a_context_of_docker_means_its_daemon() {
    let machine = Machine::new();
    let context = machine
        .home
        .path()
        .join(format!(".docker/contexts/meta/{:x}", Sha256::digest("other")));
    fs::create_dir_all(&context).expect("created");
    let meta = r#"{"Name":"other","Metadata":{},"Endpoints":{"docker":{"Host":"tcp://10.0.0.1:2375","SkipTLSVerify":false}}}"#;
    fs::write(context.join("meta.json"), meta).expect("written");
    match machine.resolve("other").expect("known") {
        Choice::Daemon(daemon) => assert_eq!(daemon.address.to_string(), "tcp://10.0.0.1:2375"),
        Choice::BuildKits(nodes) => panic!("{nodes:?}"),
    }
}

#[test]
fn builders_of_buildx() {
    let machine = Machine::new()
        .instance("rem", r#"{"Name":"rem","Driver":"remote","Nodes":[{"Name":"rem0","Endpoint":"tcp://127.0.0.1:1234","Platforms":[{"architecture":"arm64","os":"linux"},{"architecture":"arm","os":"linux","variant":"v7"}],"DriverOpts":{"cacert":"HOME/ca.pem","cert":"HOME/cert.pem","key":"HOME/key.pem","servername":"bk.example"},"Flags":null,"Files":null},{"Name":"rem1","Endpoint":"unix:///tmp/x.sock","Platforms":null,"DriverOpts":null,"Flags":null,"Files":null}],"Dynamic":false}"#)
        .instance("cont", r#"{"Name":"cont","Driver":"docker-container","Nodes":[{"Name":"cont0","Endpoint":"unix:///run/docker.sock","Platforms":null,"DriverOpts":null,"Flags":["--allow-insecure-entitlement=network.host"],"Files":null}],"Dynamic":false}"#)
        .instance("kube", r#"{"Name":"kube","Driver":"kubernetes","Nodes":[{"Name":"kube0","Endpoint":"kubernetes:///kube"}]}"#)
        .instance("empty", r#"{"Name":"empty","Nodes":null}"#)
        .instance("broken", "{");
    let nodes = machine.nodes("REM");
    assert_eq!(
        nodes.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["tcp://127.0.0.1:1234", "unix:///tmp/x.sock"]
    );
    assert_eq!(nodes[0].platforms, ["linux/arm64", "linux/arm/v7"]);
    assert_eq!(tls(&nodes[0]).and_then(|tls| tls.server_name.as_deref()), Some("bk.example"));
    let Reach::Container { name, daemon } = &machine.nodes("cont")[0].reach else {
        panic!("not in a container")
    };
    assert_eq!(
        (name.as_str(), daemon.address.to_string().as_str()),
        ("buildx_buildkit_cont0", "unix:///run/docker.sock")
    );
    assert!(
        machine
            .refused("kube")
            .contains("only buildx itself can use a builder of the driver `kubernetes`")
    );
    assert!(machine.refused("empty").contains("holds no node"));
    assert!(machine.refused("broken").contains("instances/broken is not JSON"));
    assert!(
        machine
            .refused("other")
            .contains("builders: broken, cont, default, empty, kube, rem")
    );
}

#[test]
fn who_names_it_first() {
    let manifest = Named {
        texts: vec!["m".to_owned()],
        origin: Origin::Manifest("images.yaml:3".to_owned()),
        folder: PathBuf::from("/m"),
    };
    let with = |options: &[&str], variables: &[(&str, &str)]| {
        let options: Vec<_> = options.iter().map(|text| (*text).to_owned()).collect();
        let env = |name: &str| {
            variables
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| (*value).to_owned())
        };
        named(&options, &env, Path::new("/c"), Some(&manifest))
            .expect("named")
            .origin
            .to_string()
    };
    let both = [("BUILDX_BUILDER", "x"), ("LATTICE_IMAGES_BUILDER", "y")];
    assert_eq!(with(&["o"], &both), "--builder");
    assert_eq!(with(&[""], &both), "LATTICE_IMAGES_BUILDER");
    assert_eq!(with(&[], &both[..1]), "BUILDX_BUILDER");
    assert_eq!(with(&[], &[("BUILDX_BUILDER", "")]), "images.yaml:3");
}
