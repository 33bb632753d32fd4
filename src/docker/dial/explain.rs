//! Why no daemon answers: the address, where it came from, the cause, and what to do about it.

use std::error::Error;
use std::io;

use bollard::errors::Error as BollardError;
use rustls::{AlertDescription, CertificateError, Error as TlsError};

use super::patience;
use super::ssh::SshFailure;
use crate::endpoint::{Address, Endpoint, Source, TlsMaterial};
use crate::problem::{Problem, causes, printable};
use crate::tls::UnusableFile;

type Cause = dyn Error + 'static;

/// The whole chain in one line.
pub(in crate::docker) fn chain(error: &Cause) -> String {
    let mut told: Vec<String> = Vec::new();
    for cause in causes(error).map(ToString::to_string) {
        // some repeat what is below them
        if told.last().is_none_or(|above| !above.ends_with(&cause)) {
            told.push(cause);
        }
    }
    told.join(": ")
}

fn find<T: Error + 'static>(error: &Cause) -> Option<&T> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

/// Whether a connection through TLS or ssh broke off for a reason that `error` does not have.
pub(super) fn is_vague(endpoint: &Endpoint, error: &Cause) -> bool {
    let is_told = find::<TlsError>(error).is_some() || find::<SshFailure>(error).is_some();
    let answered = matches!(find(error), Some(BollardError::DockerResponseServerError { .. }));
    let is_wrapped = endpoint.tls.is_some() || matches!(endpoint.address, Address::Ssh { .. });
    is_wrapped && !is_told && !answered
}

pub(super) fn unusable_certificates(endpoint: &Endpoint, file: &UnusableFile) -> Problem {
    Problem::failed(format!(
        "TLS to the {} at {} ({}) cannot use {}: {}",
        what(endpoint),
        endpoint.address,
        endpoint.source,
        file.path.display(),
        file.reason
    ))
    .hint(match endpoint.source {
        Source::Builder(_) => "the three are PEM files: cacert, cert and key".to_owned(),
        _ => format!("{} holds ca.pem, cert.pem and key.pem", folder_of_certificates(endpoint)),
    })
}

pub(super) fn unanswered(endpoint: &Endpoint) -> Problem {
    no_daemon(endpoint, &format!("it did not answer within {} s", patience(endpoint).as_secs())).hint(match &endpoint.address {
        _ if is_builder(endpoint) => start(endpoint),
        Address::Unix(_) => format!("see what it does (journalctl -u docker), {}", elsewhere(&endpoint.source)),
        Address::Tcp { .. } => format!(
            "check the host, the port and the firewalls between, {}",
            elsewhere(&endpoint.source)
        ),
        Address::Ssh { .. } => by_hand(endpoint),
    })
}

pub(super) fn unreachable(endpoint: &Endpoint, error: &Cause) -> Problem {
    if let Some(failure) = find::<SshFailure>(error) {
        return over_ssh(endpoint, failure);
    }
    if let Some(refusal) = find::<TlsError>(error) {
        return over_tls(endpoint, refusal);
    }
    if let Some(BollardError::DockerResponseServerError { status_code, message }) = find(error) {
        // Go's server says so
        if message.contains("HTTP request to an HTTPS server") {
            return no_daemon(endpoint, "it wants TLS").hint(with_tls(endpoint));
        }
        return no_daemon(endpoint, format!("what is there answered {status_code} {message}").trim_end()).hint(start(endpoint));
    }
    if let Some(kind) = find::<io::Error>(error).map(io::Error::kind) {
        match kind {
            io::ErrorKind::PermissionDenied => {
                return Problem::failed(format!(
                    "no permission to use the {} at {} ({})",
                    what(endpoint),
                    endpoint.address,
                    endpoint.source
                ))
                .hint(match endpoint.source {
                    Source::Builder(_) => "the socket's owner and mode say who may: buildkitd --group sets them",
                    _ => "join the docker group: sudo usermod -aG docker \"$USER\", then log in again",
                });
            }
            io::ErrorKind::ConnectionRefused => return no_daemon(endpoint, "nothing listens there").hint(start(endpoint)),
            io::ErrorKind::NotFound => return no_daemon(endpoint, "there is no such socket").hint(start(endpoint)),
            io::ErrorKind::TimedOut => return unanswered(endpoint),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => return broken_off(endpoint),
            _ => {}
        }
    }
    match find::<hyper::Error>(error) {
        Some(error) if error.is_incomplete_message() => broken_off(endpoint),
        Some(error) if error.is_parse() => {
            let hint = if is_plain_tcp(endpoint) {
                with_tls(endpoint)
            } else {
                start(endpoint)
            };
            no_daemon(endpoint, "what is there does not speak HTTP").hint(hint)
        }
        _ => within_http2(endpoint, &chain(error)),
    }
}

