//! The archive of images that a daemon exports, as `docker save` writes it.
//!
//! Engines before 25 put each layer into `<id>/layer.tar`, under an id that is not its digest, and a configuration into
//! `<digest>.json`. Later ones have an OCI image layout, where both are `blobs/sha256/<digest>`; layers are not compressed
//! there either. What is what is told by its content, so the archive's own `manifest.json` is not needed.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write as _};
use std::os::unix::fs::FileExt as _;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tar::Entry;

use super::Layer;
use crate::reference::Digest;

/// More than any configuration has.
const LONGEST_CONFIG: u64 = 16 << 20;
const A_PART: usize = 128 << 10;

/// What is to be taken out of an archive.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// By the digests of their tar files (OCI image configuration, `diff_ids`).
    pub(super) layers: BTreeSet<Digest>,
    pub(super) configs: BTreeSet<Digest>,
}

/// In a file without a name.
#[derive(Debug)]
pub(super) struct Spooled {
    pub(super) file: File,
    pub(super) size: u64,
}

impl Layer for Spooled {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_block(&self, start: u64, block: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(block, start)
    }
}

#[derive(Debug)]
pub(super) enum Found {
    Layer(Spooled),
    Config(Bytes),
}

/// Tells of everything wanted as it comes. It has the digest that it is told with.
///
/// # Errors
/// When the archive is broken, or no file can be written.
pub(super) fn read(
    archive: impl Read,
    wanted: &Wanted,
    file: impl Fn() -> io::Result<File>,
    mut tell: impl FnMut(Digest, Found),
) -> io::Result<()> {
    for entry in tar::Archive::new(archive).entries()? {
        let mut entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        match Part::of(&entry.path_bytes(), wanted) {
            Part::Layer(named) => {
                let (digest, layer) = kept(&mut entry, file()?)?;
                must_be(&digest, named.as_ref())?;
                if wanted.layers.contains(&digest) {
                    tell(digest, Found::Layer(layer));
                }
            }
            Part::Config(named) => {
                let mut content = Vec::new();
                entry.by_ref().take(LONGEST_CONFIG).read_to_end(&mut content)?;
                must_be(&Digest::of(&content), Some(&named))?;
                tell(named, Found::Config(content.into()));
            }
            Part::Other => {}
        }
    }
    Ok(())
}

enum Part {
    /// With its digest, where its name tells it.
    Layer(Option<Digest>),
    Config(Digest),
    Other,
}

impl Part {
    fn of(path: &[u8], wanted: &Wanted) -> Self {
        let path = str::from_utf8(path).unwrap_or_default();
        let blob = path.strip_prefix("blobs/sha256/");
        let digest = blob
            .or(path.strip_suffix(".json"))
            .and_then(|hex| format!("sha256:{hex}").parse().ok());
        match digest {
            Some(digest) if wanted.configs.contains(&digest) => Self::Config(digest),
            Some(digest) if wanted.layers.contains(&digest) => Self::Layer(Some(digest)),
            _ if blob.is_none() && path.ends_with("/layer.tar") => Self::Layer(None),
            _ => Self::Other,
        }
    }
}

fn kept(entry: &mut Entry<'_, impl Read>, mut file: File) -> io::Result<(Digest, Spooled)> {
    let (mut hasher, mut size, mut part) = (Sha256::new(), 0, vec![0; A_PART]);
    loop {
        let read = entry.read(&mut part)?;
        if read == 0 {
            break;
        }
        hasher.update(&part[..read]);
        file.write_all(&part[..read])?;
        size += read as u64;
    }
    if size != entry.size() {
        return Err(io::Error::new(ErrorKind::UnexpectedEof, "it ends within a layer"));
    }
    Ok((Digest::finish(hasher), Spooled { file, size }))
}

fn must_be(digest: &Digest, named: Option<&Digest>) -> io::Result<()> {
    match named {
        Some(named) if named != digest => {
            let message = format!("what it calls {named} is {digest}");
            Err(io::Error::new(ErrorKind::InvalidData, message))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const CONFIG: &[u8] = b"{\"rootfs\":{}}";
    const LAYER: &[u8] = &[7; 300_000];
    const OTHER: &[u8] = b"another layer";

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            archive.append_data(&mut header, path, *content).expect("appended");
        }
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_size(0);
        archive.append_link(&mut link, "b/layer.tar", "../a/layer.tar").expect("appended");
        archive.into_inner().expect("finished")
    }

    fn wanted() -> Wanted {
        Wanted {
            layers: [Digest::of(LAYER)].into(),
            configs: [Digest::of(CONFIG)].into(),
        }
    }

    fn found(archive: &[u8]) -> io::Result<BTreeMap<Digest, Vec<u8>>> {
        let mut all = BTreeMap::new();
        read(archive, &wanted(), tempfile::tempfile, |digest, found| {
            let content = match found {
                Found::Config(content) => content.to_vec(),
                Found::Layer(layer) => {
                    let mut content = vec![0; usize::try_from(layer.size).expect("small")];
                    layer.read_block(0, &mut content).expect("read");
                    content
                }
            };
            assert_eq!(Digest::of(&content), digest);
            all.insert(digest, content);
        })?;
        Ok(all)
    }

    fn blob(content: &[u8]) -> String {
        format!("blobs/sha256/{}", Digest::of(content).hex())
    }

    #[test]
    fn both_forms_give_what_is_wanted_of_them() {
        let old = archive(&[
            ("a/VERSION", b"1.0"),
            ("a/json", b"{}"),
            ("a/layer.tar", LAYER),
            (&format!("{}.json", Digest::of(CONFIG).hex()), CONFIG),
            ("c/layer.tar", OTHER),
            ("manifest.json", b"[]"),
        ]);
        let layout = archive(&[
            (&blob(CONFIG), CONFIG),
            (&blob(OTHER), OTHER),
            (&blob(LAYER), LAYER),
            ("index.json", b"{}"),
            ("manifest.json", b"[]"),
        ]);
        let expected = BTreeMap::from([(Digest::of(LAYER), LAYER.to_vec()), (Digest::of(CONFIG), CONFIG.to_vec())]);
        for archive in [old, layout] {
            assert!(found(&archive).expect("read") == expected);
        }
    }

    #[test]
    fn other_bytes_than_the_name_says_are_refused() {
        for (name, content) in [
            (blob(LAYER), OTHER),
            (blob(CONFIG), OTHER),
            (format!("{}.json", Digest::of(CONFIG).hex()), OTHER),
        ] {
            let error = found(&archive(&[(&name, content)])).expect_err("refused");
            assert!(error.to_string().contains(Digest::of(OTHER).as_str()), "{error}");
        }
    }

    #[test]
    fn an_archive_that_ends_early_is_an_error_or_gives_less() {
        let whole = archive(&[("a/layer.tar", LAYER), (&blob(CONFIG), CONFIG)]);
        for length in (0..whole.len()).step_by(509) {
            match found(&whole[..length]) {
                Ok(found) => assert!(found.iter().all(|(digest, content)| Digest::of(content) == *digest)),
                Err(error) => assert!(
                    matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::InvalidData | ErrorKind::Other),
                    "{error:?}"
                ),
            }
        }
        assert!(found(&whole[..200_000]).is_err(), "within a layer");
    }
}
