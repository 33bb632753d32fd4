use super::*;
use crate::context::{Contexts, HashCache};
use crate::manifest::SecretSource;
use crate::manifest::tests::one_build;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

const DOCKERFILE: &str = "FROM debian:12 AS one\nCOPY . /\n";

/// A folder with some of everything, and a build from it.
struct Case {
    dir: tempfile::TempDir,
    build: Build,
    externals: BTreeMap<String, Digest>,
    siblings: Vec<(ImageName, Fingerprint)>,
}

impl Case {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        for (path, content) in [
            ("src/main.c", "int main;"),
            ("src/deep/er", "x"),
            ("README.md", "read me"),
            ("named/file", "n"),
        ] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("created");
            fs::write(&path, content).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("changed");
        }
        set_mode(&dir.path().join("src/deep"), 0o755);
        symlink("main.c", dir.path().join("src/link")).expect("linked");
        let mut case = Self {
            build: one_build(DOCKERFILE),
            externals: BTreeMap::from([("debian:12".to_owned(), digest('1'))]),
            siblings: vec![("base".parse().expect("a name"), other('2'))],
            dir,
        };
        case.build.context = case.dir.path().join("src");
        case.build.args = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        case
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn fingerprint(&self) -> (Fingerprint, Parts) {
        self.fingerprint_with(&HashCache::default())
    }

    fn fingerprint_with(&self, cache: &HashCache) -> (Fingerprint, Parts) {
        let reading = Contexts::new(cache.clone()).read(&self.build).expect("read");
        let siblings: Vec<_> = self.siblings.iter().map(|(name, fingerprint)| (name, *fingerprint)).collect();
        fingerprint(&Inputs {
            build: &self.build,
            reading: &reading,
            externals: &self.externals,
            siblings: &siblings,
        })
    }

    fn dockerfile(&mut self, text: &str) {
        let context = self.build.context.clone();
        self.build.dockerfile = one_build(text).dockerfile;
        self.build.context = context;
    }
}

fn digest(digit: char) -> Digest {
    format!("sha256:{}", digit.to_string().repeat(64)).parse().expect("a digest")
}

fn other(digit: char) -> Fingerprint {
    digit.to_string().repeat(64).parse().expect("a fingerprint")
}

fn text(text: &str) -> String {
    text.to_owned()
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("changed");
}

fn set_old(path: &Path) {
    let file = fs::File::open(path).expect("opened");
    file.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("set");
}

type Change = fn(&mut Case);

/// What changes the image, and what `status -v` says of it.
const INSIDE: [(&str, Change); 30] = [
    ("the Dockerfile changed", |case| case.dockerfile("FROM debian:12\nCOPY . /x\n")),
    ("key changed: target", |case| case.build.target = Some(text("one"))),
    ("key changed: platform", |case| case.build.platforms = vec![text("linux/arm64")]),
    ("key changed: network", |case| case.build.network = Some(text("none"))),
    ("key changed: args.A", |case| drop(case.build.args.insert(text("A"), text("2")))),
    ("key changed: args.A", |case| drop(case.build.args.remove("A"))),
    ("key changed: args.B", |case| drop(case.build.args.insert(text("B"), String::new()))),
    ("key changed: labels.l", |case| drop(case.build.labels.insert(text("l"), text("1")))),
    ("key changed: secrets.s", |case| {
        drop(case.build.secrets.insert(text("s"), SecretSource::Environment(text("X"))));
    }),
    ("key changed: ssh.default", |case| {
        drop(case.build.ssh.insert(text("default"), PathBuf::from("/s")));
    }),
    ("key changed: additional_contexts.c", |case| {
        let image = NamedContext::Image(text("docker-image://x.io/y"));
        drop(case.build.additional_contexts.insert(text("c"), image));
    }),
    ("file added: c:file", |case| {
        let folder = NamedContext::Folder(case.path("named"));
        drop(case.build.additional_contexts.insert(text("c"), folder));
    }),
    ("base moved: debian:12", |case| {
        drop(case.externals.insert(text("debian:12"), digest('3')));
    }),
    ("base moved: x.io/z", |case| {
        drop(case.externals.insert(text("x.io/z"), digest('1')));
    }),
    ("image changed: base", |case| case.siblings[0].1 = other('4')),
    ("image changed: two", |case| {
        case.siblings.push(("two".parse().expect("a name"), other('2')));
    }),
    ("file changed: main.c", |case| {
        fs::write(case.path("src/main.c"), "int m4in;").expect("written");
    }),
    ("file changed: main.c", |case| {
        fs::write(case.path("src/main.c"), "").expect("written");
    }),
    ("file changed: main.c", |case| set_mode(&case.path("src/main.c"), 0o755)),
    ("file changed: main.c", |case| set_mode(&case.path("src/main.c"), 0o646)),
    ("file changed: main.c", |case| set_mode(&case.path("src/main.c"), 0o4644)),
    ("file changed: deep", |case| set_mode(&case.path("src/deep"), 0o1755)),
    ("file removed: deep/er", |case| {
        fs::rename(case.path("src/deep/er"), case.path("src/deep/est")).expect("renamed");
    }),
    ("base moved: debian:12", |case| {
        // by another name
        let digest = case.externals.remove("debian:12").expect("there");
        drop(case.externals.insert(text("docker.io/library/debian:12"), digest));
    }),
    ("file changed: deep", |case| set_mode(&case.path("src/deep"), 0o700)),
    ("file added: new", |case| fs::write(case.path("src/new"), "").expect("written")),
    ("file added: deep/new", |case| {
        fs::create_dir(case.path("src/deep/new")).expect("created");
    }),
    ("file removed: deep/er", |case| {
        fs::remove_file(case.path("src/deep/er")).expect("removed");
    }),
    ("file changed: link", |case| {
        fs::remove_file(case.path("src/link")).expect("removed");
        symlink("main.d", case.path("src/link")).expect("linked");
    }),
    ("file changed: link", |case| {
        fs::remove_file(case.path("src/link")).expect("removed");
        fs::write(case.path("src/link"), "main.c").expect("written");
    }),
];

