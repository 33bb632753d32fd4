//! Images of copied files, which the client makes again from these files instead of taking them out of the daemon, or leaving
//! them to a builder.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, SystemTime};

use crate::builders::{can_be_apart, is_classic, needs_no_daemon};
use crate::doors::Door;
use crate::front::Act;
use crate::releases::Faults;
use crate::staging::is_valid;
use crate::support::{NOWHERE, Project};

/// None where no daemon has a graph driver store and `BuildKit`.
fn project(images: &[&str]) -> Option<Project> {
    if needs_no_daemon() || is_classic() {
        return None;
    }
    let images: String = images.iter().map(|image| format!("{image}: {{ context: {image} }}, ")).collect();
    let project = Project::new(&format!("debug: {{ utilities: ./busybox }}\nimages: {{ {images} }}")).busybox("busybox");
    let project = project.with("LATTICE_IMAGES_PUSH_BY", "");
    (!project.has_containerd_store()).then_some(project)
}

/// Its layers may be in the registry by then.
fn made_again(step: &str) -> String {
    format!("{step}: made again: its configuration")
}

/// `base` and `web`, of all that can be made again.
fn copied(project: Project) -> Project {
    let long = format!("{}/{}", "folder-of-a-long-name/".repeat(5), "n".repeat(90));
    // what comes from the cache tells nothing of when it was made
    let mark = project.registry.to_string();
    let project = project
        .file(
            "base/Dockerfile",
            "FROM scratch\nCOPY lib /usr/lib/\nCOPY etc/a etc/b /etc/\nADD tree.tar /opt\n",
        )
        .file("base/lib/one", &mark)
        .file("base/lib/deep/er/two", vec![7; 700_000])
        .file(&format!("base/lib/{long}"), "long")
        .file("base/etc/a", &mark)
        .file("base/etc/b", "b <&>")
        .file(
            "web/Dockerfile",
            "FROM base\nWORKDIR /srv/here\nCOPY server /usr/bin/server\nCOPY . /app/files\nLABEL sign=\"<&>\"\nENTRYPOINT [\"/usr/bin/server\"]\n",
        )
        .file("web/server", mark.repeat(60_000))
        .file("web/empty", "")
        .file("web/mark", &mark);
    symlink("one", project.path("base/lib/link")).expect("linked");
    fs::create_dir(project.path("base/lib/none")).expect("created");
    for (path, mode) in [("base/lib/one", 0o4755), ("base/lib/deep", 0o1700), ("web/server", 0o755)] {
        fs::set_permissions(project.path(path), Permissions::from_mode(mode)).expect("set");
    }
    let mut tar = tar::Builder::new(Vec::new());
    for (name, kind) in [
        ("./", tar::EntryType::Directory),
        ("packed/", tar::EntryType::Directory),
        ("packed/file", tar::EntryType::Regular),
    ] {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o750);
        header.set_mtime(1_000_000_000);
        header.set_entry_type(kind);
        header.set_uid(0);
        header.set_gid(0);
        let content = if kind.is_file() { mark.as_bytes() } else { b"" };
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, name, content).expect("appended");
    }
    project.file("base/tree.tar", tar.into_inner().expect("finished"))
}

#[test]
fn images_of_copied_files_do_not_come_out_of_the_daemon() {
    let Some(project) = project(&["base", "web"]) else { return };
    let faults = Faults::start(|_| Act::Pass);
    let project = copied(faults.before(project));
    let mark = project.registry.to_string();
    let ran = project.run(&["push-all", "--with-debug", "-v"]).ok();
    for step in ["base", "web", "base:debug", "web:debug"] {
        assert!(ran.stderr.contains(&made_again(step)), "{step}: {}", ran.stderr);
        assert!(ran.stderr.contains(&format!("bring ahead {step}\n")), "{step}: {}", ran.stderr);
    }
    let images = ["base", "web", "debug-base", "debug-web"];
    let layers: BTreeSet<String> = images
        .iter()
        .flat_map(|image| project.registry.layers(&format!("kevin-{image}")))
        .collect();
    let uploads = faults.front().count("PATCH", "/blobs/uploads/");
    assert_eq!(uploads, layers.len(), "each once, and no other");
    assert!(!ran.stderr.contains("images that the daemon exports"), "{}", ran.stderr);
    for image in images {
        is_valid(&project, image);
        let manifest = project.registry.manifest(&format!("kevin-{image}"));
        let id = manifest["config"]["digest"].as_str().expect("a digest");
        assert_eq!(project.docker(&["image", "inspect", "--format", "{{.Id}}", id]).trim(), id);
    }
    // one small change, the rest comes from the cache
    project.write("web/server", format!("another {mark}").repeat(60_000));
    project.run(&["push-image", "web", "-v"]).ok().says(&[&made_again("web")]);
    is_valid(&project, "web");
}

