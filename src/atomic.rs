//! Files that a reader finds as they were or as they are to be, never in part.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// # Errors
/// When the file cannot be written beside its place, or not put there.
pub fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    write_as(path, content, 0o666)
}

/// A file that a person names: links are followed, and what is no file, a pipe or a device, is written to as it is.
///
/// # Errors
/// As for [`write()`].
pub fn write_named(path: &Path, content: &[u8]) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(there) if there.is_file() && !is_of_the_system(path) => write(&fs::canonicalize(path)?, content),
        Ok(_) => OpenOptions::new().append(true).open(path)?.write_all(content),
        Err(_) => write(path, content),
    }
}

/// `/dev/stdout` may be a file, and is still not to be replaced.
fn is_of_the_system(path: &Path) -> bool {
    path.starts_with("/dev") || path.starts_with("/proc")
}

/// Whether [`write_named`] could write there.
///
/// # Errors
/// When it could not.
pub fn try_named(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(there) if there.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Ok(there) if there.is_file() && !is_of_the_system(path) => try_beside(&fs::canonicalize(path)?),
        Ok(_) => Ok(()),
        Err(_) => try_beside(path),
    }
}

fn try_beside(path: &Path) -> io::Result<()> {
    let beside = beside(path)?;
    OpenOptions::new().write(true).create_new(true).open(&beside)?;
    fs::remove_file(&beside)
}

fn beside(path: &Path) -> io::Result<PathBuf> {
    static WRITES: AtomicU64 = AtomicU64::new(0);
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(format!(".{}-{}", process::id(), WRITES.fetch_add(1, Ordering::Relaxed)));
    Ok(path.with_file_name(name))
}

/// [`write()`], so that only the owner can read it.
///
/// # Errors
/// As there.
pub fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    write_as(path, content, 0o600)
}

/// `mode`: as for `open(2)`, before the umask.
fn write_as(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let beside = beside(path)?;
    let mut options = OpenOptions::new();
    let created = options.write(true).create_new(true).mode(mode).open(&beside);
    let written = created
        .and_then(|mut file| file.write_all(content))
        .and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

/// Removes the oldest files of a folder until `most` are left. What is in the way stays.
///
/// # Errors
/// When the folder cannot be read.
pub fn keep_newest(folder: &Path, most: usize) -> io::Result<()> {
    let mut files: Vec<_> = fs::read_dir(folder)?
        .flatten()
        .map(|entry| {
            let written = entry.metadata().and_then(|metadata| metadata.modified());
            (written.unwrap_or(SystemTime::UNIX_EPOCH), entry.path())
        })
        .collect();
    files.sort();
    for (_, path) in &files[..files.len().saturating_sub(most)] {
        let _ = fs::remove_file(path);
    }
    Ok(())
}
