//! The debug variant of an image that has none of its own: its normal build plus one layer with a busybox.
//!
//! As in the debug images of distroless, the utilities are in `/busybox`, at the end of `PATH`. Nothing is run to make
//! the layer, so it is the same on every machine and for every architecture.

mod config;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;
use std::slice;
use std::str;
use std::sync::{Arc, OnceLock};

use anyhow::Error;
use bytes::Bytes;
use elf::ElfBytes;
use elf::abi::{EM_386, EM_AARCH64, EM_ARM, EM_PPC64, EM_RISCV, EM_S390, EM_X86_64, PT_INTERP};
use elf::endian::AnyEndian;
use memchr::memmem;
use tar::EntryType;

use super::Daemon;
use super::build::{Builder, again_if_lost};
use super::buildkit::{BuildKit, Export, Look, Upon};
use super::push::Pusher;
use super::recipe::{Built, InlineBuild, Made, Names, Sibling};
use crate::context::{self, Inline};
use crate::dockerfile::Reads;
use crate::event::Events;
use crate::manifest::{Utilities, UtilitiesSource};
use crate::plan::OWN_KEYS;
use crate::problem::{Problem, printable};
use crate::reference::ImageName;

/// In the image's root.
pub(super) const FOLDER: &str = "busybox";
/// The stage of the normal build, in a Dockerfile of ours.
const NORMAL: &str = "normal";
/// As a frontend calls the steps of [`Unpacked::InAStage`].
const STEPS: [&str; 4] = [
    "[normal 1/1] FROM the normal image",
    "[internal] load build context",
    "[utilities 1/1] ADD utilities.tar /",
    "[debug 1/1] COPY --from=utilities / /",
];
/// Where images keep their busybox.
pub(super) const PLACES: [&str; 4] = ["/bin/busybox", "/usr/bin/busybox", "/busybox/busybox", "/busybox"];
pub(super) const MAX_BYTES: usize = 32 << 20;
/// What a container has as `PATH` where its image says nothing (moby, `pkg/system`).
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The beginning of busybox' table of applets, which is sorted and parted by NUL.
const APPLETS_BEGIN: &[u8] = b"\0[\0[[\0";

/// An image that gets utilities.
#[derive(Clone, Copy, Debug)]
pub struct Addition<'a> {
    pub image: &'a ImageName,
    /// Its normal build.
    pub normal: &'a Sibling,
    /// By platform.
    pub utilities: &'a BTreeMap<String, Busybox>,
    pub platforms: &'a [String],
    /// The `SOURCE_DATE_EPOCH` of its normal build.
    pub epoch: Option<&'a str>,
    /// What the debug variant is called.
    pub names: Names<'a>,
    /// As [`super::Recipe::is_below_copies`].
    pub is_below_copies: bool,
}

/// A static busybox, checked.
#[derive(Clone, Debug)]
pub struct Busybox {
    binary: Arc<Vec<u8>>,
    applets: Arc<BTreeSet<String>>,
    /// Made when it is first asked for.
    archive: Arc<OnceLock<Bytes>>,
}

impl Busybox {
    /// The busybox at a path of the manifest; `None` where the utilities are an image, which only a daemon can open.
    ///
    /// # Errors
    /// When it is not there, or not a static busybox for `platform`.
    pub fn from_manifest(utilities: &Utilities, platform: &str) -> Result<Option<Self>, Problem> {
        match &utilities.source {
            UtilitiesSource::Path(path) => Self::from_path(path, &utilities.place, platform).map(Some),
            UtilitiesSource::Image(_) => Ok(None),
        }
    }

    /// The busybox at `path`, which the manifest names at `place`.
    ///
    /// # Errors
    /// As [`Self::from_manifest`].
    pub fn from_path(path: &Path, place: &str, platform: &str) -> Result<Self, Problem> {
        let unusable = |why: String| {
            Problem::usage(format!("{place}: the utilities {} {why}", printable(&path.display().to_string())))
                .hint("`debug: { utilities: ... }` is the path of a static busybox (Debian's package busybox-static has one at /bin/busybox), or an image that holds one")
        };
        let binary = read(path).map_err(|error| unusable(format!("cannot be read: {error}")))?;
        Self::check(binary, platform).map_err(unusable)
    }