#[test]
fn what_cannot_be_made_again_comes_from_the_daemon() {
    let Some(project) = project(&["pattern", "owner", "linked", "above"]) else {
        return;
    };
    let project = project
        .file("pattern/Dockerfile", "FROM scratch\nCOPY dat[a] /\n")
        .file("owner/Dockerfile", "FROM scratch\nCOPY --chown=7:7 data /\n")
        .file("linked/Dockerfile", "FROM scratch\nCOPY data more /\n")
        .file("above/Dockerfile", "FROM pattern\nCOPY data /data2\n");
    for image in ["pattern", "owner", "linked", "above"] {
        project.write(&format!("{image}/data"), format!("{image} {}", project.registry));
    }
    fs::hard_link(project.path("linked/data"), project.path("linked/more")).expect("linked");
    let ran = project.run(&["push-image", "pattern", "owner", "linked", "-v"]).ok();
    assert!(!ran.stderr.contains("made again"), "{}", ran.stderr);
    // what the daemon has brought is known then
    project.run(&["push-all", "-v"]).ok().says(&[&made_again("above")]);
    for image in ["pattern", "owner", "linked", "above"] {
        is_valid(&project, image);
    }
    let ran = project.run(&["push-all", "--push-by", "daemon", "--force", "-v"]).ok();
    assert!(!ran.stderr.contains("made again"), "{}", ran.stderr);
}

/// Writes to the file as soon as the image is built and pushed, which its configuration tells. No layer is taken that was read
/// before.
fn changing(file: PathBuf, content: Vec<u8>) -> Faults {
    const BUILT: usize = 1;
    let state = AtomicUsize::new(0);
    Faults::start(move |seen| {
        if seen.is("PUT", "/kevin-web/blobs/uploads/") && !seen.body.is_empty() {
            fs::write(&file, &content).expect("written");
            state.store(BUILT, SeqCst);
        }
        let is_early = || state.load(SeqCst) < BUILT || state.compare_exchange(BUILT, BUILT + 1, SeqCst, SeqCst).is_ok();
        Act::when(seen.method == "PATCH" && is_early(), || Act::status(503))
    })
}

#[test]
fn a_file_that_changes_before_it_is_uploaded_comes_out_of_the_daemon() {
    let Some(project) = project(&["web"]) else { return };
    let (file, later) = (project.path("web/data"), format!("of later {}", project.registry));
    let content = [project.registry.to_string().into_bytes(), vec![1; 2_000_000]].concat();
    let faults = changing(file, later.clone().into_bytes());
    let project = faults
        .before(project)
        .file("web/Dockerfile", "FROM scratch\nCOPY data /data\n")
        .file("web/data", &content);
    let ran = project.run(&["push-all", "-v"]).ok();
    assert!(ran.stderr.contains(&made_again("web")), "{}", ran.stderr);
    assert!(ran.stderr.contains("images that the daemon exports"), "{}", ran.stderr);
    assert_eq!(fs::read(project.path("web/data")).expect("read"), later.as_bytes());
    is_valid(&project, "web");
    assert!(project.registry.files("kevin-web")["data"].content == content, "what was built");
}

#[test]
fn an_image_of_copied_files_is_as_old_as_the_newest_of_them() {
    let Some(project) = project(&["web"]) else { return };
    let content = project.registry.to_string();
    let project = project
        .file("web/Dockerfile", "FROM scratch\nCOPY data /data\nLABEL sign=\"<&>\"\n")
        .file("web/data", &content);
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_234_567_890);
    let set = File::options()
        .write(true)
        .open(project.path("web/data"))
        .and_then(|file| file.set_modified(time));
    set.expect("set");
    project.run(&["push-all"]).ok();
    let reference = format!("{}/kevin-web", project.registry);
    let created = project.docker(&["image", "inspect", "--format", "{{.Created}}", &reference]);
    assert_eq!(created.trim(), "2009-02-13T23:31:30Z");
    let digest = project.registry.digest("kevin-web");
    project.run(&["push-all", "--no-cache"]).ok();
    assert_eq!(project.registry.digest("kevin-web"), digest, "the same files make the same image");
}

