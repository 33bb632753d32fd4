//! Other ways to the daemon that `make test` provides: TCP, TLS with client certificates, and ssh.

use std::env;
use std::fs;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use tokio_rustls::TlsAcceptor;

use crate::support::{Ran, provided};

#[track_caller]
fn run(program: &str, arguments: &[&str]) {
    let ran = Ran::of(
        Command::new(program)
            .args(arguments)
            .output()
            .unwrap_or_else(|error| panic!("{program}: {error}")),
    );
    assert_eq!(ran.code, 0, "{program} {arguments:?}: {}", ran.stderr);
}

const NEW_KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

/// A CA, a server's certificate, and a client's; in `client/` as `DOCKER_CERT_PATH` has them.
pub struct Certificates {
    dir: TempDir,
}

impl Certificates {
    /// `names`: the server's, such as `IP:127.0.0.1,DNS:localhost`.
    pub fn for_server(names: &str) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let this = Self { dir };
        for folder in ["ca", "server", "client"] {
            fs::create_dir(this.path(folder)).expect("created");
        }
        let (ca, key) = (this.text("client/ca.pem"), this.text("ca/key.pem"));
        let names = format!("subjectAltName={names}");
        let request = ["-x509", "-days", "2", "-subj", "/CN=a CA", "-keyout", &key, "-out", &ca];
        run("openssl", &[&["req"], &NEW_KEY[..], &request, &["-addext", &names]].concat());
        fs::write(this.path("ca/server.ext"), names).expect("written");
        fs::write(this.path("ca/client.ext"), "extendedKeyUsage=clientAuth\n").expect("written");
        this.sign("server", "2");
        this.sign("client", "2");
        this
    }

    /// The certificate of `who` ended yesterday.
    pub fn expire(&self, who: &str) {
        self.sign(who, "-1");
    }

    /// The CA is the server too, as many a manual has it.
    pub fn serve_the_ca(&self) {
        for (from, to) in [("client/ca.pem", "server/cert.pem"), ("ca/key.pem", "server/key.pem")] {
            fs::copy(self.path(from), self.path(to)).expect("copied");
        }
    }

    /// The CA ended yesterday.
    pub fn expire_the_ca(&self) {
        let (ca, key) = (self.text("client/ca.pem"), self.text("ca/key.pem"));
        run("openssl", &["x509", "-in", &ca, "-signkey", &key, "-days", "-1", "-out", &ca]);
    }

    fn sign(&self, who: &str, days: &str) {
        let (wish, extensions) = (self.text(&format!("ca/{who}.csr")), self.text(&format!("ca/{who}.ext")));
        let key = self.text(&format!("{who}/key.pem"));
        let request = ["-subj", &format!("/CN={who}"), "-keyout", &key, "-out", &wish];
        run("openssl", &[&["req"], &NEW_KEY[..], &request].concat());
        let certificate = self.text(&format!("{who}/cert.pem"));
        let by_ca = [
            "-CA",
            &self.text("client/ca.pem"),
            "-CAkey",
            &self.text("ca/key.pem"),
            "-CAcreateserial",
        ];
        let files = ["-in", &wish, "-extfile", &extensions, "-out", &certificate];
        run("openssl", &[&["x509", "-req", "-days", days], &by_ca[..], &files].concat());
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    pub fn text(&self, below: &str) -> String {
        self.path(below).display().to_string()
    }

    fn read(&self, below: &str) -> Vec<CertificateDer<'static>> {
        let certificates = CertificateDer::pem_file_iter(self.path(below)).expect("PEM");
        certificates.collect::<Result<_, _>>().expect("certificates")
    }

    /// As `dockerd --tlsverify` is: clients without a certificate of the CA are refused.
    fn server(&self) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(self.read("client/ca.pem"));
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_client_cert_verifier(verifier.build().expect("a verifier"))
            .with_single_cert(
                self.read("server/cert.pem"),
                PrivateKeyDer::from_pem_file(self.path("server/key.pem")).expect("a key"),
            )
            .expect("a server")
    }
}

/// A port on loopback that leads to the daemon's socket.
pub struct Door {
    pub port: u16,
    requests: Arc<Mutex<Vec<String>>>,
    runtime: Option<Runtime>,
}

impl Drop for Door {
    fn drop(&mut self) {
        self.runtime.take().expect("not dropped yet").shutdown_background();
    }
}

impl Door {
    pub fn plain() -> Self {
        Self::open(None, &[])
    }

    pub fn tls(certificates: &Certificates) -> Self {
        Self::open(Some(TlsAcceptor::from(Arc::new(certificates.server()))), &[])
    }

