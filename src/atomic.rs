//! Files that a reader finds as they were or as they are to be, never in part.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::process;

/// # Errors
/// When the file cannot be written beside its place, or not put there.
pub fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(format!(".{}", process::id()));
    let beside = path.with_file_name(name);
    let written = File::create(&beside)
        .and_then(|mut file| file.write_all(content))
        .and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}
