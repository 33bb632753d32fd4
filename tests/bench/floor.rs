//! What the machine takes for the least that must be done: no tool can be faster with these bytes.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use ureq::Agent;

use crate::workload::Workload;

#[derive(Serialize)]
pub struct Floor {
    what: &'static str,
    seconds: f64,
}

impl Floor {
    pub fn line(&self) -> String {
        format!("{:<44}{:>8.3} s", self.what, self.seconds)
    }
}

/// The channel `bench` is there.
pub fn measure(workload: &Workload, registry: &str) -> Result<Vec<Floor>> {
    let sources = workload.sources()?;
    let agent = Agent::new_with_defaults();
    let mut compressed = Vec::new();
    Ok(vec![
        timed("stat of all files", || stat(&sources))?,
        timed("read and sha256", || sum(&sources))?,
        timed("gzip -6 in one thread", || {
            compressed = gzip(&sources)?;
            Ok(())
        })?,
        timed("sha256 and upload of what is compressed", || upload(&agent, registry, &compressed))?,
        timed("HEAD of all manifests, one after another", || heads(&agent, registry, workload))?,
    ])
}

fn timed(what: &'static str, work: impl FnOnce() -> Result<()>) -> Result<Floor> {
    let started = Instant::now();
    work().context(what)?;
    Ok(Floor {
        what,
        seconds: started.elapsed().as_secs_f64(),
    })
}

fn stat(sources: &[PathBuf]) -> Result<()> {
    for path in sources {
        fs::symlink_metadata(path)?;
    }
    Ok(())
}

fn sum(sources: &[PathBuf]) -> Result<()> {
    let mut sum = Sha256::new();
    for path in sources {
        io::copy(&mut File::open(path)?, &mut sum)?;
    }
    std::hint::black_box(sum.finalize());
    Ok(())
}

fn gzip(sources: &[PathBuf]) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(6));
    for path in sources {
        io::copy(&mut File::open(path)?, &mut encoder)?;
    }
    encoder.flush()?;
    Ok(encoder.finish()?)
}

fn upload(agent: &Agent, registry: &str, bytes: &[u8]) -> Result<()> {
    let digest = Sha256::digest(bytes);
    let begun = agent
        .post(format!("http://{registry}/v2/bench/floor/blobs/uploads/"))
        .send_empty()?;
    let location = begun.headers().get("location").context("no location")?.to_str()?;
    agent.put(format!("{location}&digest=sha256:{digest:x}")).send(bytes)?;
    Ok(())
}

fn heads(agent: &Agent, registry: &str, workload: &Workload) -> Result<()> {
    for service in &workload.services {
        for channel in ["bench", "bench-debug"] {
            let url = format!("http://{registry}/v2/bench/{channel}-{service}/manifests/latest");
            agent.head(url).header("accept", crate::check::ACCEPT).call()?;
        }
    }
    Ok(())
}