    /// Answers as a daemon does that is older than BuildKit.
    pub fn without_buildkit() -> Self {
        Self::open(None, &["POST /grpc ", "POST /session "])
    }

    /// The daemon's BuildKit as one that stands alone: the control API itself, and nothing of the daemon's.
    pub fn buildkit(certificates: Option<&Certificates>) -> Self {
        let tls = certificates.map(|certificates| TlsAcceptor::from(Arc::new(certificates.server())));
        Self::leading_to(tls, To::BuildKit)
    }

    /// Answers as a daemon does on a busy machine: what makes it start processes takes so long.
    pub fn busy(takes: Duration) -> Self {
        Self::leading_to(None, To::Daemon { unknown: &[], takes })
    }

    /// Requests that begin as one of `unknown` are answered 404.
    fn open(tls: Option<TlsAcceptor>, unknown: &'static [&str]) -> Self {
        let takes = Duration::ZERO;
        Self::leading_to(tls, To::Daemon { unknown, takes })
    }

    fn leading_to(tls: Option<TlsAcceptor>, to: To) -> Self {
        let runtime = runtime();
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, seen) = (tls.clone(), Arc::clone(&seen));
                tokio::spawn(async move {
                    match tls {
                        Some(tls) => to.pass(tls.accept(stream).await?, &seen).await,
                        None => to.pass(stream, &seen).await,
                    }
                });
            }
        });
        Self {
            port,
            requests,
            runtime: Some(runtime),
        }
    }

    /// [`Self::buildkit`] at a socket; it has no port.
    pub fn buildkit_at(socket: &Path) -> Self {
        let runtime = runtime();
        let listener = {
            let _inside = runtime.enter();
            tokio::net::UnixListener::bind(socket).expect("a socket")
        };
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(pass_to_buildkit(stream));
            }
        });
        Self {
            port: 0,
            requests: Arc::default(),
            runtime: Some(runtime),
        }
    }

    pub fn address(&self) -> String {
        format!("tcp://127.0.0.1:{}", self.port)
    }

    /// Whether a connection began with this request.
    pub fn was_asked_for(&self, request: &str) -> bool {
        self.requests
            .lock()
            .expect("not poisoned")
            .iter()
            .any(|seen| seen.starts_with(request))
    }

    /// Asserts that builds went this way, with the builder that this run is for.
    #[track_caller]
    pub fn was_built_through(&self) {
        let requests = self.requests.lock().expect("not poisoned");
        let has = |part: &str| requests.iter().any(|request| request.contains(part));
        if env::var("DOCKER_BUILDKIT").is_ok_and(|value| value == "0") {
            assert!(!requests.is_empty() && !has("POST /session"), "{requests:?}");
        } else {
            assert!(has("POST /grpc") && has("POST /session"), "{requests:?}");
        }
    }
}

/// The socket that `make test` provides.
pub fn daemon_socket() -> String {
    let address = provided("DOCKER_HOST");
    let socket = address.strip_prefix("unix://");
    socket
        .unwrap_or_else(|| panic!("these tests need the daemon's socket, not {address}"))
        .to_owned()
}

fn runtime() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().expect("a runtime")
}

#[derive(Clone, Copy)]
enum To {
    Daemon { unknown: &'static [&'static str], takes: Duration },
    BuildKit,
}

impl To {
    async fn pass(self, stream: impl AsyncRead + AsyncWrite + Unpin, seen: &Mutex<Vec<String>>) -> io::Result<()> {
        match self {
            Self::Daemon { unknown, takes } => pass(stream, seen, unknown, takes).await,
            Self::BuildKit => pass_to_buildkit(stream).await,
        }
    }
}

async fn pass_to_buildkit(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let mut daemon = UnixStream::connect(daemon_socket()).await?;
    let request = b"POST /grpc HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n";
    daemon.write_all(request).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(daemon.read_u8().await?);
    }
    copy_bidirectional(&mut stream, &mut daemon).await?;
    Ok(())
}

/// Notes what each connection begins with.
async fn pass(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    seen: &Mutex<Vec<String>>,
    unknown: &[&str],
    takes: Duration,
) -> io::Result<()> {
    let mut first = vec![0; 4096];
    let length = stream.read(&mut first).await?;
    let line = String::from_utf8_lossy(&first[..length])
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned();
    let is_unknown = unknown.iter().any(|unknown| line.starts_with(unknown));
    if ["/info ", "/version "].iter().any(|question| line.contains(question)) {
        tokio::time::sleep(takes).await;
    }
    seen.lock().expect("not poisoned").push(line);
    if is_unknown {
        return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await;
    }
    let mut daemon = UnixStream::connect(daemon_socket()).await?;
    daemon.write_all(&first[..length]).await?;
    copy_bidirectional(&mut stream, &mut daemon).await?;
    Ok(())
}

