//! The debug variant of an image that has none of its own: its normal build plus one layer with a busybox.
//!
//! As in the debug images of distroless, the utilities are in `/busybox`, at the end of `PATH`. Nothing is run to make
//! the layer, so it is the same on every machine and for every architecture.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;
use std::str;
use std::sync::Arc;

use anyhow::{Context as _, Error};
use bollard::errors::Error as BollardError;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{
    ContainerArchiveInfoOptionsBuilder, CreateContainerOptionsBuilder, DownloadFromContainerOptionsBuilder, RemoveContainerOptionsBuilder,
};
use elf::ElfBytes;
use elf::abi::{EM_386, EM_AARCH64, EM_ARM, EM_PPC64, EM_RISCV, EM_S390, EM_X86_64, PT_INTERP};
use elf::endian::AnyEndian;
use futures_util::StreamExt;
use tar::EntryType;

use super::build::{Built, InlineBuild};
use super::{Daemon, said};
use crate::context::{self, Inline};
use crate::event::Events;
use crate::manifest::{Utilities, UtilitiesSource};
use crate::problem::{Problem, printable};
use crate::reference::{Digest, ImageName, Reference};

/// In the image's root.
const FOLDER: &str = "busybox";
const ARCHIVE: &str = "utilities.tar";
/// Where images keep their busybox.
const PLACES: [&str; 3] = ["/bin/busybox", "/busybox/busybox", "/busybox"];
const MAX_BYTES: u64 = 32 << 20;
/// What a container has as `PATH` where its image says nothing (moby, `pkg/system`).
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The beginning of busybox' table of applets, which is sorted and parted by NUL.
const APPLETS_BEGIN: &[u8] = b"\0[\0[[\0";

/// An image that gets utilities.
#[derive(Clone, Copy, Debug)]
pub struct Addition<'a> {
    pub image: &'a ImageName,
    /// Its normal build.
    pub normal: &'a Digest,
    pub busybox: &'a Busybox,
    pub platform: &'a str,
    /// What the debug variant is called in the daemon.
    pub reference: &'a Reference,
}

/// A static busybox, checked.
#[derive(Clone, Debug)]
pub struct Busybox {
    binary: Arc<Vec<u8>>,
    applets: Arc<BTreeSet<String>>,
}

impl Busybox {
    /// The busybox at a path of the manifest; `None` where the utilities are an image, which only a daemon can open.
    ///
    /// # Errors
    /// When it is not there, or not a static busybox for `platform`.
    pub fn from_manifest(utilities: &Utilities, platform: &str) -> Result<Option<Self>, Problem> {
        let UtilitiesSource::Path(path) = &utilities.source else {
            return Ok(None);
        };
        let unusable = |why: String| {
            Problem::usage(format!("{}: the utilities {} {why}", utilities.place, printable(&path.display().to_string())))
                .hint("`debug: { utilities: ... }` is the path of a static busybox (Debian's package busybox-static has one at /bin/busybox), or an image that holds one")
        };
        let binary = read(path).map_err(|error| unusable(format!("cannot be read: {error}")))?;
        Self::check(binary, platform).map(Some).map_err(unusable)
    }

    fn check(binary: Vec<u8>, platform: &str) -> Result<Self, String> {
        check_elf(&binary, platform)?;
        let applets = applets(&binary).ok_or("are no busybox: there is no table of applets in it")?;
        Ok(Self {
            binary: Arc::new(binary),
            applets: Arc::new(applets),
        })
    }

    fn archive(&self) -> Result<Vec<u8>, Error> {
        let entry = |path: String, content: &[u8], mode, kind| Inline {
            path,
            content: content.to_vec(),
            mode,
            kind,
        };
        let mut files = vec![
            entry(FOLDER.to_owned(), b"", 0o755, EntryType::Directory),
            entry(format!("{FOLDER}/busybox"), &self.binary, 0o755, EntryType::Regular),
        ];
        let applets = self.applets.iter().filter(|applet| *applet != "busybox");
        files.extend(applets.map(|applet| entry(format!("{FOLDER}/{applet}"), b"busybox", 0o777, EntryType::Symlink)));
        context::archive(&files)
    }
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut binary = Vec::new();
    std::fs::File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut binary)?;
    if binary.len() as u64 > MAX_BYTES {
        return Err(std::io::Error::other("it is too large for a busybox"));
    }
    Ok(binary)
}

