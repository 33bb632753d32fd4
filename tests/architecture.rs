//! Imports point one way, as the picture in `src/lib.rs` says, and only `docker/` names bollard.

use std::fs;
use std::path::{Path, PathBuf};

/// The modules from the top down: one may import those of the groups below its own, and of its own group.
const LAYERS: [&[&str]; 13] = [
    &["commands"],
    &["report"],
    &["release"],
    &["run"],
    &["guard", "publish"],
    &["cli", "docker", "execute", "layers", "resolve", "summary"],
    &["record", "registry"],
    &["fingerprint"],
    &["context", "externals", "plan"],
    &["manifest"],
    &[
        "builder",
        "channel",
        "dockerfile",
        "event",
        "user",
        "credentials",
        "endpoint",
        "git",
        "lock",
    ],
    &["docker_config", "kept", "machine", "proxy", "reference"],
    &["atomic", "problem", "timing", "tls"],
];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries
        .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] })
        .collect()
}

/// Each source file with the name of its module, which is that of its first folder or of the file.
fn modules() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = sources(&root)
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    files
        .map(|path| {
            let first = path
                .strip_prefix(&root)
                .expect("below")
                .components()
                .next()
                .expect("a name")
                .as_os_str()
                .to_string_lossy()
                .into_owned();
            let text = fs::read_to_string(&path).expect("text");
            (first.trim_end_matches(".rs").to_owned(), path, text)
        })
        .collect()
}

/// What stands behind `crate::`: a name, or in braces several, each as far as `::` and the like.
fn imports(text: &str) -> Vec<String> {
    let name = |path: &str| path.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    let named = |import: &str| match import.strip_prefix('{') {
        Some(group) => outermost(group).into_iter().map(name).collect(),
        None => vec![name(import)],
    };
    text.split("crate::").skip(1).flat_map(named).collect()
}

/// The parts of a group up to its closing brace; what is in braces of their own is not parted.
fn outermost(group: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            '}' => {
                parts.push(&group[start..at]);
                break;
            }
            ',' if depth == 0 => {
                parts.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts
}

#[test]
fn all_imports_are_seen() {
    let text = "use crate::plan::{Plan, Work};\nuse crate::{release, report::{self, Form}, run as other};\n\
                use crate::{\n    guard,\n    git::{Repository, Revision},\n    user,\n};\nfn f() { crate::timing::part(\"x\") }\n";
    let seen = ["plan", "release", "report", "run", "guard", "git", "user", "", "timing"];
    assert_eq!(imports(text), seen);
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

#[test]
fn no_module_imports_upward() {
    for (module, path, text) in modules() {
        if ["lib", "main"].contains(&module.as_str()) {
            continue;
        }
        let own = layer(&module).unwrap_or_else(|| panic!("`{module}` is in no layer: put it into the picture and into this test"));
        for imported in imports(&text) {
            let Some(below) = layer(&imported) else { continue };
            assert!(
                below >= own,
                "{}: `{module}` imports `{imported}`, which is above it",
                path.display()
            );
        }
    }
}

#[test]
fn only_the_docker_folder_names_bollard() {
    for (module, path, text) in modules() {
        assert!(module == "docker" || !text.contains("bollard"), "{}", path.display());
    }
}

#[test]
fn only_report_prints() {
    for (module, path, text) in modules() {
        let prints = ["println!", "eprintln!", "print!(", "stdout()", "stderr()"]
            .iter()
            .any(|word| text.contains(word));
        assert!(module == "report" || !prints, "{}", path.display());
    }
}
