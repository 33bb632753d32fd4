use super::*;

#[test]
fn escape_and_syntax_stand_at_the_top() {
    let text = "# Syntax = docker/dockerfile:1 x\n#ESCAPE=`\nFROM a `\n AS b\n";
    let dockerfile = read(text);
    let syntax = dockerfile.syntax.expect("there is one");
    assert_eq!(syntax.image.text, "docker/dockerfile:1");
    assert_eq!(&text[syntax.image.span], "docker/dockerfile:1");
    assert_eq!(syntax.line, 1);
    assert_eq!(dockerfile.escape, '`');
    assert_eq!(dockerfile.stages[0].name.as_deref(), Some("b"));
}

#[test]
fn the_first_other_line_ends_them() {
    for before in ["# a comment", "", "# unknown=x", "#", "ARG a"] {
        let dockerfile = read(&format!("{before}\n# escape=`\nFROM a\n"));
        assert_eq!(dockerfile.escape, '\\', "{before:?}");
    }
    assert_eq!(read("# check=skip=all\n# escape=`\nFROM a\n").escape, '`');
}

#[test]
fn below_a_shebang_only_the_syntax_counts() {
    let dockerfile = read("#!/usr/bin/env x\n# syntax=a/b\n# escape=`\nFROM a\n");
    assert_eq!(dockerfile.syntax.expect("there is one").line, 2);
    assert_eq!(dockerfile.escape, '\\');
}

#[test]
fn one_of_a_kind_and_one_of_two_characters() {
    let twice = refusal("# escape=`\n# escape=\\\nFROM a\n");
    assert_eq!(twice, "Dockerfile line 2: only one `escape` directive can be used");
    assert!(refusal("# escape=x\nFROM a\n").contains("not `x`"));
}

#[test]
fn a_foreign_frontend_may_mean_anything() {
    let foreign = read("# syntax=example.com/mocker:2\napiVersion: v1\n");
    assert!(foreign.has_foreign_frontend());
    assert_eq!(foreign.image_references(&args(&[]), Some("x")), Ok(vec![]));
    for own in ["docker/dockerfile", "docker.io/docker/dockerfile:1-labs@sha256:0"] {
        assert!(!read(&format!("# syntax={own}\nFROM a\nNEWER x\n")).has_foreign_frontend());
    }
    assert!(refusal("# syntax=docker/dockerfile:1\nARG a\n").contains("no `FROM`"));
}

#[test]
fn which_frontends_know_named_contexts() {
    let knows = |syntax: &str| read(&format!("# syntax={syntax}\nFROM a\n")).knows_contexts();
    assert!(read("FROM a\n").knows_contexts());
    for image in ["", ":1", ":latest", ":1.4", ":1.10.2", ":1-labs", ":1.7-labs", ":1.4@sha256:0"] {
        assert!(knows(&format!("docker/dockerfile{image}")), "{image}");
    }
    for image in [
        "docker/dockerfile:1.3",
        "docker/dockerfile@sha256:0",
        "docker/dockerfile:1.0-experimental",
        "docker/dockerfile:experimental",
        "x.io/y:1",
    ] {
        assert!(!knows(image), "{image}");
    }
}