/// Without any daemon.
fn beside(door: &Door, images: &[&str]) -> Project {
    let images: String = images.iter().map(|image| format!("{image}: {{ context: {image} }}, ")).collect();
    let project = Project::new(&format!("debug: {{ utilities: ./busybox }}\nimages: {{ {images} }}")).busybox("busybox");
    // whether it is near is a matter of time
    let project = project.with("LATTICE_IMAGES_PUSH_BY", "client");
    project.with("DOCKER_HOST", NOWHERE).with("LATTICE_IMAGES_BUILDER", door.address())
}

#[test]
fn a_builder_leaves_copied_files_to_the_client() {
    if !can_be_apart() {
        return;
    }
    let door = Door::buildkit(None);
    let faults = Faults::start(|_| Act::Pass);
    let project = copied(faults.before(beside(&door, &["base", "web"])));
    let ran = project.run(&["push-all", "--with-debug", "-v"]).ok();
    for step in ["base", "web", "base:debug", "web:debug"] {
        assert!(ran.stderr.contains(&format!("bring ahead {step}\n")), "{step}: {}", ran.stderr);
    }
    assert!(!ran.stderr.contains("the builder pushes it"), "{}", ran.stderr);
    let pushed_in = |tag: &str| faults.front().count("PUT", &format!("/manifests/{tag}"));
    assert_eq!(pushed_in("in-progress"), 0, "no builder has pushed");
    project
        .run(&["push-all", "--with-debug", "--force", "--push-by", "daemon", "--user", "other"])
        .ok();
    assert!(pushed_in("in-progress") > 0);
    // it has an archive, which the builder unpacks
    let of = |channel: &str| project.registry.config(&format!("{channel}-base"))["rootfs"].clone();
    assert_eq!(of("kevin"), of("other"), "the layers are the builder's, byte for byte");
    for image in ["base", "web", "debug-base", "debug-web"] {
        is_valid(&project, image);
        let files = |channel: &str| project.registry.files(&format!("{channel}-{image}"));
        assert_eq!(files("kevin"), files("other"), "{image}");
    }
    // one small change, on a base that is published
    let mark = format!("another {}", project.registry);
    project.write("web/mark", &mark);
    let ran = project.run(&["push-image", "web", "-v"]).ok();
    assert!(ran.stderr.contains("bring ahead web\n"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("the builder pushes it"), "{}", ran.stderr);
    is_valid(&project, "web");
    assert_eq!(project.registry.files("kevin-web")["app/files/mark"].content, mark.as_bytes());
}

#[test]
fn what_is_known_to_the_last_entry_a_builder_is_not_sent() {
    if !can_be_apart() {
        return;
    }
    let door = Door::buildkit(None);
    let project = beside(&door, &["base", "web"]);
    // what comes from the builder's cache has the times of then
    let mark = project.registry.to_string();
    let of_base = "FROM scratch\nCOPY lib /usr/lib/\nCOPY lib/deep/two /usr/lib/deep/too\nCOPY . /all\n";
    let of_web = "FROM base\nWORKDIR /srv/here\nCOPY data there/\nCOPY --chmod=600 data /usr/lib/one\nCOPY tree /\nCOPY . .\n";
    let project = project
        .file("base/Dockerfile", format!("{of_base}# {mark}\n"))
        .file("base/lib/one", &mark)
        .file("base/lib/deep/two", mark.repeat(10_000))
        .file("web/Dockerfile", format!("{of_web}# {mark}\n"))
        .file("web/data", format!("data of {mark}"))
        .file("web/tree/usr/lib/deep/two", format!("of the tree of {mark}"));
    symlink("../one", project.path("base/lib/deep/link")).expect("linked");
    fs::create_dir(project.path("web/tree/none")).expect("created");
    for (path, mode) in [
        ("base/lib", 0o711),
        ("base/lib/deep", 0o1750),
        ("base/lib/one", 0o4755),
        ("web/tree/usr", 0o700),
    ] {
        fs::set_permissions(project.path(path), Permissions::from_mode(mode)).expect("set");
    }
    let images = ["base", "web", "debug-base", "debug-web"];
    let digests = |channel: &str| images.map(|image| project.registry.digest(&format!("{channel}-{image}")).expect("pushed"));
    let of_context = "of `context`";
    let ran = project.run(&["push-all", "--with-debug", "-v"]).ok();
    assert!(!ran.stderr.contains(of_context), "{}", ran.stderr);
    project.run(&["push-all", "--with-debug", "--force", "--user", "later"]).ok();
    assert_eq!(digests("kevin"), digests("later"), "the same files make the same image");
    let by_builder = [
        "push-all",
        "--with-debug",
        "--force",
        "--push-by",
        "daemon",
        "--user",
        "other",
        "-v",
    ];
    let ran = project.run(&by_builder).ok();
    assert!(ran.stderr.contains(of_context), "{}", ran.stderr);
    for image in images {
        is_valid(&project, image);
        let files = |channel: &str| project.registry.files(&format!("{channel}-{image}"));
        assert_eq!(files("kevin"), files("other"), "{image}");
    }
    // folders of the layers below are as old as they were
    let before = project.registry.layers("kevin-web");
    project.write("web/tree/usr/lib/deep/two", "newer");
    let newer = File::options().write(true).open(project.path("web/tree/usr/lib/deep/two"));
    let later = SystemTime::now() + Duration::from_secs(100);
    newer.expect("opened").set_modified(later).expect("set");
    project.run(&["push-all"]).ok();
    let after = project.registry.layers("kevin-web");
    assert_eq!((&after[..6], after.len()), (&before[..6], 8));
    assert_ne!(after[6], before[6]);
}

#[test]
fn what_cannot_be_made_again_a_builder_pushes() {
    if !can_be_apart() {
        return;
    }
    let door = Door::buildkit(None);
    let project = beside(&door, &["pattern", "owner", "above", "link", "long"])
        .file("pattern/Dockerfile", "FROM scratch\nCOPY dat[a] /\n")
        .file("owner/Dockerfile", "FROM scratch\nCOPY --chown=7:7 data /\n")
        .file("above/Dockerfile", "FROM pattern\nCOPY data /data2\n")
        // what is in a folder that is a link goes elsewhere
        .file("link/Dockerfile", "FROM scratch\nCOPY tree /\nCOPY data /bin/data\n");
    let long = "n".repeat(150);
    let project = project
        .file("long/Dockerfile", "FROM scratch\nCOPY . /\n")
        .file(&format!("long/{long}"), "long");
    for image in ["pattern", "owner", "above", "link", "long"] {
        project.write(&format!("{image}/data"), format!("{image} {}", project.registry));
    }
    fs::create_dir_all(project.path("link/tree/usr/bin")).expect("created");
    fs::write(project.path("link/tree/usr/bin/tool"), "tool").expect("written");
    symlink("usr/bin", project.path("link/tree/bin")).expect("linked");
    project.run(&["push-all", "--with-debug", "-v"]).ok();
    for image in ["pattern", "owner", "above", "link", "long"] {
        is_valid(&project, image);
        is_valid(&project, &format!("debug-{image}"));
    }
    assert_eq!(project.registry.files("kevin-long")[&long].content, b"long");
    let files = project.registry.files("kevin-link");
    assert_eq!(files["usr/bin/data"].content, format!("link {}", project.registry).into_bytes());
    assert_eq!(files["usr/bin/tool"].content, b"tool");
}

/// What a program needs to open raw sockets (Linux, `capabilities(7)`): `cap_net_raw+ep`.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

#[test]
fn what_an_archive_has_of_extended_attributes_is_kept() {
    if !can_be_apart() {
        return;
    }
    let mut archive = tar::Builder::new(Vec::new());
    let record = ("SCHILY.xattr.security.capability", &CAPABILITY[..]);
    archive.append_pax_extensions([record]).expect("appended");
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(4);
    archive.append_data(&mut header, "ping", &b"ping"[..]).expect("appended");
    let door = Door::buildkit(None);
    let project = beside(&door, &["web"])
        .file("web/Dockerfile", "FROM scratch\nADD ping.tar /bin/\n")
        .file("web/ping.tar", archive.into_inner().expect("finished"));
    project.run(&["push-all", "-v"]).ok();
    let files = project.registry.files("kevin-web");
    assert_eq!(files["bin/ping"].attributes["security.capability"], CAPABILITY);
}

#[test]
fn a_file_that_changes_before_a_client_uploads_it_is_an_error() {
    if !can_be_apart() {
        return;
    }
    let door = Door::buildkit(None);
    let project = beside(&door, &["web"])
        .file("web/Dockerfile", "FROM scratch\nCOPY data /data\n")
        .file("web/data", vec![1; 2_000_000]);
    let faults = changing(project.path("web/data"), b"of later".into());
    let project = faults.before(project);
    project.run(&["push-all"]).ended(1).says(&[
        "files changed before they were uploaded",
        "hint: run again when the context is at rest",
        "nothing was published",
    ]);
    project.run(&["push-all"]).ok();
    assert_eq!(project.registry.files("kevin-web")["data"].content, b"of later");
}
