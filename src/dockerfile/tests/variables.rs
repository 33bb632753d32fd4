use super::*;

fn base(declared: &str, from: &str, given: &[(&str, &str)]) -> String {
    let text = format!("{declared}\nFROM {from}\n");
    let references = read(&text).image_references(&args(given), None);
    references.expect("expands").remove(0).name
}

#[test]
fn a_default_may_hold_a_sibling() {
    let text = "ARG BASE=base-one\nFROM ${BASE} AS x\n";
    let references = references(text);
    assert_eq!(references[0].name, "base-one");
    assert_eq!(&text[references[0].span.clone()], "${BASE}");
    assert_eq!(references[0].line, 2);
    assert_eq!(renamed(text), "ARG BASE=base-one\nFROM NEW AS x\n");
}

#[test]
fn a_build_argument_goes_before_the_default() {
    assert_eq!(base("ARG B=one", "$B", &[("B", "two")]), "two");
    assert_eq!(base("ARG B", "${B}", &[("B", "two")]), "two");
    assert_eq!(base("ARG A=x\nARG B=$A/y", "$B:${T:-1}", &[]), "x/y:1");
    assert_eq!(base("ARG A=x B=\"${A} y\" C='$A'", "${C}", &[]), "$A");
    assert_eq!(base("ARG A=1\nARG A=2", "i:$A", &[]), "i:2");
}

#[test]
fn an_argument_without_arg_is_unset_but_for_the_predefined() {
    assert_eq!(base("", "i${B}", &[("B", "x")]), "i");
    let given = [("TARGETARCH", "arm64"), ("BUILDPLATFORM", "linux/amd64")];
    assert_eq!(base("", "i-$TARGETARCH", &given), "i-arm64");
    let text = "FROM --platform=$BUILDPLATFORM go AS x\n";
    let platform = images_for(text, &given, None)[0].platform.clone();
    assert_eq!(platform.as_deref(), Some("linux/amd64"));
}

#[test]
fn what_depends_on_the_builder_is_known_to_the_builder_alone() {
    let of_builder = |name: &str| {
        format!(
            "Dockerfile line 2: `{name}` depends on the builder's platform, which only the builder knows: use that of the image (`TARGETARCH`), or give the variable a value in `args`"
        )
    };
    for (declared, from) in [
        ("ARG A", "tool-$BUILDARCH"),
        ("ARG A", "tool-${BUILDVARIANT:-x}"),
        ("ARG TOOL=${A:-tool-${BUILDARCH}}", "$TOOL"),
        ("ARG A", "x:${BUILDPLATFORM#linux/}"),
    ] {
        assert_eq!(mistake(&format!("{declared}\nFROM {from}\n")), of_builder(from));
    }
    assert_eq!(base("ARG A=a", "${A:-$BUILDARCH}", &[]), "a");
    assert_eq!(base("", "tool-$BUILDARCH", &[("BUILDARCH", "arm64")]), "tool-arm64");
    assert_eq!(names(&references("FROM x-$BUILDARCH AS unneeded\nFROM a\n")), ["a"]);
    let references = references("FROM --platform=$BUILDPLATFORM go\nFROM --platform=$TARGETPLATFORM x\nCOPY --from=0 / /\n");
    assert_eq!(references[0].platform.as_deref(), Some(""));
}

#[test]
fn an_argument_of_a_stage_is_not_seen() {
    assert_eq!(images_for("FROM a\nARG B=x\nFROM i$B\n", &[("B", "y")], None)[0].name, "i");
}

#[test]
fn the_target_names_itself() {
    let text = "FROM a AS base-dev\nFROM b AS base-x\nFROM base-$TARGETSTAGE AS dev\nFROM c AS x";
    assert_eq!(names(&images_for(text, &[], Some("dev"))), ["a"]);
    assert_eq!(names(&references("FROM i-$TARGETSTAGE\n")), ["i-default"]);
    assert_eq!(names(&references("FROM i-$TARGETSTAGE AS x\n")), ["i-x"]);
}

#[test]
fn modifiers_are_those_of_the_shell() {
    let declared = "ARG SET=a/b:c\nARG DEEP=a/b/c\nARG EMPTY=\nARG UNSET";
    for (from, expanded) in [
        ("${SET:-d}", "a/b:c"),
        ("${EMPTY:-d}", "d"),
        ("${EMPTY-d}x", "x"),
        ("${UNSET-d}", "d"),
        ("x${UNSET:-}", "x"),
        ("${SET:+d}", "d"),
        ("x${EMPTY:+d}", "x"),
        ("${EMPTY+d}", "d"),
        ("x${UNSET+d}", "x"),
        ("${SET?e}", "a/b:c"),
        ("${EMPTY?e}x", "x"),
        ("${UNSET:-${SET}}", "a/b:c"),
        ("${UNSET:-\"q\"}", "q"),
        ("${DEEP#*/}", "b/c"),
        ("${DEEP##*/}", "c"),
        ("${DEEP%/*}", "a/b"),
        ("${DEEP%%/*}", "a"),
        ("${SET##*[/}", "a/b:c"),
        ("${SET/b/x}", "a/x:c"),
        ("${SET//?/x}", "xxxxx"),
        ("${SET/\\//-}", "a-b:c"),
        ("\"$SET\"", "a/b:c"),
        ("'x'$SET", "xa/b:c"),
        ("\\$SET", "$SET"),
        ("x$1", "x"),
        ("$", "$"),
    ] {
        assert_eq!(base(declared, from, &[]), expanded, "{from}");
    }
}

#[test]
fn what_cannot_be_expanded_is_an_error_with_its_line() {
    let error = |from: &str| mistake(&format!("ARG E=\nFROM {from}\n"));
    assert_eq!(error("${X:?not_there}"), "Dockerfile line 2: in `${X:?not_there}`: X: not_there");
    assert!(error("${X?}").contains("`X` must have a value"));
    assert!(error("${E:?e}").contains("E: e"));
    assert_eq!(error("$X"), "Dockerfile line 2: `$X` comes out empty");
    for broken in ["${X", "${}", "${:x}", "${X^^}", "\"x", "'x", "${X:#y}", "${X/y}"] {
        assert!(error(broken).contains(broken), "{broken}");
    }
    assert!(mistake("ARG A=${X?a}\nFROM b\n").starts_with("Dockerfile line 1: "));
    let deep = format!("{}x{}", "${A-".repeat(500), "}".repeat(500));
    assert!(error(&deep).contains("nested"));
}