/// An sshd for whoever runs the tests, and an `ssh` that knows it, beside the person's own configuration.
pub struct Sshd {
    child: Child,
    dir: TempDir,
    pub port: u16,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let ended = self.child.kill().and_then(|()| self.child.wait());
        assert!(ended.is_ok(), "sshd does not end");
    }
}

impl Sshd {
    /// `path`: where commands are looked for over there; `daemon`: what `docker` uses there.
    pub fn start(path: &str, daemon: &str) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let port = free_port();
        let at = |name: &str| dir.path().join(name).display().to_string();
        for key in ["host", "person", "stranger"] {
            run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", key, "-f", &at(key)]);
        }
        fs::copy(at("person.pub"), at("authorized_keys")).expect("copied");
        let config = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\nUsePAM no\n\
             PermitRootLogin yes\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nSetEnv PATH={path} DOCKER_HOST={daemon}\n",
            at("host"),
            at("authorized_keys")
        );
        fs::write(at("sshd_config"), config).expect("written");
        let log = fs::File::create(at("log")).expect("created");
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/provision/sshd");
        let child = Command::new(program)
            .arg(dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("cloned"))
            .stderr(log)
            .spawn()
            .expect("sshd starts");
        let mut started = Self { child, dir, port };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).is_err() {
            let gone = started.child.try_wait().expect("asked").is_some();
            assert!(
                !gone && Instant::now() < deadline,
                "no sshd (`make test` provides it): {}",
                started.log()
            );
            std::thread::yield_now();
        }
        started
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).expect("read")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn address(&self) -> String {
        let me = Ran::of(Command::new("id").arg("-un").output().expect("id runs")).ok().stdout;
        format!("ssh://{}@127.0.0.1:{}", me.trim(), self.port)
    }

    /// A `PATH` that begins with an `ssh` which has `identity` and believes in `host_key`.
    pub fn client(&self, identity: &str, host_key: Option<&str>) -> String {
        let folder = self.path(&format!("{identity}-{}", host_key.unwrap_or_default()));
        fs::create_dir_all(&folder).expect("created");
        let key = host_key.map(|key| fs::read_to_string(self.path(&format!("{key}.pub"))).expect("a key"));
        let known = key.map(|key| format!("[127.0.0.1]:{} {key}", self.port)).unwrap_or_default();
        fs::write(folder.join("known_hosts"), known).expect("written");
        let config = format!(
            "Host *\n  IdentityFile {}\n  IdentitiesOnly yes\n  IdentityAgent none\n  UserKnownHostsFile {}\n  GlobalKnownHostsFile /dev/null\n",
            self.path(identity).display(),
            folder.join("known_hosts").display()
        );
        fs::write(folder.join("config"), config).expect("written");
        let path = env::var("PATH").expect("a path");
        let real = env::split_paths(&path).map(|folder| folder.join("ssh")).find(|ssh| ssh.exists());
        let real = real.expect("an ssh: `make test` provides it");
        let script = format!(
            "#!/bin/sh\necho $$ >>'{}'\nexec '{}' -F '{}' \"$@\"\n",
            self.path("clients").display(),
            real.display(),
            folder.join("config").display()
        );
        fs::write(folder.join("ssh"), script).expect("written");
        fs::set_permissions(folder.join("ssh"), fs::Permissions::from_mode(0o755)).expect("executable");
        format!("{}:{path}", folder.display())
    }

    /// Asserts that there were clients, and that all of them end.
    #[track_caller]
    pub fn has_no_client_left(&self) {
        let clients = fs::read_to_string(self.path("clients")).expect("there were clients");
        let mark = self.dir.path().display().to_string();
        let deadline = Instant::now() + Duration::from_secs(5);
        let is_left = |pid: &str| fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|command| command.contains(&mark));
        while clients.lines().any(is_left) {
            assert!(Instant::now() < deadline, "ssh is left running");
            std::thread::yield_now();
        }
    }
}

pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("bound").port()
}

/// Takes connections, and says nothing.
pub struct Silent {
    listener: TcpListener,
}

impl Silent {
    pub fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        listener.set_nonblocking(true).expect("set");
        Self { listener }
    }

    pub fn address(&self) -> String {
        format!("tcp://{}", self.listener.local_addr().expect("bound"))
    }

    #[track_caller]
    pub fn was_asked(&self) {
        assert_ne!(
            self.listener.accept().map_err(|error| error.kind()).err(),
            Some(ErrorKind::WouldBlock)
        );
    }
}
