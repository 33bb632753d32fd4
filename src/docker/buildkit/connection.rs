//! Streams to the daemon that are not HTTP any more once they stand: gRPC in both directions.

use std::io;
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context as _, Error, bail};
use bytes::Bytes;
use http_body_util::Empty;
use hyper::Request;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::Command;
use tokio_rustls::TlsConnector;

use crate::endpoint::{Address, Endpoint, TlsMaterial};

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Asks the daemon to go on in HTTP/2 without TLS of its own: `POST path` with `Upgrade: h2c`.
pub(super) async fn upgraded(endpoint: &Endpoint, path: &str, headers: &[(&str, String)]) -> Result<Upgraded, Error> {
    let stream = dial(endpoint).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection.with_upgrades());
    let mut request = Request::post(path)
        .header(HOST, "docker")
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "h2c");
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
    if response.status() != hyper::StatusCode::SWITCHING_PROTOCOLS {
        bail!("the daemon answered {} to POST {path}", response.status());
    }
    Ok(hyper::upgrade::on(response).await?)
}

async fn dial(endpoint: &Endpoint) -> Result<Box<dyn Duplex>, Error> {
    match (&endpoint.address, &endpoint.tls) {
        (Address::Unix(path), _) => Ok(Box::new(UnixStream::connect(path).await?)),
        (Address::Tcp { host, port }, tls) => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            stream.set_nodelay(true)?;
            match tls {
                None => Ok(Box::new(stream)),
                Some(tls) => {
                    let name = ServerName::try_from(host.clone())?;
                    Ok(Box::new(
                        TlsConnector::from(Arc::new(client_config(tls)?)).connect(name, stream).await?,
                    ))
                }
            }
        }
        (Address::Ssh { url }, _) => Ok(Box::new(over_ssh(url)?)),
    }
}

fn client_config(tls: &TlsMaterial) -> Result<ClientConfig, Error> {
    let certificates =
        |path| -> Result<Vec<CertificateDer<'static>>, Error> { Ok(CertificateDer::pem_file_iter(path)?.collect::<Result<_, _>>()?) };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&tls.ca).with_context(|| format!("reading {}", tls.ca.display()))? {
        roots.add(certificate)?;
    }
    let chain = certificates(&tls.cert).with_context(|| format!("reading {}", tls.cert.display()))?;
    let key = PrivateKeyDer::from_pem_file(&tls.key).with_context(|| format!("reading {}", tls.key.display()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.with_root_certificates(roots).with_client_auth_cert(chain, key)?)
}

/// As Docker's own client does it: `ssh` with the person's configuration, and `docker system dial-stdio` at the other end.
fn over_ssh(url: &str) -> io::Result<impl Duplex + use<>> {
    let mut child = Command::new("ssh")
        .args(["-o", "ConnectTimeout=30", "-T", "--", url, "docker", "system", "dial-stdio"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()?;
    let (Some(stdout), Some(stdin)) = (child.stdout.take(), child.stdin.take()) else {
        return Err(io::Error::other("ssh has no pipes"));
    };
    // it ends when its input is closed
    tokio::spawn(async move { child.wait().await });
    Ok(tokio::io::join(stdout, stdin))
}