fn check_elf(binary: &[u8], platform: &str) -> Result<(), String> {
    let architecture = platform.split('/').nth(1).unwrap_or_default();
    let machine = match architecture {
        "amd64" => EM_X86_64,
        "386" => EM_386,
        "arm64" => EM_AARCH64,
        "arm" => EM_ARM,
        "ppc64le" => EM_PPC64,
        "riscv64" => EM_RISCV,
        "s390x" => EM_S390,
        other => return Err(format!("cannot be checked for the architecture `{}`", printable(other))),
    };
    let file = ElfBytes::<AnyEndian>::minimal_parse(binary).map_err(|_| "are not a Linux program".to_owned())?;
    if file.ehdr.e_machine != machine {
        return Err(format!("are a program for another architecture than {architecture}"));
    }
    let segments = file.segments().ok_or("are not a Linux program")?;
    if segments.iter().any(|segment| segment.p_type == PT_INTERP) {
        return Err("are not linked statically, so they would not run in an image without a C library".to_owned());
    }
    Ok(())
}

fn applets(binary: &[u8]) -> Option<BTreeSet<String>> {
    let begin = binary.windows(APPLETS_BEGIN.len()).position(|window| window == APPLETS_BEGIN)?;
    let table = &binary[begin + 1..];
    let names = table.split(|byte| *byte == 0).take_while(|name| !name.is_empty());
    let names: BTreeSet<_> = names
        .map(|name| str::from_utf8(name).ok().filter(|name| is_applet(name)).map(str::to_owned))
        .collect::<Option<_>>()?;
    names.contains("sh").then_some(names)
}

fn is_applet(name: &str) -> bool {
    name.len() <= 32 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"[_-.".contains(&byte))
}

impl Daemon {
    /// The busybox of the manifest, fetched out of an image where that is its source.
    ///
    /// # Errors
    /// When it cannot be had, or is not a static busybox for `platform`.
    pub async fn busybox(&self, utilities: &Utilities, platform: &str) -> Result<Busybox, Error> {
        if let Some(busybox) = Busybox::from_manifest(utilities, platform)? {
            return Ok(busybox);
        }
        let UtilitiesSource::Image(image) = &utilities.source else {
            unreachable!("a path was read above")
        };
        let unusable = |why: String| {
            Problem::failed(format!("{}: the utilities in the image `{}` {why}", utilities.place, printable(image)))
                .hint("name an image that can be pulled here, or the path of a static busybox (Debian's package busybox-static has one at /bin/busybox): `debug: { utilities: ... }`")
        };
        if self.docker.inspect_image(image).await.is_err() {
            self.pull(image, platform)
                .await
                .map_err(|error| unusable(format!("cannot be had: {error:#}")))?;
        }
        let container = self.container(image).await?;
        let binary = self.binary_in(&container).await;
        self.remove(&container).await?;
        let binary = binary?.ok_or_else(|| unusable(format!("hold no busybox (looked for {})", PLACES.join(", "))))?;
        Busybox::check(binary, platform).map_err(|why| unusable(why).into())
    }

    /// # Errors
    /// When the image has a `/busybox` of its own, or triggers that the build would set off.
    pub async fn add_utilities(&self, addition: Addition<'_>, step: &str, events: &Events) -> Result<Built, Error> {
        let normal = addition.normal;
        let image = self.docker.inspect_image(normal.as_str()).await.map_err(said)?;
        let config = image.config.unwrap_or_default();
        if config.on_build.is_some_and(|triggers| !triggers.is_empty()) {
            return Err(own_keys("the image has ONBUILD instructions, which adding the utilities would carry out").into());
        }
        if self.has_folder(normal).await? {
            return Err(own_keys(&format!("the image has a /{FOLDER} of its own, where the utilities would go")).into());
        }
        let own_path = config
            .env
            .unwrap_or_default()
            .into_iter()
            .find_map(|variable| variable.strip_prefix("PATH=").map(str::to_owned));
        let path = quoted(own_path.as_deref().unwrap_or(DEFAULT_PATH));
        let from = self.sibling_name(addition.image, normal).await?;
        // a tar that is unpacked keeps the time of every folder; BuildKit's COPY gives them that of the build
        let dockerfile = format!("FROM {from}\nADD {ARCHIVE} /\nENV PATH=\"{path}:/{FOLDER}\"\n");
        let build = InlineBuild {
            dockerfile: &dockerfile,
            files: &[Inline::file(ARCHIVE, &addition.busybox.archive()?, 0o644)],
            platform: addition.platform,
            reference: addition.reference,
        };
        self.build_inline(build, step, events).await
    }

