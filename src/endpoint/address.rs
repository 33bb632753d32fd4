//! A daemon's address, as `DOCKER_HOST` and the contexts write it.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

use crate::problem::HIDDEN;

pub(super) const DEFAULT_SOCKET: &str = "/var/run/docker.sock";
pub(super) const DEFAULT_HOST: &str = "localhost";

/// An address in `DOCKER_HOST`'s notation, which `Display` gives back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `unix://PATH`
    Unix(PathBuf),
    /// `tcp://HOST:PORT`
    Tcp {
        /// A name or an IP address, without brackets.
        host: String,
        /// 2375 where none is written, 2376 with TLS: the ports that IANA gave Docker.
        port: u16,
    },
    /// `ssh://[USER@]HOST[:PORT][/SOCKET]`; what is not written is left to ssh and to `docker` over there.
    Ssh {
        /// It begins with no `-`.
        user: Option<String>,
        /// A name, one of ssh's configuration too, or an IP address, without brackets. It begins with no `-`.
        host: String,
        port: Option<u16>,
        /// The daemon's socket over there.
        socket: Option<String>,
    },
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { host, port } => write!(f, "tcp://{}:{port}", bracketed(host)),
            Self::Ssh { user, host, port, socket } => {
                f.write_str("ssh://")?;
                user.iter().try_for_each(|user| write!(f, "{user}@"))?;
                f.write_str(&bracketed(host))?;
                port.iter().try_for_each(|port| write!(f, ":{port}"))?;
                f.write_str(socket.as_deref().unwrap_or_default())
            }
        }
    }
}

fn bracketed(host: &str) -> Cow<'_, str> {
    if host.contains(':') {
        format!("[{host}]").into()
    } else {
        host.into()
    }
}

pub(super) fn default_port(with_tls: bool) -> u16 {
    if with_tls { 2376 } else { 2375 }
}

/// An address that is refused may have been refused for the password in it.
pub(super) fn without_userinfo(address: &str) -> String {
    match address.rsplit_once('@') {
        Some((before, host)) => {
            let scheme = before.split_once("://").map_or("", |(scheme, _)| scheme);
            format!("{scheme}://{HIDDEN}@{host}")
        }
        None => address.to_owned(),
    }
}

/// Reads an address as docker/cli's `opts/hosts.go` does, except that a path behind `tcp://` and a
/// port above 65535 are refused.
pub(crate) fn parse_address(text: &str, default_port: u16) -> Result<Address, String> {
    if text.contains(|c: char| c.is_control()) {
        return Err("it has a control character".to_owned());
    }
    let (scheme, rest) = text.split_once("://").unwrap_or(("tcp", text));
    if rest.contains("://") {
        return Err("it has two schemes".to_owned());
    }
    match scheme {
        "unix" if rest.is_empty() => Ok(Address::Unix(DEFAULT_SOCKET.into())),
        "unix" => Ok(Address::Unix(rest.into())),
        "tcp" if text.starts_with('/') => Err(format!("a socket is written unix://{text}")),
        "tcp" => parse_tcp(rest, default_port),
        "ssh" => parse_ssh(rest),
        "fd" => Err("only a daemon can listen there".to_owned()),
        "npipe" => Err("named pipes are of Windows".to_owned()),
        scheme => Err(format!("`{scheme}` is none of unix, tcp and ssh")),
    }
}

fn parse_tcp(rest: &str, default_port: u16) -> Result<Address, String> {
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#', '@']) {
        return Err("behind tcp:// come a host and a port, nothing else".to_owned());
    }
    let (host, port) = split_host_port(authority)?;
    Ok(Address::Tcp {
        host: if host.is_empty() { DEFAULT_HOST } else { host }.to_owned(),
        port: port.unwrap_or(default_port),
    })
}

fn parse_ssh(rest: &str) -> Result<Address, String> {
    if rest.contains(['?', '#']) {
        return Err("ssh:// takes no query and no fragment".to_owned());
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (user, host_port) = authority.rsplit_once('@').unwrap_or(("", authority));
    if user.contains(':') {
        return Err("ssh:// takes no password".to_owned());
    }
    let (host, port) = split_host_port(host_port)?;
    if host.is_empty() {
        return Err("there is no host".to_owned());
    }
    // ssh would take it for an option
    if user.starts_with('-') || host.starts_with('-') {
        return Err("neither user nor host can begin with `-`".to_owned());
    }
    let written = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    Ok(Address::Ssh {
        user: written(user),
        host: host.to_owned(),
        port,
        socket: written(path.trim_end_matches('/')),
    })
}

fn split_host_port(authority: &str) -> Result<(&str, Option<u16>), String> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(bracketed) => bracketed
            .split_once(']')
            .filter(|(host, _)| host.contains(':'))
            .ok_or("an IPv6 address is written [::1]")?,
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let in_host = |c: char| c.is_alphanumeric() || ".-_:%".contains(c);
    if let Some(stranger) = host.chars().find(|c| !in_host(*c)) {
        return Err(format!("a host has no `{stranger}`"));
    }
    match port.strip_prefix(':') {
        None if port.is_empty() => Ok((host, None)),
        Some("") => Ok((host, None)),
        Some(port) if port.contains(':') => Err("an IPv6 address is written [::1]".to_owned()),
        Some(number) => match number.parse() {
            Ok(number) => Ok((host, Some(number))),
            Err(_) => Err(format!("`{number}` is no port")),
        },
        None => Err(format!("`{port}` is no port")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_are_read_as_docker_reads_them() {
        for (text, address) in [
            ("tcp://", "tcp://localhost:2375"),
            ("tcp://:7777", "tcp://localhost:7777"),
            ("tcp://host:", "tcp://host:2375"),
            ("tcp://0.0.0.0:8080", "tcp://0.0.0.0:8080"),
            ("tcp://[::1]", "tcp://[::1]:2375"),
            ("tcp://[::1]:", "tcp://[::1]:2375"),
            ("tcp://[fe80::1%eth0]:1", "tcp://[fe80::1%eth0]:1"),
            ("tcp://host:1/", "tcp://host:1"),
            ("localhost:5555", "tcp://localhost:5555"),
            (":6666", "tcp://localhost:6666"),
            ("unix://", "unix:///var/run/docker.sock"),
            ("unix:///run/a b.sock", "unix:///run/a b.sock"),
            ("unix://path/to/socket", "unix://path/to/socket"),
            ("ssh://host", "ssh://host"),
            ("ssh://host/", "ssh://host"),
            ("ssh://@[::1]:", "ssh://[::1]"),
            ("ssh://me@host:22/run/docker.sock", "ssh://me@host:22/run/docker.sock"),
        ] {
            let parsed = parse_address(text, 2375).map(|address| address.to_string());
            assert_eq!(parsed.as_deref(), Ok(address), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_an_address_displays_reads_as_the_same_address(text in "(unix://|tcp://|ssh://)?[a-z0-9.:/@\\[\\]-]{0,20}") {
            if let Ok(address) = parse_address(&text, 2375) {
                prop_assert_eq!(parse_address(&address.to_string(), 2376), Ok(address));
            }
        }
    }
}