/// HTTP/2 keeps of a cause only its text.
fn within_http2(endpoint: &Endpoint, causes: &str) -> Problem {
    match &endpoint.tls {
        Some(tls) if causes.contains("received fatal alert") => no_daemon(endpoint, &refused(tls)).hint(for_the_client(tls)),
        _ if causes.contains("connection closed") => broken_off(endpoint),
        _ if causes.contains("http2 error") => {
            let hint = if is_plain_tcp(endpoint) {
                with_tls(endpoint)
            } else {
                start(endpoint)
            };
            no_daemon(endpoint, "what is there does not speak gRPC").hint(hint)
        }
        _ => no_daemon(endpoint, causes).hint(start(endpoint)),
    }
}

fn broken_off(endpoint: &Endpoint) -> Problem {
    let problem = no_daemon(endpoint, "it closed the connection");
    match &endpoint.tls {
        Some(tls) => problem.hint(format!("it may have refused the client certificate: {}", for_the_client(tls))),
        None if is_plain_tcp(endpoint) => problem.hint(with_tls(endpoint)),
        None => problem.hint(start(endpoint)),
    }
}

fn over_tls(endpoint: &Endpoint, error: &TlsError) -> Problem {
    let (Address::Tcp { host, .. }, Some(tls)) = (&endpoint.address, &endpoint.tls) else {
        return no_daemon(endpoint, &error.to_string());
    };
    let ca = tls.ca.display();
    match error {
        TlsError::InvalidCertificate(
            // a CA of the same name with another key
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) if tls.ca.exists() => no_daemon(endpoint, &format!("its certificate is not signed by the CA in {ca}"))
            .hint(format!("put the CA that signed the daemon's certificate into {ca}")),
        TlsError::InvalidCertificate(CertificateError::UnknownIssuer) => {
            no_daemon(endpoint, "its certificate is signed by no CA that this machine trusts").hint(if is_builder(endpoint) {
                "name the CA that signed it: cacert=FILE behind the address"
            } else {
                "make the context anew with the CA that signed it: docker context create NAME --docker host=...,ca=FILE"
            })
        }
        TlsError::InvalidCertificate(CertificateError::NotValidForNameContext { presented, .. }) => {
            let names: Vec<_> = presented.iter().map(|name| name_in_certificate(name)).collect();
            let names = if names.is_empty() { "no host".to_owned() } else { names.join(", ") };
            no_daemon(endpoint, &format!("its certificate is for {names}, not for {host}")).hint(other_name(host))
        }
        TlsError::InvalidCertificate(CertificateError::NotValidForName) => {
            no_daemon(endpoint, &format!("its certificate is not for {host}")).hint(other_name(host))
        }
        TlsError::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => no_daemon(endpoint, &format!("its certificate is not valid now: {error}"))
            .hint("renew the daemon's certificate, or set the clock of this machine"),
        TlsError::AlertReceived(alert) if is_about_client(*alert) => no_daemon(endpoint, &refused(tls)).hint(for_the_client(tls)),
        TlsError::InvalidMessage(_) if is_builder(endpoint) => no_daemon(endpoint, "what is there does not speak TLS")
            .hint("leave `cacert`, `cert` and `key` away, or name the port that has TLS"),
        TlsError::InvalidMessage(_) => no_daemon(endpoint, "what is there does not speak TLS").hint(format!(
            "check the port (Docker's is 2376 with TLS, 2375 without), {}",
            elsewhere(&endpoint.source)
        )),
        error => no_daemon(endpoint, &error.to_string()).hint(format!("check the daemon's certificate and {ca}")),
    }
}

/// `DnsName("a")` and `IpAddress(127.0.0.1)` are how webpki names them.
fn name_in_certificate(presented: &str) -> &str {
    let inner = presented.split_once('(').map_or(presented, |(_, inner)| inner);
    inner.trim_end_matches(')').trim_matches('"')
}

fn other_name(host: &str) -> String {
    format!("use a name of the certificate in the address, or make the certificate anew with {host} as subjectAltName")
}

/// What a server answers whom it does not want. TLS has one for each way to put it.
fn is_about_client(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError
            | AlertDescription::HandshakeFailure
    )
}

fn refused(tls: &TlsMaterial) -> String {
    if tls.cert.as_os_str().is_empty() {
        "it wants a client certificate, and none is given".to_owned()
    } else if tls.cert.exists() {
        format!("it refused the client certificate {}", tls.cert.display())
    } else {
        format!("it wants a client certificate, and there is no {}", tls.cert.display())
    }
}

fn for_the_client(tls: &TlsMaterial) -> String {
    let (cert, key) = (tls.cert.display(), tls.key.display());
    if tls.cert.as_os_str().is_empty() {
        "give it one: cert=FILE,key=FILE behind the address".to_owned()
    } else if tls.cert.exists() {
        format!("{cert} must be signed by the CA that the daemon knows as --tlscacert, and not have expired")
    } else {
        format!("put one there, signed by the CA that the daemon knows as --tlscacert, and its key into {key}")
    }
}