    /// The busybox of the manifest, by way of `binary_of(image)` where an image holds it.
    pub(super) async fn of(
        utilities: &Utilities,
        platform: &str,
        binary_of: impl AsyncFnOnce(&str) -> Result<Option<Vec<u8>>, Error>,
    ) -> Result<Self, Error> {
        if let Some(busybox) = Self::from_manifest(utilities, platform)? {
            return Ok(busybox);
        }
        let UtilitiesSource::Image(image) = &utilities.source else {
            unreachable!("a path was read above")
        };
        let unusable = |why: String| {
            Problem::failed(format!("{}: the utilities in the image `{}` {why}", utilities.place, printable(image)))
                .hint("name an image that can be pulled here, or the path of a static busybox (Debian's package busybox-static has one at /bin/busybox): `debug: { utilities: ... }`")
        };
        let binary = binary_of(image)
            .await
            .map_err(|error| unusable(format!("cannot be had: {error:#}")))?;
        let binary = binary.ok_or_else(|| unusable(format!("hold no busybox (looked for {})", PLACES.join(", "))))?;
        Self::check(binary, platform).map_err(|why| unusable(why).into())
    }

    fn check(binary: Vec<u8>, platform: &str) -> Result<Self, String> {
        check_elf(&binary, platform)?;
        let applets = applets(&binary).ok_or("are no busybox: there is no table of applets in it")?;
        Ok(Self {
            binary: Arc::new(binary),
            applets: Arc::new(applets),
            archive: Arc::default(),
        })
    }

    #[must_use]
    pub fn binary(&self) -> &[u8] {
        &self.binary
    }

    fn archive(&self) -> Result<Bytes, Error> {
        if let Some(archive) = self.archive.get() {
            return Ok(archive.clone());
        }
        let entry = |path: String, content: &[u8], mode, kind| Inline {
            path,
            content: Bytes::copy_from_slice(content),
            mode,
            kind,
        };
        let mut files = vec![
            entry(FOLDER.to_owned(), b"", 0o755, EntryType::Directory),
            entry(format!("{FOLDER}/busybox"), &self.binary, 0o755, EntryType::Regular),
        ];
        let applets = self.applets.iter().filter(|applet| *applet != "busybox");
        files.extend(applets.map(|applet| entry(format!("{FOLDER}/{applet}"), b"busybox", 0o777, EntryType::Symlink)));
        let archive = context::archive(&files)?.into();
        Ok(self.archive.get_or_init(|| archive).clone())
    }
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut binary = Vec::new();
    std::fs::File::open(path)?.take(MAX_BYTES as u64 + 1).read_to_end(&mut binary)?;
    if binary.len() > MAX_BYTES {
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
    let begin = memmem::find(binary, APPLETS_BEGIN)?;
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

/// Where the archive of the utilities is unpacked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unpacked {
    InTheImage,
    /// By itself, once for all images, which have the layer as it is.
    Linked,
    /// By itself, once for all images, and copied from there: to unpack anything, Docker 20.10 starts a process of its own.
    InAStage,
}

/// Adds the utilities to the image of this name. `PATH` is the image's own with one entry more.
///
/// A tar that is unpacked keeps the time of every folder; what BuildKit is sent as a folder gets that of the build.
fn dockerfile(normal: &str, platforms: &[String], unpacked: Unpacked) -> String {
    let (declared, archive) = match platforms {
        [one] => ("", archive(one)),
        // BuildKit fills them in for each
        _ => (
            "ARG TARGETARCH TARGETVARIANT\n",
            "utilities-${TARGETARCH}${TARGETVARIANT}.tar".to_owned(),
        ),
    };
    let (before, layer) = match unpacked {
        Unpacked::InTheImage => (String::new(), format!("{declared}ADD {archive} /")),
        Unpacked::Linked => (String::new(), format!("{declared}ADD --link {archive} /")),
        Unpacked::InAStage => (
            format!("FROM scratch AS utilities\n{declared}ADD {archive} /\n"),
            "COPY --from=utilities / /".to_owned(),
        ),
    };
    format!("{before}FROM {normal} AS {NORMAL}\nFROM {NORMAL} AS debug\n{layer}\nENV PATH=\"${{PATH:-{DEFAULT_PATH}}}:/{FOLDER}\"\n")
}

fn archive(platform: &str) -> String {
    let parts: String = platform.split('/').skip(1).collect();
    format!("utilities-{parts}.tar")
}

impl<'a> Addition<'a> {
    pub(super) fn dockerfile(&self, unpacked: Unpacked) -> String {
        dockerfile(&self.normal.name, self.platforms, unpacked)
    }

