//! What git knows of the sources that images are built from, asked of the `git` program.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::{Deserialize, Serialize};
use tokio::process::Command;

use crate::problem::printable;

/// As many names of untracked files as a record keeps.
const MAX_UNTRACKED: usize = 100;

/// A state of the sources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// The commit that is checked out.
    pub commit: Commit,
    /// Absent with a detached HEAD.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Whether files that git tracks differ from the commit.
    pub dirty: bool,
    /// Files in the contexts that git does not track, relative to the repository; at most a hundred.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub untracked: Vec<String>,
}

/// The name of a commit: 40 hex digits, or 64.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Commit(String);

impl Commit {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    #[must_use]
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl TryFrom<String> for Commit {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if digits && matches!(text.len(), 40 | 64) {
            Ok(Self(text))
        } else {
            Err(format!("`{}` is not the name of a commit", printable(&text)))
        }
    }
}

impl From<Commit> for String {
    fn from(commit: Commit) -> Self {
        commit.0
    }
}

/// Where a commit stands to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ancestry {
    Same,
    /// The other is in its history.
    Newer,
    /// It is in the other's history.
    Older,
    Diverged,
    /// The repository does not have the other, or not what lies between them.
    Unknown,
}

/// A folder in a repository.
#[derive(Clone, Debug)]
pub struct Repository {
    folder: PathBuf,
}

impl Repository {
    #[must_use]
    pub fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Whether there is one, whatever git thinks of it.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.folder.ancestors().any(|folder| folder.join(".git").exists())
    }

    /// `contexts` are the folders whose untracked files count.
    ///
    /// # Errors
    /// With what git says, where the folder is in no repository, the repository has no commit, or there is no git.
    pub async fn revision(&self, contexts: &[&Path]) -> Result<Revision, String> {
        // to compare with what git says, which names folders below the repository's own
        let options = ["status", "--porcelain=v2", "--branch", "--untracked-files=all", "-z", "--", ":/"];
        let (status, prefix) = tokio::try_join!(self.ask(&options), self.ask(&["rev-parse", "--show-toplevel"]))?;
        let root = PathBuf::from(prefix.trim_end_matches('\n'));
        let root = root.canonicalize().unwrap_or(root);
        let within: Vec<PathBuf> = contexts
            .iter()
            .map(|context| context.canonicalize().unwrap_or_else(|_| (*context).to_owned()))
            .collect();
        parse(&status, |path| {
            let path = root.join(path);
            within.iter().any(|context| path.starts_with(context))
        })
    }

    /// Whether HEAD is on `branch`: the branch is checked out, or contains a detached HEAD.
    pub async fn is_on(&self, branch: &str, revision: &Revision) -> bool {
        if let Some(checked_out) = &revision.branch {
            return checked_out == branch;
        }
        let remote = self
            .ask(&["for-each-ref", "--format=%(refname)", &format!("refs/remotes/*/{branch}")])
            .await;
        let mut candidates = vec![format!("refs/heads/{branch}")];
        candidates.extend(remote.unwrap_or_default().lines().map(str::to_owned));
        for candidate in candidates {
            if self.contains(&candidate, revision.commit.as_str()).await {
                return true;
            }
        }
        false
    }

    /// Whether the repository has `branch`, or a remote's side of it.
    pub async fn has_branch(&self, branch: &str) -> bool {
        let patterns = [format!("refs/heads/{branch}"), format!("refs/remotes/*/{branch}")];
        let found = self.ask(&["for-each-ref", "--format=%(refname)", &patterns[0], &patterns[1]]).await;
        found.is_ok_and(|found| !found.is_empty())
    }

    /// The remote's side of `branch`, and whether it has `commit`; none where the branch has no remote.
    pub async fn pushed(&self, branch: &str, commit: &Commit) -> Option<(String, bool)> {
        let upstream = format!("{branch}@{{upstream}}");
        let upstream = self
            .ask(&["rev-parse", "--abbrev-ref", "--verify", "--quiet", &upstream])
            .await
            .ok()?;
        let upstream = upstream.trim_end().to_owned();
        let contains = self.contains(&upstream, commit.as_str()).await;
        Some((upstream, contains))
    }

    /// Where `commit` stands to `other`.
    pub async fn ancestry(&self, commit: &Commit, other: &Commit) -> Ancestry {
        if commit == other {
            return Ancestry::Same;
        }
        if self
            .ask(&["cat-file", "-e", &format!("{}^{{commit}}", other.as_str())])
            .await
            .is_err()
        {
            return Ancestry::Unknown;
        }
        let (newer, older) = tokio::join!(
            self.contains(commit.as_str(), other.as_str()),
            self.contains(other.as_str(), commit.as_str())
        );
        match (newer, older) {
            (true, _) => Ancestry::Newer,
            (_, true) => Ancestry::Older,
            _ if self.is_shallow().await => Ancestry::Unknown,
            _ => Ancestry::Diverged,
        }
    }

    pub async fn is_shallow(&self) -> bool {
        self.ask(&["rev-parse", "--is-shallow-repository"])
            .await
            .is_ok_and(|answer| answer.trim() == "true")
    }

    /// The subjects of the commits of `to` that `from` does not have, the newest first, at most `limit`.
    pub async fn subjects(&self, from: &Commit, to: &Commit, limit: usize) -> Option<Vec<String>> {
        let range = format!("{}..{}", from.as_str(), to.as_str());
        let log = self
            .ask(&["log", "--format=%h %s", &format!("--max-count={limit}"), &range, "--"])
            .await
            .ok()?;
        Some(log.lines().map(printable).collect())
    }

    async fn contains(&self, tip: &str, commit: &str) -> bool {
        self.ask(&["merge-base", "--is-ancestor", commit, tip]).await.is_ok()
    }

    async fn ask(&self, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new("git")
            .arg("-C")
            .arg(&self.folder)
            .args(arguments)
            // an index that is only looked at is not to be locked
            .env("GIT_OPTIONAL_LOCKS", "0")
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|error| format!("git cannot be run: {error}"))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let why = said.lines().next().unwrap_or("git failed").trim_start_matches("fatal: ");
        // of another's repository git tells, in a line of its own, the command that trusts it
        let way = said.lines().map(str::trim).find(|line| line.starts_with("git config "));
        Err(printable(
            &way.map_or_else(|| why.to_owned(), |way| format!("{why}: `{way}` trusts it")),
        ))
    }
}