/// What does not change the image, or is not ours to know.
const OUTSIDE: [(&str, Change); 15] = [
    ("nothing", |_| {}),
    ("times", |case| {
        for path in ["src/main.c", "src/deep/er", "src/deep"] {
            set_old(&case.path(path));
        }
    }),
    ("the group's write bit", |case| {
        for path in ["src/main.c", "src/deep/er"] {
            set_mode(&case.path(path), 0o664);
        }
    }),
    ("the group's write bit of a folder", |case| set_mode(&case.path("src/deep"), 0o775)),
    ("the root's mode", |case| set_mode(&case.path("src"), 0o700)),
    ("a neighbour", |case| fs::write(case.path("README.md"), "changed").expect("written")),
    ("the same content anew", |case| {
        fs::remove_file(case.path("src/main.c")).expect("removed");
        fs::write(case.path("src/main.c"), "int main;").expect("written");
        set_mode(&case.path("src/main.c"), 0o644);
    }),
    ("cache_from", |case| case.build.cache_from.push(text("x.io/y"))),
    ("cache_to", |case| case.build.cache_to.push(text("type=inline"))),
    ("no_cache", |case| case.build.no_cache = true),
    ("pull", |case| case.build.pull = true),
    ("proxies", |case| {
        case.build
            .args
            .extend([(text("HTTP_PROXY"), text("http://p")), (text("no_proxy"), text("x"))]);
    }),
    ("the default network", |case| case.build.network = Some(text("default"))),
    ("another place", |case| {
        fs::rename(case.path("src"), case.path("elsewhere")).expect("moved");
        case.build.context = case.path("elsewhere");
    }),
    ("what .dockerignore excludes", |case| {
        // beside the Dockerfile, so that the file itself is not in the context
        case.build.dockerfile.path = Some(case.path("D"));
        fs::write(case.path("D.dockerignore"), "*.log\n").expect("written");
        fs::write(case.path("src/x.log"), "").expect("written");
    }),
];

#[test]
fn what_changes_the_image_changes_the_fingerprint_and_is_told() {
    for (told, change) in INSIDE {
        let mut case = Case::new();
        let (before, parts_before) = case.fingerprint();
        change(&mut case);
        let (after, parts) = case.fingerprint();
        assert_ne!(before, after, "{told}");
        let differences: Vec<_> = parts.differences(&parts_before).iter().map(ToString::to_string).collect();
        assert!(differences.iter().any(|difference| difference == told), "{told}: {differences:?}");
        assert!(differences.len() <= 2, "{told}: {differences:?}");
    }
}

#[test]
fn a_proxy_counts_where_the_dockerfile_declares_it() {
    for (declared, counts) in [("ARG no_proxy=x\n", true), ("ARG NO_PROXY\n", false), ("", false)] {
        let mut case = Case::new();
        case.dockerfile(&format!("FROM debian:12\n{declared}COPY . /x\n"));
        let (before, _) = case.fingerprint();
        case.build.args.insert(text("no_proxy"), text("y"));
        assert_eq!(case.fingerprint().0 != before, counts, "{declared}");
    }
}

/// A secret, an agent and a folder, each with its name and where it comes from.
fn given(case: &mut Case, from: &str) {
    let folder = case.path(from);
    fs::create_dir_all(&folder).expect("created");
    fs::write(folder.join("file"), "the same").expect("written");
    case.build.secrets = BTreeMap::from([(text("s"), SecretSource::File(folder.join("file")))]);
    case.build.ssh = BTreeMap::from([(text("default"), folder.join("socket"))]);
    case.build.additional_contexts = BTreeMap::from([(text("c"), NamedContext::Folder(folder))]);
}

