//! Whether sources may become the channel `stable`. A courtesy of the client: whoever may push may push `stable`.

use std::collections::BTreeSet;

use futures_util::future::join_all;

use crate::git::{Ancestry, Commit, Repository, Revision};
use crate::problem::printable;
use crate::record::{Entry, Record};
use crate::reference::ImageName;

/// What is known of the sources, and of what they are to replace.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Why there is none, where there is none.
    pub revision: Result<Revision, String>,
    pub on_branch: bool,
    /// The remote's side of the branch, and whether it has the commit.
    pub remote: Option<(String, bool)>,
    /// What the channels were published from.
    pub published: Vec<(Commit, Ancestry)>,
    /// What rollbacks took out of them.
    pub rolled_back: Vec<(Commit, Ancestry)>,
    pub shallow: bool,
    pub images: Images,
}

/// What is known of the images that are to be published.
#[derive(Clone, Debug, Default)]
pub struct Images {
    /// Images of elsewhere that they stand on and whose digests are not from their registries.
    unresolved: BTreeSet<String>,
    /// What is not as it was published, in words.
    platforms: Vec<String>,
}

impl Images {
    /// `name` stands for the image in messages; `published` is what the channel has of it.
    pub fn add(&mut self, name: &str, platforms: &[String], unresolved: &[String], published: Option<&Entry>) {
        self.unresolved.extend(unresolved.iter().cloned());
        let sorted = |platforms: &[String]| platforms.iter().cloned().collect::<BTreeSet<_>>();
        // another tool's image has none in the record
        if let Some(before) = published.filter(|before| !before.platforms.is_empty() && !platforms.is_empty())
            && sorted(&before.platforms) != sorted(platforms)
        {
            let (before, now) = (before.platforms.join(", "), platforms.join(", "));
            self.platforms
                .push(printable(&format!("`{name}` is for {now}, and what is published is for {before}")));
        }
    }
}

/// What of a channel's images did not come from `branch`: each keeps its own revision while others are replaced.
pub async fn strays(repository: &Repository, branch: &str, images: impl IntoIterator<Item = (&ImageName, Option<&Entry>)>) -> Vec<String> {
    let mut strays = Vec::new();
    for (image, entry) in images {
        let Some(revision) = entry.and_then(|entry| entry.revision.as_ref()) else {
            strays.push(format!("it is not known which commit `{image}` is from"));
            continue;
        };
        let commit = revision.commit.short();
        let detached = Revision {
            branch: None,
            ..revision.clone()
        };
        if revision.dirty {
            strays.push(format!("`{image}` was built with changes that are not in {commit}"));
        }
        if !repository.is_on(branch, &detached).await {
            strays.push(format!("`{image}` is from {commit}, which is not on `{branch}`"));
        }
    }
    strays
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Clear,
    /// The published revision, which contains the sources and more.
    Superseded(Commit),
    /// Each with what would be right.
    Violated(Vec<String>),
}

impl Sources {
    /// `records` are those of the channels that are to be published.
    pub async fn of(
        repository: &Repository,
        revision: Result<Revision, String>,
        branch: &str,
        records: &[&Record],
        images: Images,
    ) -> Self {
        let mut sources = Self {
            revision,
            on_branch: false,
            remote: None,
            published: Vec::new(),
            rolled_back: Vec::new(),
            shallow: false,
            images,
        };
        let Ok(revision) = &sources.revision else { return sources };
        let commit = &revision.commit;
        let stand = |of: fn(&Record) -> Option<&Revision>| {
            let mut others: Vec<&Commit> = records.iter().filter_map(|record| Some(&of(record)?.commit)).collect();
            others.dedup();
            join_all(
                others
                    .into_iter()
                    .map(async |other| (other.clone(), repository.ancestry(commit, other).await)),
            )
        };
        (
            sources.on_branch,
            sources.remote,
            sources.published,
            sources.rolled_back,
            sources.shallow,
        ) = tokio::join!(
            repository.is_on(branch, revision),
            repository.pushed(branch, commit),
            stand(|record| record.revision.as_ref()),
            stand(|record| record.rolled_back.as_ref()),
            repository.is_shallow(),
        );
        sources
    }

    /// `superseding` is for CI: its older runs may come after newer ones, and that is no failure.
    #[must_use]
    pub fn judge(&self, branch: &str, superseding: bool) -> Verdict {
        let newer = self.published.iter().find(|(_, ancestry)| *ancestry == Ancestry::Older);
        if let Some((published, _)) = newer.filter(|_| superseding) {
            return Verdict::Superseded(published.clone());
        }
        let mut violations = match &self.revision {
            Ok(revision) => self.violations_of(revision, branch),
            Err(why) => vec![format!("the sources have no revision: {why}")],
        };
        let unresolved = self.images.unresolved.iter();
        violations.extend(unresolved.map(|base| format!("`{}` was not resolved at its registry", printable(base))));
        violations.extend(self.images.platforms.iter().cloned());
        if violations.is_empty() {
            Verdict::Clear
        } else {
            Verdict::Violated(violations)
        }
    }

