//! Whether sources may become the channel `stable`. A courtesy of the client: whoever may push may push `stable`.

use crate::git::{Ancestry, Commit, Repository, Revision};
use crate::record::Record;

/// What is known of the sources, and of what they are to replace.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Why there is none, where there is none.
    pub revision: Result<Revision, String>,
    pub on_branch: bool,
    /// The remote's side of the branch, and whether it has the commit.
    pub remote: Option<(String, bool)>,
    /// What the channel was published from.
    pub published: Option<(Commit, Ancestry)>,
    /// What a rollback took out of it.
    pub rolled_back: Option<(Commit, Ancestry)>,
    pub shallow: bool,
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
    pub async fn of(repository: &Repository, revision: Result<Revision, String>, branch: &str, record: Option<&Record>) -> Self {
        let mut sources = Self {
            revision,
            on_branch: false,
            remote: None,
            published: None,
            rolled_back: None,
            shallow: false,
        };
        let Ok(revision) = &sources.revision else { return sources };
        let commit = &revision.commit;
        let stand = async |other: Option<&Revision>| match other {
            Some(other) => Some((other.commit.clone(), repository.ancestry(commit, &other.commit).await)),
            None => None,
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
            stand(record.and_then(|record| record.revision.as_ref())),
            stand(record.and_then(|record| record.rolled_back.as_ref())),
            repository.is_shallow(),
        );
        sources
    }

    /// `superseding` is for CI: its older runs may come after newer ones, and that is no failure.
    #[must_use]
    pub fn judge(&self, branch: &str, superseding: bool) -> Verdict {
        let revision = match &self.revision {
            Ok(revision) => revision,
            Err(why) => return Verdict::Violated(vec![format!("the sources have no revision: {why}")]),
        };
        if let (true, Some((published, Ancestry::Older))) = (superseding, &self.published) {
            return Verdict::Superseded(published.clone());
        }
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
        let newer = [
            self.published
                .as_ref()
                .map(|published| (published, "published", &[Ancestry::Same, Ancestry::Newer][..])),
            self.rolled_back
                .as_ref()
                .map(|rolled_back| (rolled_back, "rolled back", &[Ancestry::Newer][..])),
        ];
        for ((other, ancestry), what, allowed) in newer.into_iter().flatten() {
            if !allowed.contains(ancestry) {
                violations.push(self.stands_wrong(&revision.commit, *ancestry, other, what));
            }
        }
        if violations.is_empty() {
            Verdict::Clear
        } else {
            Verdict::Violated(violations)
        }
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
            published: Some((commit('b'), Ancestry::Newer)),
            rolled_back: None,
            shallow: false,
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
        first.published = None;
        first.remote = None;
        assert_eq!(first.judge("master", true), Verdict::Clear);
        let mut again = good();
        again.published = Some((commit('a'), Ancestry::Same));
        assert_eq!(again.judge("master", true), Verdict::Clear);
    }

    #[test]
    fn each_violation_is_told_and_all_of_them_at_once() {
        assert_eq!(violations(|s| s.revision = Err("not a git repository".into())).len(), 1);
        assert_eq!(violations(|s| s.on_branch = false).len(), 1);
        assert_eq!(violations(|s| s.remote = Some(("origin/master".into(), false))).len(), 1);
        assert_eq!(violations(|s| s.revision.as_mut().expect("one").dirty = true).len(), 1);
        for ancestry in [Ancestry::Older, Ancestry::Diverged, Ancestry::Unknown] {
            assert_eq!(violations(|s| s.published = Some((commit('b'), ancestry))).len(), 1);
        }
        for ancestry in [Ancestry::Same, Ancestry::Older] {
            assert_eq!(violations(|s| s.rolled_back = Some((commit('b'), ancestry))).len(), 1);
        }
        let shallow = violations(|s| {
            s.shallow = true;
            s.published = Some((commit('b'), Ancestry::Unknown));
        });
        assert!(shallow[0].contains("fetch-depth: 0"), "{shallow:?}");
        let all = violations(|s| {
            s.on_branch = false;
            s.remote = Some(("origin/master".into(), false));
            s.revision.as_mut().expect("one").dirty = true;
            s.published = Some((commit('b'), Ancestry::Older));
        });
        assert_eq!(all.len(), 4);
    }

    #[test]
    fn in_ci_an_older_commit_is_superseded() {
        let mut older = good();
        older.published = Some((commit('b'), Ancestry::Older));
        assert_eq!(older.judge("master", true), Verdict::Superseded(commit('b')));
    }
}