    /// What [`Unpacked::InAStage`] comes to, where nothing has to be looked at or told for it, and the image is there by its name.
    fn upon(&self, files: &[Inline]) -> Option<Upon> {
        let ([archive], [platform]) = (files, self.platforms) else {
            return None;
        };
        let is_plain = self.normal.has_folder == Some(false) && self.epoch.is_none() && self.normal.origin.is_none();
        is_plain.then(|| Upon::new(&self.normal.name, platform, &archive.path, STEPS, config::with_utilities))
    }

    /// As [`super::Recipe::is_to_be_taken`].
    pub(super) fn is_to_be_taken(&self) -> bool {
        self.is_below_copies && self.normal.is_copied && self.platforms.len() == 1
    }

    /// # Errors
    /// Where the image is known to have the folder.
    pub(super) fn refuse_own_folder(&self) -> Result<(), Error> {
        if self.normal.has_folder == Some(true) {
            Err(own_keys())
        } else {
            Ok(())
        }
    }

    /// What was built is not published where the image is found to have the folder.
    pub(super) fn build(&self, dockerfile: &'a str, files: &'a [Inline]) -> InlineBuild<'a> {
        let is_unknown = self.normal.has_folder.is_none();
        InlineBuild {
            dockerfile,
            files,
            siblings: slice::from_ref(self.normal),
            platforms: self.platforms,
            epoch: self.epoch,
            look: is_unknown.then_some(Look::Before {
                stage: NORMAL,
                folder: FOLDER,
                refusal: own_keys,
            }),
            upon: None,
        }
    }

    /// One for each platform.
    pub(super) fn archives(&self) -> Result<Vec<Inline>, Error> {
        let archives = self.platforms.iter().map(|platform| {
            Ok(Inline {
                path: archive(platform),
                content: self.utilities[platform].archive()?,
                mode: 0o644,
                kind: EntryType::Regular,
            })
        });
        archives.collect()
    }
}

impl Daemon {
    pub(super) async fn add_utilities(&self, addition: Addition<'_>, step: &str, events: &Events) -> Result<Built, Error> {
        match &self.builder {
            Builder::BuildKit(buildkit) => {
                let (files, names) = (addition.archives()?, addition.names);
                let build = async |export: Export<'_>| {
                    let made = buildkit.add_utilities(addition, &files, export, step, events).await;
                    self.access.explained(made, names, Pusher::Daemon).await
                };
                let once = || self.built_by_buildkit(names, addition.is_to_be_taken(), step, &build);
                again_if_lost(step, events, once).await
            }
            Builder::Classic => {
                let (dockerfile, files) = (addition.dockerfile(Unpacked::InTheImage), addition.archives()?);
                let build = again_if_lost(step, events, async || {
                    let build = addition.build(&dockerfile, &files);
                    let made = self.build_inline_classic(build, addition.names, step, events).await?;
                    self.stored(made, Reads::of([]), addition.names).await
                });
                // both at once, for one is seldom what the other has to wait for
                let checked = async {
                    let found = self.container_has_folder(&addition.normal.name, &addition.platforms[0]).await?;
                    if found { Err(own_keys()) } else { Ok(()) }
                };
                Ok(tokio::try_join!(checked, build)?.1)
            }
        }
    }

    pub(super) async fn binary_of(&self, image: &str, platform: &str) -> Result<Option<Vec<u8>>, Error> {
        match &self.builder {
            Builder::BuildKit(buildkit) => buildkit.binary_of(image, platform).await,
            Builder::Classic => self.container_binary(image, platform).await,
        }
    }
}