    fn violations_of(&self, revision: &Revision, branch: &str) -> Vec<String> {
        let mut violations = Vec::new();
        if !self.on_branch {
            violations.push(match &revision.branch {
                Some(other) => format!("`{other}` is checked out, and `stable` is built from `{branch}`"),
                None => format!("{} is not on `{branch}`, which `stable` is built from", revision.commit.short()),
            });
        }
        if let Some((remote, false)) = &self.remote {
            violations.push(format!("{} is not in `{remote}`: push it first", revision.commit.short()));
        }
        if revision.dirty {
            violations.push("files that git tracks are changed: commit them first".to_owned());
        }
        let judged = [
            (&self.published, "published", &[Ancestry::Same, Ancestry::Newer][..]),
            (&self.rolled_back, "rolled back", &[Ancestry::Newer][..]),
        ];
        for (others, what, allowed) in judged {
            let wrong = others.iter().filter(|(_, ancestry)| !allowed.contains(ancestry));
            violations.extend(wrong.map(|(other, ancestry)| self.stands_wrong(&revision.commit, *ancestry, other, what)));
        }
        violations
    }

    fn stands_wrong(&self, commit: &Commit, ancestry: Ancestry, other: &Commit, what: &str) -> String {
        let (commit, other) = (commit.short(), other.short());
        match ancestry {
            Ancestry::Same | Ancestry::Newer => format!("{commit} was {what}: publish a newer commit"),
            Ancestry::Older => format!("{commit} is older than {other}, which was {what}"),
            Ancestry::Diverged => format!("{commit} does not contain {other}, which was {what}"),
            Ancestry::Unknown if self.shallow => {
                format!(
                    "this shallow clone cannot show where {commit} stands to {other}, which was {what}: fetch the history (fetch-depth: 0)"
                )
            }
            Ancestry::Unknown => format!("{other}, which was {what}, is not in this repository: git fetch"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Writer;
    use crate::reference::Digest;

    fn commit(digit: char) -> Commit {
        Commit::try_from(digit.to_string().repeat(40)).expect("a commit")
    }

    fn good() -> Sources {
        Sources {
            revision: Ok(Revision {
                commit: commit('a'),
                branch: Some("master".into()),
                dirty: false,
                untracked: Vec::new(),
            }),
            on_branch: true,
            remote: Some(("origin/master".into(), true)),
            published: vec![(commit('b'), Ancestry::Newer)],
            rolled_back: Vec::new(),
            shallow: false,
            images: Images::default(),
        }
    }

    fn violations(change: impl Fn(&mut Sources)) -> Vec<String> {
        let mut sources = good();
        change(&mut sources);
        match sources.judge("master", false) {
            Verdict::Violated(violations) => violations,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_newer_clean_pushed_commit_of_the_branch_is_clear() {
        assert_eq!(good().judge("master", false), Verdict::Clear);
        let mut first = good();
        first.published.clear();
        first.remote = None;
        assert_eq!(first.judge("master", true), Verdict::Clear);
        let mut again = good();
        again.published = vec![(commit('a'), Ancestry::Same)];
        assert_eq!(again.judge("master", true), Verdict::Clear);
    }

    #[test]
    fn each_violation_is_told_and_all_of_them_at_once() {
        assert_eq!(violations(|s| s.revision = Err("not a git repository".into())).len(), 1);
        assert_eq!(violations(|s| s.on_branch = false).len(), 1);
        assert_eq!(violations(|s| s.remote = Some(("origin/master".into(), false))).len(), 1);
        assert_eq!(violations(|s| s.revision.as_mut().expect("one").dirty = true).len(), 1);
        for ancestry in [Ancestry::Older, Ancestry::Diverged, Ancestry::Unknown] {
            assert_eq!(violations(|s| s.published = vec![(commit('b'), ancestry)]).len(), 1);
        }
        for ancestry in [Ancestry::Same, Ancestry::Older] {
            assert_eq!(violations(|s| s.rolled_back = vec![(commit('b'), ancestry)]).len(), 1);
        }
        let shallow = violations(|s| {
            s.shallow = true;
            s.published = vec![(commit('b'), Ancestry::Unknown)];
        });
        assert!(shallow[0].contains("fetch-depth: 0"), "{shallow:?}");
        assert_eq!(violations(|s| s.images.add("api", &[], &["debian:12".into()], None)).len(), 1);
        let all = violations(|s| {
            s.on_branch = false;
            s.remote = Some(("origin/master".into(), false));
            s.revision.as_mut().expect("one").dirty = true;
            s.published = vec![(commit('b'), Ancestry::Older)];
        });
        assert_eq!(all.len(), 4);
    }

    #[test]
    fn platforms_are_those_that_are_published() {
        let entry = |platforms: &[&str]| Entry {
            digest: Digest::of(b"x"),
            fingerprint: None,
            revision: None,
            platforms: platforms.iter().map(|platform| (*platform).to_owned()).collect(),
            unresolved: Vec::new(),
            writer: Writer::new("kevin".into(), "host".into()),
        };
        let told = |now: &[&str], before: &Entry| {
            let mut images = Images::default();
            images.add("api", &entry(now).platforms, &[], Some(before));
            images.platforms
        };
        let both = entry(&["linux/amd64", "linux/arm64"]);
        assert_eq!(told(&["linux/arm64", "linux/amd64"], &both), [""; 0]);
        assert_eq!(
            told(&["linux/amd64"], &both),
            ["`api` is for linux/amd64, and what is published is for linux/amd64, linux/arm64"]
        );
        assert_eq!(told(&["linux/amd64"], &entry(&[])), [""; 0], "another tool's");
    }

    #[test]
    fn in_ci_an_older_commit_is_superseded() {
        let mut older = good();
        older.published = vec![(commit('b'), Ancestry::Older)];
        assert_eq!(older.judge("master", true), Verdict::Superseded(commit('b')));
    }
}
