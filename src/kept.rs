//! What is kept from run to run as JSON: whole, of the format and about the subject that are asked for, or nothing.
//!
//! A file has three lines: its format, a checksum, and the value. Only its owner can read it.

use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::atomic;

/// `longest`: in bytes. More than that counts as nothing too.
#[must_use]
pub fn read<T: DeserializeOwned>(file: &Path, format: &str, subject: &str, longest: u64) -> Option<T> {
    if fs::metadata(file).ok()?.len() > longest {
        return None;
    }
    let text = fs::read_to_string(file).ok()?;
    let (sum, value) = text.strip_prefix(format)?.strip_prefix('\n')?.split_once('\n')?;
    (sum == checksum(format, subject, value)).then(|| serde_json::from_str(value).ok())?
}

/// # Errors
/// When the file cannot be written.
pub fn write<T: Serialize>(file: &Path, format: &str, subject: &str, value: &T) -> io::Result<()> {
    let value = serde_json::to_string(value)?;
    fs::create_dir_all(file.parent().ok_or(io::ErrorKind::InvalidInput)?)?;
    let content = format!("{format}\n{}\n{value}", checksum(format, subject, &value));
    atomic::write_private(file, content.as_bytes())
}

fn checksum(format: &str, subject: &str, value: &str) -> String {
    blake3::hash(format!("{format}\n{subject}\n{value}").as_bytes()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    const FORMAT: &str = "kept-1";

    #[test]
    fn what_is_torn_changed_or_foreign_counts_as_nothing() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("folder/file");
        let found = |subject: &str, longest| read::<Vec<String>>(&file, FORMAT, subject, longest);
        assert_eq!(found("a", 100), None);
        let value = vec!["one".to_owned()];
        write(&file, FORMAT, "a", &value).expect("written");
        assert_eq!(fs::metadata(&file).expect("there").mode() & 0o777, 0o600);
        assert_eq!((found("a", 100), found("b", 100), found("a", 10)), (Some(value), None, None));
        assert_eq!(read::<u8>(&file, FORMAT, "a", 100), None);
        assert_eq!(read::<Vec<String>>(&file, "kept-2", "a", 100), None);
        let whole = fs::read(&file).expect("read");
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            for content in [&changed, &whole[..at]] {
                fs::write(&file, content).expect("written");
                assert_eq!(found("a", 100), None, "byte {at}");
            }
        }
    }
}