impl BuildKit {
    pub(super) async fn add_utilities(
        &self,
        addition: Addition<'_>,
        files: &[Inline],
        export: Export<'_>,
        step: &str,
        events: &Events,
    ) -> Result<(Made, Reads), Error> {
        if !self.links {
            let (dockerfile, upon) = (addition.dockerfile(Unpacked::InAStage), addition.upon(files));
            let build = InlineBuild {
                upon: upon.as_ref(),
                ..addition.build(&dockerfile, files)
            };
            return Ok((self.build_inline(build, export, step, events).await?, Reads::of([])));
        }
        let dockerfile = addition.dockerfile(match export {
            // a layer that is linked is no copy
            Export::MadeAgain(_) | Export::LookedUp(_) => Unpacked::InTheImage,
            _ => Unpacked::Linked,
        });
        let made = self.build_inline(addition.build(&dockerfile, files), export, step, events);
        Ok((made.await?, Reads::of([])))
    }

    /// The content of the busybox that an image holds.
    pub(super) async fn binary_of(&self, image: &str, platform: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(first_file(&self.copied(image, &PLACES, &[platform.to_owned()]).await?))
    }

    /// What an image has at these places, as a tar with a folder for each place that exists.
    async fn copied(&self, image: &str, places: &[&str], platforms: &[String]) -> Result<Vec<u8>, Error> {
        let copies = places
            .iter()
            .enumerate()
            .map(|(number, place)| format!("COPY --from={image} {} /found{number}/\n", if_there(place)));
        let build = InlineBuild {
            dockerfile: &format!("FROM scratch\n{}", copies.collect::<String>()),
            files: &[],
            siblings: &[],
            platforms,
            epoch: None,
            look: None,
            upon: None,
        };
        // nobody asked for this build
        let (unseen, _) = Events::channel();
        self.files_of(build, MAX_BYTES, "utilities", &unseen).await
    }
}

/// The path as a wildcard that means it alone: what a wildcard does not find is no error.
fn if_there(path: &str) -> String {
    let (first, rest) = path[1..]
        .split_once('/')
        .map_or((&path[1..], String::new()), |(first, rest)| (first, format!("/{rest}")));
    let (begin, last) = first.split_at(first.len() - 1);
    format!("/{begin}[{last}]{rest}")
}

/// The content of the first regular file of a tar.
pub(super) fn first_file(archive: &[u8]) -> Option<Vec<u8>> {
    let mut archive = tar::Archive::new(archive);
    let mut entries = archive.entries().ok()?.map_while(Result::ok);
    let mut entry = entries.find(|entry| entry.header().entry_type() == EntryType::Regular)?;
    let mut content = Vec::new();
    entry.read_to_end(&mut content).ok()?;
    Some(content)
}

fn own_keys() -> Error {
    let problem = Problem::failed(format!("the image has a /{FOLDER} of its own, where the utilities would go"));
    problem.hint(OWN_KEYS).into()
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
    fn each_platform_has_an_archive_of_its_own() {
        let of = |platforms: &[&str]| {
            dockerfile(
                "x",
                &platforms.iter().map(|platform| (*platform).to_owned()).collect::<Vec<_>>(),
                Unpacked::InTheImage,
            )
        };
        assert!(of(&["linux/arm64"]).contains("\nADD utilities-arm64.tar /\n"));
        assert!(of(&["linux/amd64", "linux/arm/v7"]).contains("\nADD utilities-${TARGETARCH}${TARGETVARIANT}.tar /\n"));
        assert_eq!(archive("linux/arm/v7"), "utilities-armv7.tar");
    }

    #[test]
    fn a_wildcard_that_means_one_path() {
        assert_eq!(["/busybox", "/usr/bin/busybox"].map(if_there), ["/busybo[x]", "/us[r]/bin/busybox"]);
    }
}
