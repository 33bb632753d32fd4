//! What a script takes: time, and processor and memory of the processes it starts.

use std::env;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use serde::{Deserialize, Serialize};

/// The first argument of this program where it is to measure a script.
pub const WRAPPER: &str = "--measure";
const LONGEST: &str = "1800";

#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct Usage {
    pub seconds: f64,
    /// Of all processes together; what the daemon does is not in it.
    pub cpu_seconds: f64,
    /// Of the largest process.
    pub memory_bytes: u64,
}

/// Runs the script; what it prints goes to `log`.
pub fn script(text: &str, folder: &Path, environment: &[(String, String)], log: &Path) -> Result<Usage> {
    let figures = log.with_extension("json");
    let output = File::create(log).with_context(|| format!("writing {}", log.display()))?;
    let status = Command::new(env::current_exe()?)
        .args([WRAPPER.as_ref(), figures.as_os_str(), text.as_ref()])
        .current_dir(folder)
        .env_clear()
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .status()?;
    if !status.success() {
        let said = fs::read(log)?;
        let said = String::from_utf8_lossy(&said);
        let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("said nothing");
        bail!("{last} (log: {})", log.display());
    }
    Ok(serde_json::from_slice(&fs::read(figures)?)?)
}

/// The other end: a process of its own, for what a system tells of a parent's children it tells of all that it ever had;
/// and a small one, for a child's memory counts from before it becomes another program.
pub fn as_wrapper(figures: &Path, script: &str) -> Result<bool> {
    let started = Instant::now();
    let status = Command::new("timeout").args([LONGEST, "sh", "-ec", script]).status()?;
    let seconds = started.elapsed().as_secs_f64();
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let usage = Usage {
        seconds,
        cpu_seconds: in_seconds(usage.user_time()) + in_seconds(usage.system_time()),
        memory_bytes: u64::try_from(usage.max_rss())? * 1024,
    };
    fs::write(figures, serde_json::to_vec(&usage)?)?;
    Ok(status.success())
}

#[expect(clippy::cast_precision_loss, reason = "seconds of a run")]
fn in_seconds(time: TimeVal) -> f64 {
    time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6
}
