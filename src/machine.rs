//! This machine: its host name, a random one that tells it from others, made at the first use and kept in the cache, and its
//! cores.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;
use std::thread;

use crate::atomic;
use crate::problem::printable;
use crate::reference::Digest;

const FILE: &str = "machine-id";
const DIGITS: usize = 32;

/// Without a cache that can be written, one for this run alone.
#[must_use]
pub fn id(cache: Option<&Path>) -> String {
    cache.and_then(kept).unwrap_or_else(random)
}

/// 32 hex digits that nobody else has.
#[must_use]
pub fn random() -> String {
    let mut bytes = [0; DIGITS / 2];
    getrandom::fill(&mut bytes).expect("the system gives random bytes");
    format!("{:032x}", u128::from_le_bytes(bytes))
}

/// How many threads can run at once. To ask for it takes several system calls.
#[must_use]
pub fn cores() -> usize {
    static CORES: LazyLock<usize> = LazyLock::new(|| thread::available_parallelism().map_or(1, usize::from));
    *CORES
}

/// What the machine calls itself.
#[must_use]
pub fn host() -> String {
    printable(&rustix::system::uname().nodename().to_string_lossy())
}

/// One value for all processes that see each other by their numbers: of this boot of the kernel, in this PID namespace (proc(5),
/// `/proc/sys/kernel/random/boot_id`; namespaces(7)). None where the system tells no such thing.
#[must_use]
pub fn pids() -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = fs::read_link("/proc/self/ns/pid").ok()?;
    let both = format!("{} {}", boot.trim(), namespace.display());
    Some(Digest::of(both.as_bytes()).short().to_owned())
}

fn kept(cache: &Path) -> Option<String> {
    let path = cache.join(FILE);
    read(&path).or_else(|| {
        fs::create_dir_all(cache).ok()?;
        atomic::write(&path, random().as_bytes()).ok()?;
        read(&path)
    })
}

fn read(path: &Path) -> Option<String> {
    let id = fs::read_to_string(path).ok()?;
    (id.len() == DIGITS && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_and_a_torn_one_is_made_anew() {
        let cache = tempfile::tempdir().expect("a folder");
        let first = id(Some(cache.path()));
        assert_eq!(id(Some(cache.path())), first);
        fs::write(cache.path().join(FILE), &first[..7]).expect("written");
        let second = id(Some(cache.path()));
        assert_ne!(second, first);
        assert_eq!(id(Some(cache.path())), second);
        assert_ne!(id(None), id(None));
    }
}
