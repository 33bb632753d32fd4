//! The images that every tool builds: a few services in a compiled language on one base. Equal seeds give equal bytes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};

pub const BASE: &str = "bench-base";
const BLOCK: usize = 4096;

/// How much there is, in bytes where it is a size.
#[derive(Clone, Copy)]
pub struct Shape {
    pub services: usize,
    /// Half of it can be compressed, as with a program.
    pub binary: u64,
    pub files: usize,
    pub file: u64,
    /// What one of the services has more, as dense as the base.
    pub extra: u64,
    pub base: u64,
}

impl Shape {
    /// Six services, 171 MB of contexts on a base of 35 MB; `scale` makes it smaller.
    pub fn six_services(scale: f64) -> Self {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a size")]
        let of = |megabytes: f64| (megabytes * 1e6 * scale) as u64;
        Self {
            services: 6,
            binary: of(20.0),
            files: 200,
            file: 9_000,
            extra: of(40.0),
            base: of(35.0),
        }
    }
}

/// Path in the image, without a leading slash, to SHA-256.
pub type Contents = BTreeMap<String, String>;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Variants {
    Normal,
    Both,
}

impl Variants {
    /// What is before the name of each in its repository.
    pub fn prefixes(self) -> &'static [&'static str] {
        match self {
            Self::Normal => &[""],
            Self::Both => &["", "debug-"],
        }
    }
}

pub struct Workload {
    pub folder: PathBuf,
    pub services: Vec<String>,
    pub variants: Variants,
    seed: u64,
    binary: u64,
    changes: u64,
    contents: BTreeMap<String, Contents>,
}

impl Workload {
    /// In `folder`, instead of what is there.
    pub fn create(folder: &Path, shape: Shape, seed: u64, variants: Variants, busybox: &Path) -> io::Result<Self> {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        fs::create_dir_all(folder)?;
        let services: Vec<String> = (1..=shape.services).map(|number| format!("svc-{number}")).collect();
        let mut workload = Self {
            folder: folder.to_owned(),
            services,
            variants,
            seed,
            binary: shape.binary,
            changes: 0,
            contents: BTreeMap::new(),
        };
        workload.base(shape.base)?;
        fs::copy(busybox, folder.join("busybox"))?;
        for (index, service) in workload.services.clone().iter().enumerate() {
            workload.service(service, shape, shape.extra > 0 && index + 1 == shape.services)?;
        }
        Ok(workload)
    }

    fn base(&mut self, size: u64) -> io::Result<()> {
        fs::create_dir_all(self.folder.join("base"))?;
        fs::write(
            self.folder.join("base/Dockerfile"),
            "FROM scratch AS normal\nCOPY libs /usr/lib/libs\n",
        )?;
        let sum = self.file("base/libs", size, Kind::Dense)?;
        self.contents
            .insert(BASE.to_owned(), Contents::from([("usr/lib/libs".to_owned(), sum)]));
        Ok(())
    }

    fn service(&mut self, service: &str, shape: Shape, has_extra: bool) -> io::Result<()> {
        fs::create_dir_all(self.folder.join(service).join("files"))?;
        let extra = if has_extra { "COPY extra /app/extra\n" } else { "" };
        let dockerfile = format!(
            "FROM {BASE} AS normal\nCOPY files /app/files\n{extra}COPY server /app/server\nENTRYPOINT [\"/app/server\"]\n\n\
             FROM normal AS debug\nCOPY utilities /\n"
        );
        fs::write(self.folder.join(service).join("Dockerfile"), dockerfile)?;
        self.utilities(service)?;
        let mut contents = self.contents[BASE].clone();
        for number in 0..shape.files {
            let path = format!("files/{number:06}");
            let sum = self.file(&format!("{service}/{path}"), shape.file, Kind::Text)?;
            contents.insert(format!("app/{path}"), sum);
        }
        if has_extra {
            let sum = self.file(&format!("{service}/extra"), shape.extra, Kind::Dense)?;
            contents.insert("app/extra".to_owned(), sum);
        }
        let sum = self.file(&format!("{service}/server"), shape.binary, Kind::Program)?;
        contents.insert("app/server".to_owned(), sum);
        self.contents.insert(service.to_owned(), contents);
        Ok(())
    }

    /// The same times everywhere, so that the layers of all debug variants can be one.
    fn utilities(&self, service: &str) -> io::Result<()> {
        let folder = self.folder.join(service).join("utilities/busybox");
        fs::create_dir_all(&folder)?;
        fs::copy(self.folder.join("busybox"), folder.join("busybox"))?;
        for path in [folder.join("busybox"), folder] {
            File::open(path)?.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000))?;
        }
        Ok(())
    }

    /// Gives the first service another binary of the same size.
    pub fn change_one(&mut self) -> io::Result<()> {
        self.changes += 1;
        let service = self.services[0].clone();
        let sum = self.file(&format!("{service}/server"), self.binary, Kind::Program)?;
        let contents = self.contents.get_mut(&service).expect("a service");
        contents.insert("app/server".to_owned(), sum);
        Ok(())
    }

    /// What the image of a service is to hold; the debug variant has a busybox more.
    pub fn contents(&self, service: &str) -> &Contents {
        &self.contents[service]
    }

    /// All files that the builds read.
    pub fn sources(&self) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for part in [self.folder.join("base")]
            .into_iter()
            .chain(self.services.iter().map(|service| self.folder.join(service)))
        {
            let mut folders = vec![part];
            while let Some(folder) = folders.pop() {
                for entry in fs::read_dir(folder)? {
                    let path = entry?.path();
                    if path.is_dir() { folders.push(path) } else { found.push(path) }
                }
            }
        }
        found.sort();
        Ok(found)
    }

    fn file(&self, path: &str, size: u64, kind: Kind) -> io::Result<String> {
        let mut stream = Stream::new(&format!("{} {} {path}", self.seed, self.changes), kind);
        let mut sum = Sha256::new();
        let mut writer = BufWriter::new(File::create(self.folder.join(path))?);
        let mut left = usize::try_from(size).map_err(io::Error::other)?;
        while left > 0 {
            let block = stream.next();
            let part = &block[..left.min(BLOCK)];
            sum.update(part);
            writer.write_all(part)?;
            left -= part.len();
        }
        writer.flush()?;
        Ok(format!("{:x}", sum.finalize()))
    }
}

#[derive(Clone, Copy)]
enum Kind {
    /// Cannot be compressed.
    Dense,
    Text,
    /// A block of each in turn.
    Program,
}

struct Stream {
    state: u64,
    blocks: u64,
    kind: Kind,
}

impl Stream {
    fn new(name: &str, kind: Kind) -> Self {
        let sum = Sha256::digest(name);
        let state = u64::from_le_bytes(sum[..8].try_into().expect("8 bytes"));
        Self { state, blocks: 0, kind }
    }

    fn next(&mut self) -> [u8; BLOCK] {
        self.blocks += 1;
        let is_text = match self.kind {
            Kind::Dense => false,
            Kind::Text => true,
            Kind::Program => self.blocks.is_multiple_of(2),
        };
        let mut block = [0; BLOCK];
        if is_text {
            let line = format!("{:016x} the quick brown fox jumps over it\n", self.random());
            for (byte, letter) in block.iter_mut().zip(line.bytes().cycle()) {
                *byte = letter;
            }
        } else {
            for eight in block.chunks_exact_mut(8) {
                eight.copy_from_slice(&self.random().to_le_bytes());
            }
        }
        block
    }

    /// `SplitMix64`.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
