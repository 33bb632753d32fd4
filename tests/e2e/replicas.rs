//! Images of copied files, which the client makes again from these files instead of taking them out of the daemon.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::time::{Duration, SystemTime};

use crate::builders::{is_classic, needs_no_daemon};
use crate::front::Act;
use crate::releases::Faults;
use crate::staging::is_valid;
use crate::support::Project;

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

fn made_again(step: &str, layers: usize) -> String {
    format!("{step}: made again: its configuration, {layers} layers")
}

#[test]
fn images_of_copied_files_do_not_come_out_of_the_daemon() {
    let Some(project) = project(&["base", "web"]) else { return };
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
            "FROM base\nWORKDIR /work/here\nCOPY server /usr/bin/server\nCOPY . /app/files\nLABEL sign=\"<&>\"\nENTRYPOINT [\"/usr/bin/server\"]\n",
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
    let project = project.file("base/tree.tar", tar.into_inner().expect("finished"));
    let ran = project.run(&["push-all", "--with-debug", "-v"]).ok();
    for (step, layers) in [("base", 3), ("web", 3)] {
        assert!(ran.stderr.contains(&made_again(step, layers)), "{step}: {}", ran.stderr);
    }
    // the layer with utilities is in both
    for step in ["base:debug", "web:debug"] {
        assert!(
            ran.stderr.contains(&format!("{step}: made again: its configuration")),
            "{step}: {}",
            ran.stderr
        );
    }
    assert!(!ran.stderr.contains("images that the daemon exports"), "{}", ran.stderr);
    for image in ["base", "web", "debug-base", "debug-web"] {
        is_valid(&project, image);
        let reference = format!("{}/kevin-{image}", project.registry);
        let id = project.docker(&["image", "inspect", "--format", "{{.Id}}", &reference]);
        assert_eq!(project.registry.manifest(&format!("kevin-{image}"))["config"]["digest"], id.trim());
    }
    // one small change, the rest comes from the cache
    project.write("web/server", format!("another {mark}").repeat(60_000));
    project.run(&["push-image", "web", "-v"]).ok().says(&[&made_again("web", 2)]);
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
    let ran = project.run(&["push-all", "-v"]).ok();
    for image in ["pattern", "owner", "linked"] {
        assert!(!ran.stderr.contains(&format!("{image}: made again")), "{}", ran.stderr);
    }
    // what the daemon has brought is known then
    assert!(ran.stderr.contains(&made_again("above", 1)), "{}", ran.stderr);
    for image in ["pattern", "owner", "linked", "above"] {
        is_valid(&project, image);
    }
    let ran = project.run(&["push-all", "--push-by", "daemon", "--force", "-v"]).ok();
    assert!(!ran.stderr.contains("made again"), "{}", ran.stderr);
}

#[test]
fn a_file_that_changes_before_it_is_uploaded_comes_out_of_the_daemon() {
    let Some(project) = project(&["web"]) else { return };
    let (file, later) = (project.path("web/data"), format!("of later {}", project.registry));
    let content = [project.registry.to_string().into_bytes(), vec![1; 2_000_000]].concat();
    let written = later.clone();
    // the first one asks whether it may push
    let faults = Faults::start(move |seen| {
        if seen.is("POST", "/blobs/uploads/") && seen.before == 1 {
            fs::write(&file, &written).expect("written");
        }
        Act::Pass
    });
    let project = faults
        .before(project)
        .file("web/Dockerfile", "FROM scratch\nCOPY data /data\n")
        .file("web/data", &content);
    let ran = project.run(&["push-all", "-v"]).ok();
    assert!(ran.stderr.contains(&made_again("web", 1)), "{}", ran.stderr);
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
