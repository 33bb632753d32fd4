//! Two runs on one machine that write to one channel take turns.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::Path;
use std::time::Duration;

use crate::problem::printable;

const FOLDER: &str = "locks";
const RETRY: Duration = Duration::from_millis(50);

/// Held until it is dropped; the system lets go of it when the process dies, however it dies.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "open files hold the lock")] Vec<File>);

/// Takes the locks of all `channels` (their addresses), in the order of the names, so that no two runs wait for each other.
/// `holder` is who waits and will hold; `waiting` is told once for whom.
///
/// # Errors
/// When the lock files below `cache` cannot be made.
pub async fn take(cache: &Path, channels: &[String], holder: &str, waiting: impl Fn(&str, &str)) -> io::Result<Lock> {
    let folder = cache.join(FOLDER);
    fs::create_dir_all(&folder)?;
    let mut channels: Vec<&String> = channels.iter().collect();
    channels.sort_unstable();
    let mut held = Vec::new();
    for channel in channels {
        // `+` is in no address
        let path = folder.join(channel.replace('/', "+"));
        let mut file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) => {
                    if !told {
                        waiting(channel, &named(&mut file));
                        told = true;
                    }
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(holder.as_bytes())?;
        held.push(file);
    }
    Ok(Lock(held))
}

fn named(file: &mut File) -> String {
    let mut holder = String::new();
    let _ = file.rewind().and_then(|()| file.take(200).read_to_string(&mut holder));
    if holder.is_empty() {
        "another run".to_owned()
    } else {
        printable(&holder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[tokio::test]
    async fn the_second_waits_for_the_first_and_says_so() {
        let cache = tempfile::tempdir().expect("a folder");
        let channels = ["h/b".to_owned(), "h/a".to_owned()];
        let first = take(cache.path(), &channels, "process 1", |_, _| panic!("nobody holds it"))
            .await
            .expect("taken");
        let told = Mutex::new(Vec::new());
        let second = take(cache.path(), &channels[..1], "process 2", |channel, holder| {
            told.lock().expect("not poisoned").push(format!("{channel} {holder}"));
        });
        let mut second = Box::pin(second);
        let early = tokio::time::timeout(RETRY * 3, &mut second).await;
        assert!(early.is_err(), "it is held");
        drop(first);
        second.await.expect("taken");
        assert_eq!(*told.lock().expect("not poisoned"), ["h/b process 1"]);
    }
}