/// Reads `git status --porcelain=v2 --branch -z` (git-status, "Porcelain Format Version 2").
fn parse(status: &str, counts: impl Fn(&str) -> bool) -> Result<Revision, String> {
    let (mut commit, mut branch, mut dirty, mut untracked) = (None, None, false, Vec::new());
    let mut entries = status.split_terminator('\0');
    while let Some(entry) = entries.next() {
        if let Some(name) = entry.strip_prefix("# branch.oid ") {
            commit = Commit::try_from(name.to_owned()).ok();
        } else if let Some(name) = entry.strip_prefix("# branch.head ") {
            branch = (name != "(detached)").then(|| name.to_owned());
        } else if let Some(path) = entry.strip_prefix("? ") {
            if untracked.len() < MAX_UNTRACKED && counts(path) {
                untracked.push(printable(path));
            }
        } else if !entry.starts_with(['#', '!']) {
            dirty = true;
            if entry.starts_with("2 ") {
                // a renamed file's former name follows
                entries.next();
            }
        }
    }
    let commit = commit.ok_or_else(|| "the repository has no commit yet".to_owned())?;
    Ok(Revision {
        commit,
        branch,
        dirty,
        untracked,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read() {
        let oid = "0123456789abcdef0123456789abcdef01234567";
        let status = format!(
            "# branch.oid {oid}\0# branch.head master\0# branch.upstream origin/master\0# branch.ab +0 -0\0\
             2 R. N... 100644 100644 100644 {oid} {oid} R100 new name\0? old\0? a/b\0? c/d\0"
        );
        let revision = parse(&status, |path| path.starts_with("a/")).expect("read");
        assert_eq!(revision.commit.as_str(), oid);
        assert_eq!(revision.branch.as_deref(), Some("master"));
        assert!(revision.dirty);
        assert_eq!(revision.untracked, ["a/b"]);
        let clean = format!("# branch.oid {oid}\0# branch.head (detached)\0");
        let revision = parse(&clean, |_| true).expect("read");
        assert!(!revision.dirty && revision.branch.is_none());
        assert!(parse("# branch.oid (initial)\0# branch.head master\0", |_| true).is_err());
    }
}
