//! What the classic builder is sent, so that an image gets the context's own files and none of ours.
//!
//! That builder reads the Dockerfile from the context. A Dockerfile that is not a file of the context as it stands must
//! be put there and be gone again before the first `COPY .`: the daemon removes the Dockerfile and `.dockerignore`
//! where the `.dockerignore` that it finds excludes them (moby, `builder/remotecontext/detect.go`).

use std::fs;
use std::path::Path;

use super::dockerignore::Dockerignore;
use super::{Context, DOCKERIGNORE, Inline, Kind, parse_rules, unreadable};
use crate::manifest::DockerfileSource;
use crate::problem::Problem;

const DOCKERFILE_MODE: u32 = 0o600;

/// The Dockerfile's place in the context, and the files that are sent besides the context's own.
#[derive(Debug)]
pub struct Shipment {
    pub dockerfile: String,
    pub inline: Vec<Inline>,
    pub note: Option<String>,
}

/// `text` is the Dockerfile to build with; it differs from the source's own where siblings are named.
///
/// # Errors
/// When the context's `.dockerignore` cannot be read.
pub fn shipment(context: &Context, source: &DockerfileSource, text: &str) -> Result<Shipment, Problem> {
    if let Some(own) = own_place(context, source).filter(|_| text == source.text) {
        return Ok(Shipment {
            dockerfile: own,
            inline: Vec::new(),
            note: None,
        });
    }
    let dockerfile = |path: &str| Inline::file(path, text.as_bytes(), DOCKERFILE_MODE);
    let hidden = hidden_name(context);
    if !is_sent(context, Path::new(DOCKERIGNORE)) {
        let rules = format!("{DOCKERIGNORE}\n{hidden}\n");
        return Ok(Shipment {
            inline: vec![dockerfile(&hidden), Inline::file(DOCKERIGNORE, rules.as_bytes(), DOCKERFILE_MODE)],
            dockerfile: hidden,
            note: None,
        });
    }
    let path = context.root.join(DOCKERIGNORE);
    let own_rules = fs::read(&path).map_err(|error| unreadable(&path, &error))?;
    let rules = parse_rules(&path, &own_rules)?;
    if let Some(excluded) = excluded_name(context, &String::from_utf8_lossy(&own_rules), &rules) {
        return Ok(Shipment {
            inline: vec![dockerfile(&excluded)],
            dockerfile: excluded,
            note: None,
        });
    }
    let longer = [own_rules.as_slice(), b"\n", hidden.as_bytes(), b"\n"].concat();
    Ok(Shipment {
        inline: vec![dockerfile(&hidden), Inline::file(DOCKERIGNORE, &longer, 0o644)],
        note: Some(format!(
            "where the Dockerfile copies {DOCKERIGNORE}, the image's has one line more, `{hidden}`: the classic builder needs it"
        )),
        dockerfile: hidden,
    })
}

/// The Dockerfile's path in the context, if it is sent as a file of it.
fn own_place(context: &Context, source: &DockerfileSource) -> Option<String> {
    let place = source.path.as_ref()?.strip_prefix(&context.root).ok()?;
    let is_plain = |entry: &&super::Entry| *entry.path == *place && matches!(entry.kind, Kind::File { .. });
    context.entries.iter().find(is_plain)?;
    place.to_str().map(str::to_owned)
}

fn hidden_name(context: &Context) -> String {
    let mut name = ".lattice-images.Dockerfile".to_owned();
    while is_sent(context, Path::new(&name)) {
        name.push('_');
    }
    name
}

fn is_sent(context: &Context, path: &Path) -> bool {
    context.entries.iter().any(|entry| entry.path.starts_with(path))
}

/// A name that the context's own `.dockerignore` excludes, so that the daemon removes the file and leaves `.dockerignore` as it is.
fn excluded_name(context: &Context, own_rules: &str, rules: &Dockerignore) -> Option<String> {
    let candidates = own_rules
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with(['#', '!']) && !line.contains(['[', '\\']));
    candidates
        .map(|rule| rule.trim_matches('/').replace("**/", "").replace(['*', '?'], "x"))
        .find(|name| {
            let plain = !name.is_empty() && !name.contains('/') && name != "." && name != ".." && name != DOCKERIGNORE;
            plain && rules.excludes(name) && !rules.excludes(DOCKERIGNORE) && !is_sent(context, Path::new(name))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::tree::walk;
    use std::path::PathBuf;

    fn shipped(files: &[(&str, &str)], text: &str) -> (Shipment, Vec<String>) {
        let dir = tempfile::tempdir().expect("a folder");
        for (name, content) in files {
            fs::write(dir.path().join(name), content).expect("written");
        }
        let rules = fs::read(dir.path().join(DOCKERIGNORE)).unwrap_or_default();
        let context = walk(dir.path(), &Dockerignore::parse(&rules).expect("rules")).expect("walked");
        let source = DockerfileSource {
            path: Some(dir.path().join("Dockerfile")),
            file: "Dockerfile".into(),
            text: "FROM scratch\n".into(),
            parsed: crate::dockerfile::parse("FROM scratch\n").expect("parsed"),
        };
        let shipment = shipment(&context, &source, text).expect("shipped");
        let inline = shipment
            .inline
            .iter()
            .map(|file| format!("{}={}", file.path, String::from_utf8_lossy(&file.content)))
            .collect();
        (shipment, inline)
    }

    const OWN: &str = "FROM scratch\n";
    const CHANGED: &str = "FROM sha256:0\n";

    #[test]
    fn a_dockerfile_of_the_context_goes_as_it_is() {
        let (shipment, inline) = shipped(&[("Dockerfile", OWN)], OWN);
        assert_eq!(shipment.dockerfile, "Dockerfile");
        assert!(inline.is_empty());
    }

    #[test]
    fn a_changed_one_is_hidden() {
        let (shipment, inline) = shipped(&[("Dockerfile", OWN)], CHANGED);
        assert_eq!(shipment.dockerfile, ".lattice-images.Dockerfile");
        assert_eq!(inline[1], ".dockerignore=.dockerignore\n.lattice-images.Dockerfile\n");
    }

    #[test]
    fn a_dockerignore_that_an_image_may_copy_stays_as_it_is() {
        let (shipment, inline) = shipped(
            &[("Dockerfile", OWN), (DOCKERIGNORE, "# c\n!keep\n*.log\n"), ("y.log", "")],
            CHANGED,
        );
        assert_eq!(shipment.dockerfile, "x.log");
        assert_eq!(inline, [format!("x.log={CHANGED}")]);
        assert!(shipment.note.is_none());
    }

    #[test]
    fn where_it_cannot_stay_a_note_says_so() {
        let (shipment, inline) = shipped(&[("Dockerfile", OWN), (DOCKERIGNORE, "# nothing\n")], CHANGED);
        assert_eq!(inline[1], ".dockerignore=# nothing\n\n.lattice-images.Dockerfile\n");
        assert!(shipment.note.is_some());
    }

    #[test]
    fn an_excluded_dockerfile_is_sent_and_removed_again() {
        let (shipment, _) = shipped(&[("Dockerfile", OWN), (DOCKERIGNORE, "Dockerfile\n")], OWN);
        assert_eq!(shipment.dockerfile, "Dockerfile");
        assert_eq!(shipment.inline, [Inline::file("Dockerfile", OWN.as_bytes(), DOCKERFILE_MODE)]);
        let _: PathBuf = shipment.dockerfile.into();
    }
}