    async fn has_folder(&self, image: &Digest) -> Result<bool, Error> {
        let container = self.container(image.as_str()).await?;
        let options = ContainerArchiveInfoOptionsBuilder::default().path(&format!("/{FOLDER}")).build();
        let found = self.docker.get_container_archive_info(&container, Some(options)).await;
        self.remove(&container).await?;
        match found {
            Ok(_) => Ok(true),
            Err(BollardError::DockerResponseServerError { status_code: 404, .. }) => Ok(false),
            Err(error) => Err(said(error)).context("looking into the image"),
        }
    }

    /// A container that is never started: only its files are looked at.
    async fn container(&self, image: &str) -> Result<String, Error> {
        let body = ContainerCreateBody {
            image: Some(image.to_owned()),
            cmd: Some(vec!["/never-run".to_owned()]),
            ..ContainerCreateBody::default()
        };
        let created = self
            .docker
            .create_container(Some(CreateContainerOptionsBuilder::default().build()), body)
            .await;
        Ok(created.map_err(said).context("looking into the image")?.id)
    }

    async fn remove(&self, container: &str) -> Result<(), Error> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        self.docker.remove_container(container, Some(options)).await.map_err(said)
    }

    async fn binary_in(&self, container: &str) -> Result<Option<Vec<u8>>, Error> {
        for place in PLACES {
            let options = DownloadFromContainerOptionsBuilder::default().path(place).build();
            let mut chunks = self.docker.download_from_container(container, Some(options));
            let mut archive = Vec::new();
            while let Some(Ok(chunk)) = chunks.next().await {
                archive.extend_from_slice(&chunk);
                if archive.len() as u64 > MAX_BYTES {
                    break;
                }
            }
            if let Some(binary) = only_file(&archive) {
                return Ok(Some(binary));
            }
        }
        Ok(None)
    }
}

/// The content of the one regular file of a tar.
fn only_file(archive: &[u8]) -> Option<Vec<u8>> {
    let mut archive = tar::Archive::new(archive);
    let mut entry = archive.entries().ok()?.next()?.ok()?;
    if entry.header().entry_type() != EntryType::Regular {
        return None;
    }
    let mut content = Vec::new();
    entry.read_to_end(&mut content).ok()?;
    Some(content)
}

fn own_keys(why: &str) -> Problem {
    Problem::failed(why).hint("give the image `debug:` keys of its own in the manifest, for instance `debug: { target: debug }`")
}

/// `text` within double quotes of a Dockerfile.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '\\' | '"' | '$') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn applets_are_read_from_the_table() {
        let mut binary = b"xx\0[\0[[\0ash\0cat\0sh\0\0yy".to_vec();
        assert_eq!(
            applets(&binary).expect("found").into_iter().collect::<Vec<_>>(),
            ["[", "[[", "ash", "cat", "sh"]
        );
        binary.extend(b"\0");
        assert!(applets(b"\0[\0[[\0cat\0\0").is_none(), "no shell");
        assert!(applets(b"\0[\0[[\0../x\0sh\0\0").is_none(), "no name of an applet");
        assert!(applets(b"nothing").is_none());
    }

    #[test]
    fn what_is_no_program_is_refused() {
        assert!(
            check_elf(b"#!/bin/sh\n", "linux/amd64")
                .expect_err("refused")
                .contains("not a Linux program")
        );
    }

    #[test]
    fn quoting() {
        assert_eq!(quoted(r#"/a:$B:"c\"#), r#"/a:\$B:\"c\\"#);
    }
}