fn over_ssh(endpoint: &Endpoint, failure: &SshFailure) -> Problem {
    let SshFailure::Ended { code, said } = failure else {
        return no_daemon(endpoint, &failure.to_string()).hint("install OpenSSH's client (openssh-client), or put it into PATH");
    };
    let has = |text: &str| said.contains(text);
    let last = said.lines().rev().find(|line| !line.is_empty()).unwrap_or("it did not say why");
    if has("REMOTE HOST IDENTIFICATION HAS CHANGED") {
        no_daemon(endpoint, "its ssh host key is another than it was").hint(format!(
            "somebody may be in between; if the change is known: ssh-keygen -R NAME, then {}",
            once(endpoint)
        ))
    } else if has("Host key verification failed") {
        no_daemon(endpoint, "its ssh host key is not known").hint(format!("{} and compare the key", once(endpoint)))
    } else if has("Permission denied (") {
        no_daemon(endpoint, &format!("ssh was refused: {last}")).hint(format!(
            "put your public key into authorized_keys there, or the key into ssh-agent; {}",
            by_hand(endpoint)
        ))
    } else if has("Connection refused") {
        no_daemon(endpoint, "no ssh server listens there").hint(by_hand(endpoint))
    } else if *code == Some(127) || has("command not found") {
        no_daemon(endpoint, &format!("there is no `docker` on the other side: {last}"))
            .hint("install Docker's client there, in the PATH that a command run by ssh has")
    } else if *code == Some(255) || code.is_none() {
        no_daemon(endpoint, &format!("ssh failed: {last}")).hint(by_hand(endpoint))
    } else if has("permission denied") {
        no_daemon(endpoint, &format!("no permission over there: {last}"))
            .hint("join the docker group there: sudo usermod -aG docker \"$USER\"")
    } else {
        no_daemon(endpoint, &format!("`docker` on the other side failed: {last}"))
            .hint("start the daemon there, or name its socket: ssh://HOST/run/user/1000/docker.sock")
    }
}

fn by_hand(endpoint: &Endpoint) -> String {
    format!(
        "this must work without asking for anything: {} docker version",
        ssh_command(endpoint)
    )
}

fn once(endpoint: &Endpoint) -> String {
    format!("connect once by hand ({})", ssh_command(endpoint))
}

fn ssh_command(endpoint: &Endpoint) -> String {
    let Address::Ssh { user, host, port, .. } = &endpoint.address else {
        return "ssh".to_owned();
    };
    let port = port.map(|port| format!("-p {port} ")).unwrap_or_default();
    let user = user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
    format!("ssh {port}{user}{host}")
}

fn no_daemon(endpoint: &Endpoint, why: &str) -> Problem {
    Problem::failed(format!(
        "no {} answers at {} ({}): {}",
        what(endpoint),
        endpoint.address,
        endpoint.source,
        printable(why)
    ))
}

fn what(endpoint: &Endpoint) -> &'static str {
    if is_builder(endpoint) { "BuildKit" } else { "Docker daemon" }
}

fn is_builder(endpoint: &Endpoint) -> bool {
    matches!(endpoint.source, Source::Builder(_))
}

fn start(endpoint: &Endpoint) -> String {
    let start = match (&endpoint.address, &endpoint.source) {
        (_, Source::Builder(_)) => "start it (buildkitd --addr ADDRESS), check the address",
        (Address::Unix(_), Source::Rootless) => "start it (systemctl --user start docker)",
        (Address::Unix(_), Source::DockerDesktop) => "start Docker Desktop",
        (Address::Unix(_), Source::Colima) => "start it (colima start)",
        (Address::Unix(_), _) => "start it (sudo systemctl start docker)",
        (Address::Tcp { .. } | Address::Ssh { .. }, _) => "start it there, check the host and the port",
    };
    format!("{start}, {}", elsewhere(&endpoint.source))
}

/// How to choose another daemon, where this one was chosen.
fn elsewhere(source: &Source) -> &'static str {
    match source {
        Source::DockerHost => "or name another in DOCKER_HOST (unset, it leaves the choice to docker context use)",
        Source::DockerContext(_) => "or name another context in DOCKER_CONTEXT",
        Source::CurrentContext(_) => "or choose another context: docker context use NAME",
        Source::DockerTls => "or unset DOCKER_TLS_VERIFY and DOCKER_TLS",
        Source::Builder(_) => "or name another builder: --builder, LATTICE_IMAGES_BUILDER, BUILDX_BUILDER, `builder:` of the manifest",
        Source::Default | Source::Rootless | Source::DockerDesktop | Source::Colima => {
            "or say where it is: DOCKER_HOST, or docker context use NAME"
        }
    }
}

fn with_tls(endpoint: &Endpoint) -> String {
    match endpoint.source {
        Source::Builder(_) => format!("for TLS: {},cacert=FILE,cert=FILE,key=FILE", endpoint.address),
        _ => "for TLS: DOCKER_TLS_VERIFY=1, and DOCKER_CERT_PATH names the folder of ca.pem, cert.pem and key.pem".to_owned(),
    }
}

fn folder_of_certificates(endpoint: &Endpoint) -> &'static str {
    match endpoint.source {
        Source::DockerContext(_) | Source::CurrentContext(_) => "make the context anew from a folder that",
        _ => "DOCKER_CERT_PATH names the folder that",
    }
}

fn is_plain_tcp(endpoint: &Endpoint) -> bool {
    endpoint.tls.is_none() && matches!(endpoint.address, Address::Tcp { .. })
}
