use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn read(text: &str) -> Dockerfile {
    parse(text).unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

fn refusal(text: &str) -> String {
    parse(text).expect_err(text).to_string()
}

fn args(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
    pairs.iter().map(owned).collect()
}

fn references(text: &str) -> Vec<ImageReference> {
    images_for(text, &[], None)
}

fn images_for(text: &str, given: &[(&str, &str)], target: Option<&str>) -> Vec<ImageReference> {
    let references = read(text).image_references(&args(given), target);
    references.unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

fn mistake(text: &str) -> String {
    let error = read(text).image_references(&args(&[]), None);
    error.expect_err(text).to_string()
}

fn names(references: &[ImageReference]) -> Vec<&str> {
    references.iter().map(|reference| reference.name.as_str()).collect()
}

/// The text once every image is called `NEW`.
fn renamed(text: &str) -> String {
    let new = |reference: &ImageReference| (reference.span.clone(), "NEW".to_owned());
    let replacements: Vec<_> = references(text).iter().map(new).collect();
    read(text).replace(&replacements)
}

fn words(words: &[Word]) -> Vec<&str> {
    words.iter().map(|word| word.text.as_str()).collect()
}

fn only(text: &str) -> Instruction {
    let dockerfile = read(&format!("FROM scratch\n{text}"));
    assert_eq!(dockerfile.instructions.len(), 2, "{text:?}");
    dockerfile.instructions[1].clone()
}

mod directives {
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
}

mod lines {
    use super::*;

    #[test]
    fn a_continuation_may_be_followed_by_blanks_comments_and_empty_lines() {
        let text = "FROM \\  \t\n# a comment\n\n   # another\n  alpine \\\n AS \\\nx\nRUN y\n";
        let dockerfile = read(text);
        assert_eq!(dockerfile.stages[0].name.as_deref(), Some("x"));
        assert_eq!(dockerfile.instructions[1].line, 8);
        let reference = &references(text)[0];
        assert_eq!((reference.name.as_str(), reference.line), ("alpine", 5));
    }

    #[test]
    fn a_word_may_be_continued() {
        let text = "FROM al\\\n# c\npi\\\nne AS x\nRUN y\n";
        assert_eq!(names(&references(text)), ["alpine"]);
        assert_eq!(renamed(text), "FROM NEW AS x\nRUN y\n");
    }

    #[test]
    fn an_escaped_escape_continues_nothing() {
        assert_eq!(read("FROM a\nRUN x \\\\\nRUN y\n").instructions.len(), 3);
    }

    #[test]
    fn the_end_of_the_file_ends_a_continuation() {
        assert_eq!(words(&only("RUN x \\").args), ["x"]);
        assert_eq!(words(&only("RUN x \\\n\n# c").args), ["x"]);
    }

    #[test]
    fn marks_and_returns_do_not_reach_the_words() {
        let text = "\u{FEFF}FROM \\\r\n  base:1\r\nCOPY --from=other a \\\r\n b\r\n";
        assert_eq!(names(&references(text)), ["base:1", "other"]);
        let new = "\u{FEFF}FROM \\\r\n  NEW\r\nCOPY --from=NEW a \\\r\n b\r\n";
        assert_eq!(renamed(text), new);
    }

    #[test]
    fn a_no_break_space_indents_but_does_not_separate() {
        assert_eq!(read("FROM a\n\u{A0}# c\n").instructions.len(), 1);
        assert!(refusal("FROM\u{A0}a\n").contains("unknown instruction"));
        assert_eq!(names(&references("FROM\u{B}a\n")), ["a"]);
    }

    #[test]
    fn a_line_is_as_long_as_docker_reads_it() {
        let longest = format!("FROM a\nRUN {}", "x".repeat(65531));
        assert_eq!(read(&longest).instructions.len(), 2);
        assert!(refusal(&format!("{longest}x")).starts_with("Dockerfile line 2: "));
    }
}

mod instructions {
    use super::*;

    #[test]
    fn what_no_builder_takes_is_refused() {
        assert_eq!(refusal(""), "Dockerfile line 1: there is no `FROM`");
        assert_eq!(refusal("# only\n\n"), "Dockerfile line 1: there is no `FROM`");
        // it ends dockerd 20.10
        assert_eq!(refusal("ARG x\n"), "Dockerfile line 1: there is no `FROM`");
        assert!(refusal("ARG x\nCOPY a b\nFROM a\n").starts_with("Dockerfile line 2: `COPY`"));
        assert_eq!(refusal("FROM a\n\nFOO x\n"), "Dockerfile line 3: unknown instruction `FOO`");
        for from in ["FROM", "FROM a b", "FROM a as", "FROM a as b # c", "FROM a like b"] {
            assert!(refusal(from).contains("`FROM` takes"), "{from}");
        }
        for name in ["1a", "a/b", "-a", "é", "$x"] {
            assert!(refusal(&format!("FROM a AS {name}")).contains("cannot name"), "{name}");
        }
    }

    #[test]
    fn what_a_builder_judges_better_is_kept() {
        for lenient in ["COPY a", "COPY", "RUN", "FROM Not:a:reference", "EXPOSE x", "ENV a"] {
            read(&format!("FROM a\n{lenient}\n"));
        }
        read("FROM a AS x\nFROM b AS X\n");
    }

    #[test]
    fn keywords_are_read_in_any_case_and_kept_in_one() {
        let dockerfile = read("from a as B\n\trun x\n");
        assert_eq!(dockerfile.instructions[0].keyword, "FROM");
        assert_eq!(dockerfile.instructions[1].keyword, "RUN");
        assert_eq!(dockerfile.stages[0].name.as_deref(), Some("b"));
    }

    #[test]
    fn flags_lose_their_quotes_and_escapes() {
        let copy = only("COPY --from=\"a b\" --ch\\\nown=1 --link --x='y'z --a\\ b=c -- --d e /");
        let flags: Vec<_> = copy.flags.iter().map(|flag| flag.name.as_str()).collect();
        assert_eq!(flags, ["from", "chown", "link", "x", "a b"]);
        assert_eq!(copy.flag("from").expect("a value").text, "a b");
        assert_eq!(copy.flag("chown").expect("a value").text, "1");
        assert_eq!(copy.flag("link"), None);
        assert_eq!(copy.flag("x").expect("a value").text, "yz");
        assert_eq!(words(&copy.args), ["--d", "e", "/"]);
    }

    #[test]
    fn lists_are_read_as_json_or_else_as_words() {
        let copy = only(r#"COPY ["a b" , "c\u0041\"\ud83d\ude00"]"#);
        assert_eq!(words(&copy.args), ["a b", "cA\"😀"]);
        assert!(copy.json);
        for shell in [r#"["a",]"#, r#"["a" "b"]"#, r#"["a"] x"#, "[a]", r#"["\x"]"#, r#"["a"#] {
            assert!(!only(&format!("RUN {shell}")).json, "{shell}");
        }
        assert!(only("CMD [ ]").json);
    }

    #[test]
    fn sources_are_all_but_the_last_and_the_heredocs() {
        let copy = only("COPY --chown=1 a $B <<E c/* /to/\nx\nE\n");
        let sources: Vec<_> = copy.sources().map(|word| word.text.as_str()).collect();
        assert_eq!(sources, ["a", "$B", "c/*"]);
        assert_eq!(only("RUN a b").sources().count(), 0);
        assert_eq!(only("ADD").sources().count(), 0);
        assert_eq!(only(r#"COPY ["<<a", "b"]"#).sources().count(), 1);
    }

    #[test]
    fn mounts_are_read_field_by_field() {
        let run = only("RUN --mount=from=a,src=/s,Target=/t --mount=\"type=CACHE,id=x\" --mount y");
        assert_eq!(run.mounts.len(), 2);
        assert_eq!(run.mounts[0].kind, "bind");
        assert_eq!(run.mounts[0].from.as_ref().expect("one").text, "a");
        assert_eq!(run.mounts[0].source.as_deref(), Some("/s"));
        assert_eq!(run.mounts[0].target.as_deref(), Some("/t"));
        assert_eq!(run.mounts[1].kind, "cache");
        assert_eq!(words(&run.args), ["y"]);
        let quoted = only(r#"RUN --mount=\"from=a\",\"source=b,c\" y"#);
        assert_eq!(quoted.mounts[0].from.as_ref().expect("one").text, "a");
        assert_eq!(quoted.mounts[0].source.as_deref(), Some("b,c"));
    }

    #[test]
    fn onbuild_defers_an_instruction() {
        let onbuild = only("ONBUILD COPY --from=x a b");
        let trigger = onbuild.trigger.expect("one");
        assert_eq!(trigger.keyword, "COPY");
        assert_eq!(trigger.flag("from").expect("a value").text, "x");
        assert_eq!(trigger.stage, Some(0));
        assert_eq!(only("ONBUILD").trigger, None);
    }

    #[test]
    fn each_knows_its_line_and_stage() {
        let dockerfile = read("ARG a\nFROM b\nRUN \\\n c\nFROM d\nRUN e\n");
        let seen: Vec<_> = dockerfile
            .instructions
            .iter()
            .map(|instruction| (instruction.line, instruction.stage))
            .collect();
        let stage = [(1, None), (2, Some(0)), (3, Some(0)), (5, Some(1)), (6, Some(1))];
        assert_eq!(seen, stage);
        assert_eq!(dockerfile.instructions_of(1).count(), 2);
    }
}

mod heredocs {
    use super::*;

    fn contents(text: &str) -> Vec<(String, String)> {
        let dockerfile = read(text);
        let heredocs = dockerfile.instructions.iter().flat_map(|one| &one.heredocs);
        heredocs
            .map(|one| (one.name.clone(), dockerfile.text()[one.content.clone()].to_owned()))
            .collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        args(pairs).into_iter().collect()
    }

    #[test]
    fn several_may_follow_one_line() {
        let text = "FROM a\nRUN <<A cat <<-\"B\" > /x\nFROM x\nA\ny\n\tB\nRUN z\n";
        assert_eq!(contents(text), pairs(&[("A", "FROM x\n"), ("B", "y\n")]));
        let run = &read(text).instructions[1];
        assert!(run.heredocs[0].expands && !run.heredocs[0].strips_tabs);
        assert!(!run.heredocs[1].expands && run.heredocs[1].strips_tabs);
        assert_eq!(names(&references(text)), ["a"]);
    }

    #[test]
    fn they_follow_copy_add_onbuild_and_a_continued_line() {
        assert_eq!(contents("FROM a\nCOPY <<E \\\n /d\n1\nE\n"), pairs(&[("E", "1\n")]));
        assert_eq!(contents("FROM a\nADD x 3<<'E' /d\nE\n"), pairs(&[("E", "")]));
        assert_eq!(contents("FROM a\nONBUILD RUN << E\n1\nE\n"), pairs(&[("E", "1\n")]));
        assert_eq!(contents("FROM a\r\nRUN <<E\r\n1\r\nE\r\n"), pairs(&[("E", "1\r\n")]));
    }

    #[test]
    fn what_only_looks_like_one_is_none() {
        for line in [
            "RUN echo $((1<<x))",
            "RUN cat <<<word",
            "RUN echo \"<<E\"",
            "RUN echo '<<E'",
            "RUN echo \\<<E",
            "RUN cat<<E",
            "RUN echo ${a[0]} <<E",
            "RUN echo it's <<E",
            "RUN x <<",
            "CMD <<E",
            "RUN [\"<<E\"]",
            "ENV a=<<E",
        ] {
            assert_eq!(contents(&format!("FROM a\n{line}\nRUN b\n")), [], "{line}");
        }
    }

    #[test]
    fn one_without_end_is_refused() {
        let missing = "Dockerfile line 2: nothing ends the heredoc `E`";
        assert_eq!(refusal("FROM a\nRUN <<E\nE x\n"), missing);
        assert_eq!(refusal("FROM a\nRUN <<E\n\tE\n"), missing);
    }

    #[test]
    fn an_image_named_in_one_is_text() {
        let text = "FROM a\nRUN <<E\nCOPY --from=b c d\nE\nCOPY --from=e f g\n";
        assert_eq!(names(&references(text)), ["a", "e"]);
    }
}

mod variables {
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
}

mod stages {
    use super::*;

    #[test]
    fn a_stage_goes_before_an_image_of_its_name() {
        let text = "FROM base AS build\nFROM alpine\nCOPY --from=BUILD a b\n\
                    RUN --mount=from=Build,target=/x y\n";
        assert_eq!(names(&references(text)), ["base", "alpine"]);
        assert_eq!(names(&references("FROM base AS b\nFROM b\nFROM B\n")), ["base"]);
    }

    #[test]
    fn a_stage_is_not_its_own_base_and_not_that_of_an_earlier_one() {
        assert_eq!(names(&references("FROM alpine AS alpine\nFROM alpine\n")), ["alpine"]);
        let text = "FROM x\nCOPY a b\nFROM 0 AS x\n";
        assert_eq!(names(&images_for(text, &[], Some("0"))), ["x"]);
    }

    #[test]
    fn of_two_stages_with_a_name_the_later_counts() {
        let text = "FROM one AS x\nFROM two AS x\nFROM x\n";
        assert_eq!(names(&references(text)), ["two"]);
    }

    #[test]
    fn an_expanded_name_may_be_a_stage() {
        let text = "ARG B=dev\nFROM a AS dev\nFROM b AS prod\nFROM $B\n";
        assert_eq!(names(&references(text)), ["a"]);
        assert_eq!(names(&images_for(text, &[("B", "prod")], None)), ["b"]);
    }

    #[test]
    fn copy_takes_an_index_and_a_mount_does_not() {
        let text = "FROM a\nFROM b\nCOPY --from=0 x y\nRUN --mount=from=0,target=/t z\n";
        let references = references(text);
        assert_eq!(names(&references), ["a", "b", "0"]);
        assert_eq!(references[2].kind, ReferenceKind::MountFrom);
        assert_eq!(references[2].stage, 1);
    }

    #[test]
    fn scratch_and_the_context_are_no_images() {
        let text = "FROM scratch\nCOPY --from=scratch a b\nCOPY --from= a b\n\
                    RUN --mount=type=tmpfs,target=/t --mount=from=,target=/x y\n";
        assert_eq!(references(text), []);
    }

    #[test]
    fn only_what_the_target_needs_is_named() {
        let text = "FROM a AS one\nFROM b AS two\nCOPY --from=i1 x y\nFROM one AS three\n\
                    RUN --mount=type=cache,from=i2,target=/c z\nFROM c AS four\n\
                    COPY --from=three x y\n";
        let dockerfile = read(text);
        let stages = |target| dockerfile.stages_needed(&args(&[]), target).expect("there");
        assert_eq!(stages(None), [0, 2, 3].into());
        assert_eq!(stages(Some("THREE")), [0, 2].into());
        assert_eq!(stages(Some("1")), [1].into());
        assert_eq!(stages(Some("")), [0, 2, 3].into());
        assert_eq!(names(&images_for(text, &[], Some("three"))), ["a", "i2"]);
        assert_eq!(names(&images_for(text, &[], Some("two"))), ["b", "i1"]);
        let up_to = dockerfile.image_references_up_to(&args(&[]), Some("two"));
        assert_eq!(names(&up_to.expect("there")), ["a", "b", "i1"]);
        assert_eq!(dockerfile.stages_up_to(Some("three")), Ok([0, 1, 2].into()));
    }

    #[test]
    fn an_unknown_target_is_told_the_stages() {
        let error = read("FROM a AS one\nFROM b\n").stages_up_to(Some("tow"));
        let message = "Dockerfile line 1: there is no stage `tow` (stages: one, 1)";
        assert_eq!(error.expect_err("unknown").to_string(), message);
    }

    #[test]
    fn a_name_that_cannot_work_is_a_mistake_where_it_is_needed() {
        let own = mistake("FROM a AS x\nCOPY --from=x b c\n");
        assert_eq!(own, "Dockerfile line 2: `COPY --from=x` is the stage that it stands in");
        assert!(mistake("FROM a\nCOPY --from=0 b c\n").contains("stands in"));
        let later = "FROM a AS x\nCOPY --from=y b c\nFROM d AS y\nFROM x\n";
        assert!(mistake(later).ends_with("only begins on line 3"));
        assert_eq!(names(&images_for(later, &[], Some("y"))), ["d"]);
        assert!(mistake("FROM a\nCOPY --from=7 b c\n").contains("no stage (stages: 0)"));
        assert!(mistake("FROM a\nCOPY --from=-1 b c\n").contains("no stage"));
        assert!(mistake("ARG X\nFROM a\nCOPY --from=$X b c\n").contains("not expanded"));
        assert!(mistake("FROM a\nRUN --mount=from=$X,target=/t y\n").contains("not expanded"));
    }

    #[test]
    fn a_deferred_image_is_read_where_the_stage_is_a_base() {
        let alone = "FROM a AS x\nONBUILD COPY --from=i b c\n";
        assert_eq!(names(&references(alone)), ["a"]);
        let text = format!("{alone}FROM x\nRUN y\n");
        let references = references(&text);
        assert_eq!(names(&references), ["a", "i"]);
        assert!(references[1].onbuild && !references[0].onbuild);
        assert_eq!((references[1].stage, references[1].line), (1, 2));
        assert_eq!(renamed(&text), text.replace("FROM a", "FROM NEW").replace("=i", "=NEW"));
        let stage = "FROM z AS i\nFROM a AS x\nONBUILD COPY --from=i b c\nFROM x\n";
        let needed = read(stage).stages_needed(&args(&[]), None);
        assert_eq!(needed, Ok([0, 1, 2].into()));
    }
}

mod replacing {
    use super::*;

    #[test]
    fn the_name_alone_is_replaced() {
        for (text, new) in [
            ("FROM  a  AS b", "FROM  NEW  AS b"),
            ("FROM --platform=x a:1@sha256:0", "FROM --platform=x NEW"),
            ("FROM \"a\" AS b", "FROM NEW AS b"),
            ("FROM scratch\nCOPY --from=a b c", "FROM scratch\nCOPY --from=NEW b c"),
            ("FROM scratch\nCOPY --from=\"a\" b c", "FROM scratch\nCOPY --from=\"NEW\" b c"),
            ("FROM scratch\nCOPY --from='a'b c d", "FROM scratch\nCOPY --from=NEW c d"),
            ("FROM scratch\nCOPY --from=a\"b\" c d", "FROM scratch\nCOPY --from=NEW c d"),
            ("FROM scratch\nCOPY --fr\"om=a\" c d", "FROM scratch\nCOPY --fr\"om=NEW\" c d"),
            (
                "FROM scratch\nCOPY \\\n --from=\\\na \\\nb c",
                "FROM scratch\nCOPY \\\n --from=\\\nNEW \\\nb c",
            ),
            (
                "FROM scratch\nRUN --mount=type=bind,from=a,target=/b --mount=target=/c,\"from=d\" e",
                "FROM scratch\nRUN --mount=type=bind,from=NEW,target=/b --mount=target=/c,\"from=NEW\" e",
            ),
            (
                "FROM scratch\nRUN --mount=\"from=a,target=/b\" c",
                "FROM scratch\nRUN --mount=\"from=NEW,target=/b\" c",
            ),
        ] {
            assert_eq!(renamed(text), new, "{text:?}");
            let expected = references(text).iter().map(|_| "NEW").collect::<Vec<_>>();
            assert_eq!(names(&references(new)), expected, "{text:?}");
        }
    }

    #[test]
    fn spans_come_in_any_order_and_the_first_of_two_counts() {
        let dockerfile = read("FROM a\nFROM b\n");
        let new = [(12..13, "y".into()), (5..6, "x".into()), (5..6, "z".into())];
        assert_eq!(dockerfile.replace(&new), "FROM x\nFROM y\n");
        assert_eq!(dockerfile.replace(&[(90..99, "x".into())]), "FROM a\nFROM b\n");
    }
}

/// Text that comes close to a Dockerfile.
fn nearly() -> impl Strategy<Value = String> {
    let token = prop::sample::select(vec![
        "FROM",
        "RUN",
        "COPY",
        "ADD",
        "ARG",
        "ONBUILD",
        "AS",
        "FOO",
        " ",
        "\t",
        "\n",
        "\r\n",
        "\\\n",
        "`\n",
        "\\",
        "`",
        "# escape=`\n",
        "# syntax=a/b\n",
        "#",
        "a",
        "b",
        "--from=",
        "0",
        "--mount=",
        "from=",
        "type=",
        ",",
        "=",
        "\"",
        "'",
        "$",
        "${",
        "}",
        ":-",
        "A",
        "<<",
        "-",
        "E",
        "\nE\n",
        "[",
        "]",
        "\"a\"",
        "é",
        "\u{FEFF}",
        "\u{A0}",
        "\0",
        "scratch",
    ]);
    prop::collection::vec(token, 0..40).prop_map(|tokens| tokens.concat())
}

fn check_any(text: &str, given: &BTreeMap<String, String>) {
    let Ok(dockerfile) = parse(text) else { return };
    assert_eq!(dockerfile.replace(&[]), text);
    let Ok(references) = dockerfile.image_references(given, None) else {
        return;
    };
    let same: Vec<_> = references
        .iter()
        .map(|reference| (reference.span.clone(), text[reference.span.clone()].to_owned()))
        .collect();
    assert_eq!(dockerfile.replace(&same), text);
    let lines = text.matches('\n').count() + 1;
    assert!(references.iter().all(|reference| (1..=lines).contains(&reference.line)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_text_is_read_or_refused(text: String) {
        check_any(&text, &BTreeMap::new());
    }

    #[test]
    fn nearly_a_dockerfile_is_read_or_refused(text in nearly()) {
        check_any(&text, &BTreeMap::new());
        check_any(&format!("FROM a AS b\n{text}"), &args(&[("A", "x")]));
        check_any(&format!("# syntax=x/y\nFROM a\nRUN {text}"), &args(&[("A", "x")]));
    }

    #[test]
    fn a_name_is_found_wherever_it_is_put(name in "[a-z][a-z0-9]{0,8}(:[a-z0-9]{1,4})?") {
        let text = format!("FROM scratch AS stage0\nCOPY \\\n --from={name} a \\\n b\n");
        let found = references(&text);
        prop_assert_eq!(found.len(), usize::from(name != "stage0" && name != "scratch"));
        for reference in found {
            prop_assert_eq!(&text[reference.span], name.as_str());
        }
    }
}
