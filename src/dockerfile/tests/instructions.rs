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
