//! Stands before a real daemon or registry and lets everything through, but for one fault.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;

const INTERNAL_SERVER_ERROR: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// A registry that answers 500 to requests that begin so.
pub fn failing_registry(registry: &str, request: &'static [u8]) -> String {
    faulty_registry(registry, request.to_owned(), |client| {
        let _ = client.write_all(INTERNAL_SERVER_ERROR);
    })
}

/// A registry that never answers requests that begin so, and tells of them.
pub fn silent_registry(registry: &str, request: String) -> (String, Receiver<()>) {
    let (tell, asked) = mpsc::channel();
    let host = faulty_registry(registry, request.into_bytes(), move |_| {
        let _ = tell.send(());
        loop {
            thread::park();
        }
    });
    (host, asked)
}

fn faulty_registry(registry: &str, request: Vec<u8>, fail: impl Fn(&mut TcpStream) + Clone + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let host = listener.local_addr().expect("an address").to_string();
    let registry = registry.to_owned();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(&registry).expect("the registry answers");
            let (mut from_client, mut to_server) = (client.try_clone().expect("cloned"), server.try_clone().expect("cloned"));
            let (request, fail) = (request.clone(), fail.clone());
            thread::spawn(move || {
                if pass(&mut from_client, &mut to_server, |sent| sent.starts_with(&request)) {
                    fail(&mut from_client);
                }
                let _ = to_server.shutdown(Shutdown::Both);
            });
            thread::spawn(move || pass(&mut { server }, &mut { client }, |_| false));
        }
    });
    host
}

/// A daemon that stops at one request, tells of it, and goes on when it may.
pub struct StoppingDaemon {
    pub address: String,
    pub stopped: Receiver<()>,
    pub go_on: Sender<()>,
}

impl StoppingDaemon {
    /// `daemon` is the path of its socket, `request` a part of the request's first line.
    pub fn start(daemon: PathBuf, socket: &Path, request: &'static str) -> Self {
        let listener = UnixListener::bind(socket).expect("bound");
        let ((tell, stopped), (go_on, may_go_on)) = (mpsc::channel(), mpsc::channel::<()>());
        let may_go_on = Arc::new(Mutex::new(may_go_on));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let server = UnixStream::connect(&daemon).expect("the daemon answers");
                let (mut from_client, mut to_server) = (client.try_clone().expect("cloned"), server.try_clone().expect("cloned"));
                let (tell, may_go_on) = (tell.clone(), Arc::clone(&may_go_on));
                thread::spawn(move || {
                    pass(&mut from_client, &mut to_server, |data| {
                        let line = data.split(|byte| *byte == b'\r').next().unwrap_or_default();
                        if String::from_utf8_lossy(line).contains(request) {
                            let _ = tell.send(());
                            let _ = may_go_on.lock().expect("locked").recv();
                        }
                        false
                    });
                    let _ = to_server.shutdown(Shutdown::Write);
                });
                thread::spawn(move || {
                    let mut client = client;
                    pass(&mut { server }, &mut client, |_| false);
                    let _ = client.shutdown(Shutdown::Write);
                });
            }
        });
        let address = format!("unix://{}", socket.display());
        Self { address, stopped, go_on }
    }
}

/// A proxy that connects whoever asks for anything to `server`, and tells what it was asked.
pub fn tunnel(server: &str) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let host = listener.local_addr().expect("an address").to_string();
    let (server, (tell, asked)) = (server.to_owned(), mpsc::channel());
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                client.read_exact(&mut byte).expect("a request");
                head.extend(byte);
            }
            let _ = tell.send(String::from_utf8(head).expect("text"));
            client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").expect("written");
            let server = TcpStream::connect(&server).expect("the server answers");
            let (mut from_client, mut to_server) = (client.try_clone().expect("cloned"), server.try_clone().expect("cloned"));
            thread::spawn(move || {
                pass(&mut from_client, &mut to_server, |_| false);
                let _ = to_server.shutdown(Shutdown::Write);
            });
            thread::spawn(move || {
                pass(&mut { server }, &mut client, |_| false);
                let _ = client.shutdown(Shutdown::Write);
            });
        }
    });
    (host, asked)
}

/// Until one side ends, or what came is a fault, which is told.
fn pass(from: &mut impl Read, to: &mut impl Write, is_fault: impl Fn(&[u8]) -> bool) -> bool {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut buffer).unwrap_or(0);
        if read > 0 && is_fault(&buffer[..read]) {
            return true;
        }
        if read == 0 || to.write_all(&buffer[..read]).is_err() {
            return false;
        }
    }
}