#[test]
fn the_names_of_secrets_agents_and_contexts_count_and_not_where_they_come_from() {
    let mut case = Case::new();
    given(&mut case, "one");
    let (before, _) = case.fingerprint();
    given(&mut case, "two");
    assert_eq!(case.fingerprint().0, before);
    case.build.secrets = BTreeMap::from([(text("s"), SecretSource::Environment(text("X")))]);
    fs::write(case.path("one/file"), "not read any more").expect("written");
    assert_eq!(case.fingerprint().0, before);
    fs::write(case.path("two/file"), "another").expect("written");
    assert_ne!(case.fingerprint().0, before);
}

#[test]
fn the_platforms_count_in_their_order() {
    let mut case = Case::new();
    case.build.platforms = vec![text("linux/amd64"), text("linux/arm64")];
    let (before, _) = case.fingerprint();
    case.build.platforms.reverse();
    assert_ne!(case.fingerprint().0, before);
}

#[test]
fn what_is_outside_does_not() {
    for (what, change) in OUTSIDE {
        let mut case = Case::new();
        let (before, parts_before) = case.fingerprint();
        change(&mut case);
        let (after, parts) = case.fingerprint();
        assert_eq!((before, &parts_before), (after, &parts), "{what}");
        assert_eq!(parts.differences(&parts_before), [], "{what}");
    }
}

#[test]
fn every_change_gives_another_one() {
    let all: BTreeSet<_> = INSIDE
        .iter()
        .map(|(_, change)| {
            let mut case = Case::new();
            change(&mut case);
            case.fingerprint().0.to_string()
        })
        .collect();
    assert_eq!(all.len(), INSIDE.len());
}

#[test]
fn with_a_context_of_everything_only_what_is_copied_counts() {
    let mut case = Case::new();
    case.build.context = case.dir.path().to_owned();
    case.dockerfile("FROM debian:12\nCOPY src/*.c /\n");
    let (before, _) = case.fingerprint();
    fs::write(case.path("README.md"), "changed").expect("written");
    fs::write(case.path("src/deep/er"), "changed").expect("written");
    assert_eq!(case.fingerprint().0, before);
    fs::write(case.path("src/main.c"), "changed").expect("written");
    assert_ne!(case.fingerprint().0, before);
}

/// The number that other machines and earlier runs have found: where it changes, `SCHEME` must.
#[test]
fn it_stays_as_long_as_the_scheme_does() {
    let case = Case::new();
    let (found, _) = case.fingerprint();
    assert_eq!(
        found.to_string(),
        "b611cda636a93a054d8ea20255d9b351353415a9ada4f3536ca979d8d3ccf3df"
    );
    assert_eq!(
        with_utilities(&found, b"busybox").0.to_string(),
        "db114fbf34fabf08a4999330e9d72c46477747b5b7a8f8f9d1179fc40e48c513"
    );
}

#[test]
fn utilities_and_what_they_are_added_to_count() {
    let all = [(other('1'), b"u"), (other('2'), b"u"), (other('1'), b"v")].map(|(normal, utilities)| with_utilities(&normal, utilities));
    assert!(all[0].0 != all[1].0 && all[0].0 != all[2].0 && all[0].0 != other('1'));
    assert_eq!(all[2].1.differences(&all[0].1), [Difference::Key(text("debug.utilities"))]);
    assert_eq!(all[1].1.differences(&all[0].1), [Difference::Sibling(text("normal"))]);
}

#[test]
fn it_is_read_as_it_is_written() {
    let text = "0123456789abcdef".repeat(4);
    let fingerprint: Fingerprint = text.parse().expect("read");
    assert_eq!(fingerprint.to_string(), text);
    for bad in ["", &text[1..], &text.to_uppercase(), &format!("{text}0"), &text.replace('0', "g")] {
        assert!(bad.parse::<Fingerprint>().is_err(), "{bad}");
    }
}

#[test]
fn parts_are_kept_by_their_fingerprint_and_torn_ones_count_as_nothing() {
    let cache = tempfile::tempdir().expect("a folder");
    let (fingerprint, parts) = Case::new().fingerprint();
    assert_eq!(Parts::kept(cache.path(), &fingerprint), None);
    parts.keep(cache.path(), &fingerprint).expect("kept");
    assert_eq!(Parts::kept(cache.path(), &fingerprint), Some(parts.clone()));
    let file = cache.path().join("fingerprints").join(fingerprint.to_string());
    fs::write(&file, &fs::read(&file).expect("read")[..40]).expect("written");
    assert_eq!(Parts::kept(cache.path(), &fingerprint), None);
    parts.keep(cache.path(), &fingerprint).expect("kept");
    assert_eq!(Parts::kept(cache.path(), &fingerprint), Some(parts));
    assert!(!reads_whole(cache.path(), &fingerprint));
    remember_whole(cache.path(), &fingerprint).expect("kept");
    assert!(reads_whole(cache.path(), &fingerprint) && !reads_whole(cache.path(), &other('1')));
}

