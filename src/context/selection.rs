//! Which paths of a context are among those that a build reads.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::dockerignore::go_filepath::{clean, matches};
use crate::dockerfile::Reads;

/// A build's [`Reads`] with the links among them followed.
#[derive(Debug)]
pub(super) struct Selection {
    /// By components; `None` for all there is.
    paths: Option<Vec<Vec<String>>>,
}

/// What is selected at one place of the tree.
#[derive(Clone, Debug)]
pub(super) enum Within<'s> {
    Everything,
    /// What goes on from here; nothing where it is empty.
    Paths(Vec<&'s [String]>),
}

impl Selection {
    /// `root` is asked for the links.
    pub(super) fn new(reads: &Reads, root: &Path) -> Self {
        let Reads::Paths(paths) = reads else {
            return Self { paths: None };
        };
        let mut links = Links {
            root,
            followed: BTreeSet::new(),
        };
        for path in paths {
            links.follow(path);
        }
        match Reads::of(links.followed) {
            Reads::Whole => Self { paths: None },
            Reads::Paths(paths) => Self {
                paths: Some(paths.iter().map(|path| path.split('/').map(str::to_owned).collect()).collect()),
            },
        }
    }

    pub(super) fn top(&self) -> Within<'_> {
        match &self.paths {
            None => Within::Everything,
            Some(paths) => Within::Paths(paths.iter().map(Vec::as_slice).collect()),
        }
    }
}

impl Within<'_> {
    pub(super) fn step(&self, name: &str) -> Self {
        let Self::Paths(paths) = self else {
            return Self::Everything;
        };
        let mut on = Vec::new();
        for path in paths {
            match path.split_first() {
                Some((first, rest)) if matches(first, name) => on.push(rest),
                _ => {}
            }
        }
        if on.iter().any(|rest| rest.is_empty()) {
            return Self::Everything;
        }
        Self::Paths(on)
    }

    pub(super) fn is_selected(&self) -> bool {
        matches!(self, Self::Everything)
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Paths(paths) if paths.is_empty())
    }
}

/// Follows links as the client of `BuildKit` does (tonistiigi/fsutil, `followlinks.go`): a path through a link reads the
/// link and what it leads to. No link leads out of the context.
struct Links<'r> {
    root: &'r Path,
    followed: BTreeSet<String>,
}

impl Links<'_> {
    fn follow(&mut self, path: &str) {
        let path = clean(&format!("/{path}"));
        let mut current = String::new();
        let mut rest = path.trim_start_matches('/');
        loop {
            let (first, further) = rest.split_once('/').unwrap_or((rest, ""));
            if !current.is_empty() {
                current.push('/');
            }
            current.push_str(first);
            let targets = self.targets(&current);
            if further.is_empty() || !targets.is_empty() {
                if !self.followed.insert(current) {
                    return;
                }
                for target in targets {
                    self.follow(&format!("{target}/{further}"));
                }
                return;
            }
            rest = further;
        }
    }

    /// Where the links lead that `path` names; wildcards may stand in its last component.
    fn targets(&self, path: &str) -> Vec<String> {
        let (folder, last) = path.rsplit_once('/').unwrap_or(("", path));
        if !last.contains(['*', '?', '[', '\\']) {
            return self.target(folder, last).into_iter().collect();
        }
        let names = fs::read_dir(self.root.join(folder)).into_iter().flatten().flatten();
        let links = names.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_symlink()));
        links
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| matches(last, name))
            .filter_map(|name| self.target(folder, &name))
            .collect()
    }

    fn target(&self, folder: &str, name: &str) -> Option<String> {
        let target = fs::read_link(self.root.join(folder).join(name)).ok()?;
        let target = target.to_string_lossy();
        Some(if target.starts_with('/') {
            clean(&target)
        } else {
            clean(&format!("/{folder}/{target}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn selects(selection: &Selection, path: &str) -> bool {
        let mut within = selection.top();
        for name in path.split('/') {
            within = within.step(name);
        }
        within.is_selected()
    }

    #[test]
    fn paths_wildcards_and_what_is_below() {
        let reads = Reads::of(["a/b".to_owned(), "*.txt".to_owned(), "c/*/[x-z]?".to_owned(), "[".to_owned()]);
        let selection = Selection::new(&reads, Path::new("/nonexistent"));
        for selected in ["a/b", "a/b/c", "x.txt", "x.txt/y", "c/d/x1", "c/d/z2/e"] {
            assert!(selects(&selection, selected), "{selected}");
        }
        for other in ["a", "a/c", "ab", "b", "x.tx", "c/x1", "c/d/a1", "d/x.txt"] {
            assert!(!selects(&selection, other), "{other}");
        }
        assert!(selection.top().step("a").step("c").is_empty() && !selection.top().step("a").is_empty());
    }

    #[test]
    fn a_path_through_a_link_reads_the_link_and_where_it_leads() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(dir.path().join("real/deep")).expect("created");
        for (link, target) in [
            ("l", "real"),
            ("abs", "/real/deep"),
            ("real/up", "../../../m"),
            ("loop", "loop"),
            ("out", "/"),
        ] {
            symlink(target, dir.path().join(link)).expect("linked");
        }
        let selection = |path: &str| Selection::new(&Reads::of([path.to_owned()]), dir.path());
        let through = selection("l/deep");
        assert!(selects(&through, "l") && selects(&through, "real/deep/x") && !selects(&through, "real/other"));
        assert!(selects(&selection("abs"), "real/deep/x") && selects(&selection("a?s/y"), "real/deep/y"));
        assert!(selects(&selection("l/up"), "m") && selects(&selection("loop"), "loop"));
        assert!(selects(&selection("out"), "anything"), "a link to the root reads everything");
        let both = Selection::new(&Reads::of(["real".to_owned(), "real/up".to_owned()]), dir.path());
        assert!(selects(&both, "m"), "one that is in a folder that is read, too");
    }
}