#[test]
fn too_many_files_are_told_by_their_folders() {
    let case = Case::new();
    for number in 0..6_000 {
        let folder = case.path("src").join(format!("many/{}", number % 10));
        fs::create_dir_all(&folder).expect("created");
        fs::write(folder.join(number.to_string()), "").expect("written");
    }
    let (_, before) = case.fingerprint();
    fs::write(case.path("src/many/3/13"), "changed").expect("written");
    let (_, after) = case.fingerprint();
    assert_eq!(
        after.differences(&before).iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["file changed: many/3"]
    );
}

/// What stands at a path: a file or a link, by its mode and content.
#[derive(Clone, Debug, PartialEq, Eq)]
enum There {
    File(u32, &'static str),
    Link(&'static str),
    Folder(u32),
}

impl There {
    /// What of it reaches an image.
    fn normal(self) -> Self {
        match self {
            Self::File(mode, content) => Self::File(mode & !0o020, content),
            Self::Folder(mode) => Self::Folder(mode & !0o020),
            link @ Self::Link(_) => link,
        }
    }

    fn put(&self, path: &Path) {
        fs::create_dir_all(path.parent().expect("a parent")).expect("created");
        match self {
            Self::File(mode, content) => {
                fs::write(path, content).expect("written");
                set_mode(path, *mode);
            }
            Self::Link(target) => symlink(target, path).expect("linked"),
            Self::Folder(mode) => {
                fs::create_dir(path).expect("created");
                set_mode(path, *mode);
            }
        }
    }
}

/// A few things, so that two trees are now and then the same.
fn tree() -> impl Strategy<Value = BTreeMap<&'static str, There>> {
    let modes = || prop::sample::select(vec![0o644, 0o664, 0o755]);
    let there = prop_oneof![
        3 => (modes(), prop::sample::select(vec!["", "b"])).prop_map(|(mode, content)| There::File(mode, content)),
        1 => prop::sample::select(vec!["a", "b"]).prop_map(There::Link),
        1 => prop::sample::select(vec![0o755, 0o775, 0o700]).prop_map(There::Folder),
    ];
    prop::collection::btree_map(prop::sample::select(vec!["a", "b", "a-b"]), there, 0..3)
}

fn of_tree(tree: &BTreeMap<&'static str, There>) -> Fingerprint {
    let case = Case::new();
    fs::remove_dir_all(case.path("src")).expect("removed");
    fs::create_dir(case.path("src")).expect("created");
    for (path, there) in tree {
        there.put(&case.path("src").join(path));
    }
    case.fingerprint().0
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Two contexts have the same fingerprint just where they would give the same image.
    #[test]
    fn contexts_are_the_same_just_where_their_fingerprints_are(one in tree(), two in tree()) {
        let normal = |tree: &BTreeMap<&'static str, There>| -> BTreeMap<_, _> {
            tree.iter().map(|(path, there)| (*path, there.clone().normal())).collect()
        };
        prop_assert_eq!(normal(&one) == normal(&two), of_tree(&one) == of_tree(&two));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A name and a value can be cut at any place without two builds being taken for one.
    #[test]
    fn lists_that_differ_never_read_the_same(one in args(), two in args()) {
        let of = |args: &BTreeMap<String, String>| {
            let mut facts = Facts::default();
            for (name, value) in args {
                facts.key(name, value);
            }
            facts.end().0
        };
        prop_assert_eq!(one == two, of(&one) == of(&two));
    }

    /// With the cache warm, torn or cold, after whatever happened to the files.
    #[test]
    fn the_cache_changes_nothing(changes in prop::collection::vec((0..6_usize, 0..4_u8, any::<bool>()), 1..12)) {
        let case = Case::new();
        let dir = tempfile::tempdir().expect("a folder");
        let cache = HashCache::new(Some(dir.path()));
        for (file, content, keep_time) in changes {
            let path = case.path("src").join(format!("f{file}"));
            let time = fs::metadata(&path).and_then(|metadata| metadata.modified());
            fs::write(&path, [content]).expect("written");
            if let (Ok(time), true) = (time, keep_time) {
                fs::File::open(&path).and_then(|file| file.set_modified(time)).expect("set");
            }
            prop_assert_eq!(case.fingerprint_with(&cache), case.fingerprint());
        }
    }
}

fn args() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop::collection::btree_map("[ab=]{0,2}", "[ab=]{0,2}", 0..3)
}
