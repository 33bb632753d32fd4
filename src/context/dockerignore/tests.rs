use super::*;

fn parse(text: &str) -> Dockerignore {
    Dockerignore::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

fn refusal(text: &str) -> DockerignoreError {
    Dockerignore::parse(text.as_bytes()).expect_err(text)
}

fn strings(value: &serde_json::Value) -> Vec<&str> {
    let list = value.as_array().expect("a list");
    list.iter().map(|item| item.as_str().expect("a string")).collect()
}

fn kept<'a>(ignore: &Dockerignore, files: &[&'a str]) -> Vec<&'a str> {
    let mut kept: Vec<_> = files.iter().copied().filter(|file| !ignore.excludes(file)).collect();
    kept.sort_unstable();
    kept
}

/// What a walk keeps that carries judgements and skips what is pruned.
fn kept_by_walking<'a>(ignore: &Dockerignore, files: &[&'a str]) -> Vec<&'a str> {
    let mut judgements = std::collections::BTreeMap::<&str, Judgement>::new();
    let mut kept = Vec::new();
    for file in files {
        let mut directory: Option<&str> = None;
        let ends = file.match_indices('/').map(|(end, _)| end);
        for end in ends.chain([file.len()]) {
            let above = directory.map(|path| judgements[path].clone());
            if above.as_ref().is_some_and(|above| above.pruned) {
                directory = None;
                break;
            }
            let judgement = ignore.judge(&file[..end], above.as_ref());
            judgements.insert(&file[..end], judgement);
            directory = Some(&file[..end]);
        }
        kept.extend(directory.filter(|path| !judgements[path].excluded));
    }
    kept.sort_unstable();
    kept
}

/// `kept` is what BuildKit kept; `classic_kept`, where it stands, is what the classic client's walk made of it.
fn check_observed(data: &str) {
    let data: serde_json::Value = serde_json::from_str(data).expect("JSON");
    let files = strings(&data["files"]);
    for case in data["cases"].as_array().expect("cases") {
        let name = &case["name"];
        let ignore = match Dockerignore::parse(case["ignore"].as_str().expect("text").as_bytes()) {
            Ok(ignore) => ignore,
            Err(error) => {
                assert!(!case["error"].is_null(), "{name}: {error}");
                continue;
            }
        };
        assert!(case["error"].is_null(), "{name}: Docker refuses it");
        let mut wanted = strings(&case["kept"]);
        wanted.sort_unstable();
        assert_eq!(kept(&ignore, &files), wanted, "{name}");
        assert_eq!(kept_by_walking(&ignore, &files), wanted, "{name}");
    }
}

#[test]
fn keeps_what_the_daemon_kept() {
    check_observed(include_str!("../../../tests/data/dockerignore-cases.json"));
}

#[test]
fn keeps_what_the_daemon_kept_under_tricky_patterns() {
    check_observed(include_str!("../../../tests/data/dockerignore-more-cases.json"));
}

#[test]
fn an_error_names_its_line() {
    assert_eq!(refusal("# comment\r\n\r\n a \r\n[a\r\n").line, 4);
    assert_eq!(refusal("a\n!\n").line, 2);
    assert_eq!(
        refusal("!/").to_string(),
        ".dockerignore line 1: `!` re-includes nothing: a pattern must follow it"
    );
    assert_eq!(refusal("[z-a]").message, "the pattern `[z-a]` is malformed");
}

#[test]
fn what_go_never_comes_to_check_is_not_an_error() {
    assert!(refusal("*[a-]").message.contains("malformed"));
    assert!(parse("x*/[a-]").excludes("xx/-"));
    assert!(parse("a*\\").excludes("ab$"));
}

#[test]
fn braces_and_bars_reach_the_regular_expression() {
    assert!(parse("a{2}*").excludes("aab"));
    assert!(!parse("a{2}*").excludes("a{2}"));
    assert!(parse("a{2").excludes("a{2"));
    assert!(parse("a{02}*").excludes("a{02}b"));
    assert!(parse("?{1000}").excludes(&"x".repeat(1000)));
    assert!(refusal("?{1001}").message.contains("malformed"));
    assert!(refusal("*{2}").message.contains("malformed"));
    assert!(parse("a|b*").excludes("anything"));
}

#[test]
fn a_backslash_means_what_it_means_to_go() {
    assert!(parse(r"\d?").excludes("7x"));
    assert!(!parse(r"\d?").excludes("٣x"));
    assert!(parse(r"\x41*").excludes("Abc"));
    assert!(parse(r"\101*").excludes("Abc"));
    assert!(parse(r"\pL").excludes("é"));
    assert!(parse(r"\Qa.b").excludes("a\\.b$"));
    assert!(parse(r"[\d]").excludes("5"));
    assert!(parse("[[:digit:]]").excludes("5"));
    assert!(parse(r"\ a").excludes(" a"));
    for refused in [r"\é", r"\q", r"\8", r"\xg0", r"\p{lower}", r"[[:no:]]"] {
        assert!(refusal(refused).message.contains("malformed"), "{refused}");
    }
}

#[test]
fn a_class_follows_go_and_not_the_regex_crate() {
    assert!(parse("[a&&b]").excludes("&"));
    assert!(parse("[a~~b]").excludes("~"));
    assert!(parse("[[a]").excludes("["));
    assert!(parse("[*]x").excludes("[[^]x"));
    assert!(!parse("[*]x").excludes("*x"));
    assert!(parse("a[^b]c").excludes("a/c"));
}

#[test]
fn lines_are_as_long_as_docker_reads_them() {
    let longest = "x".repeat(65535);
    assert!(parse(&format!("{longest}\n")).excludes(&longest));
    assert!(parse(&longest).excludes(&longest));
    assert_eq!(refusal(&format!("a\n#{longest}\n")).line, 2);
}

#[test]
fn invalid_utf8_becomes_the_replacement_character() {
    let truncated = Dockerignore::parse(b"\xE6\x97*\n\xC3.txt").expect("parses");
    assert!(truncated.excludes("\u{FFFD}\u{FFFD}x"));
    assert!(!truncated.excludes("\u{FFFD}x"));
    assert!(truncated.excludes("\u{FFFD}.txt"));
    assert!(!truncated.excludes("é.txt"));
}

#[test]
fn only_the_first_line_loses_a_byte_order_mark() {
    assert!(parse("\u{FEFF}a").excludes("a"));
    assert!(!parse("b\n\u{FEFF}a").excludes("a"));
    assert!(parse("b\n\u{FEFF}a*").excludes("ab"));
}

fn prunes(ignore: &Dockerignore, path: &str) -> bool {
    ignore.judge_from_the_root(path).is_some_and(|judgement| judgement.pruned)
}

#[test]
fn an_excluded_directory_is_pruned_unless_something_may_be_reincluded() {
    assert!(prunes(&parse("src"), "src"));
    assert!(prunes(&parse("src"), "src/foo"));
    assert!(!prunes(&parse("src/*"), "src"));
    assert!(!prunes(&parse("src\n!src/foo/keep"), "src"));
    assert!(!prunes(&parse("src\n!src/foo/keep"), "src/foo"));
    assert!(prunes(&parse("src\n!src/foo/keep"), "src/bar"));
    assert!(prunes(&parse("src\n!srcs"), "src"));
    assert!(!prunes(&parse("src\n!src/foo/**"), "src/foo"));
}

#[test]
fn a_wildcard_keeps_the_walk_looking() {
    let ignore = parse("docs\n!**/*.md");
    assert!(!prunes(&ignore, "docs"));
    assert!(ignore.excludes("docs"));
    assert!(!ignore.excludes("docs/a.md"));
}

#[test]
fn what_lies_in_a_pruned_directory_is_excluded_though_a_pattern_reincludes_it() {
    let ignore = parse("x/*\n!x/*/**");
    assert!(prunes(&ignore, "x/a"));
    assert!(ignore.excludes("x/a/c"));
}

#[test]
fn the_context_itself_is_never_excluded() {
    for everything in ["*", "**", ".", "/", "?"] {
        assert!(!parse(everything).excludes("."), "{everything}");
        assert!(!parse(everything).excludes(""), "{everything}");
        assert!(!prunes(&parse(everything), "."), "{everything}");
    }
}

#[test]
fn no_patterns_exclude_nothing() {
    assert!(!Dockerignore::empty().excludes("a/b"));
    assert!(!parse("").excludes("a/b"));
    assert!(!prunes(&Dockerignore::empty(), "a"));
}

proptest::proptest! {
    #[test]
    fn any_text_is_parsed_or_refused(
        text: Vec<u8>,
        path in "[^/]{1,4}(/[^/]{1,4}){0,3}",
    ) {
        if let Ok(ignore) = Dockerignore::parse(&text) {
            let _ = ignore.excludes(&path);
        }
    }

    #[test]
    fn tricky_text_is_parsed_or_refused(
        text in r"[a*?!/.\\\[\]^{}|:\n -]{0,24}",
        path in "[ab.!/]{1,12}",
    ) {
        if let Ok(ignore) = Dockerignore::parse(text.as_bytes()) {
            let pruned = prunes(&ignore, &path);
            proptest::prop_assert!(!pruned || ignore.excludes(&path));
        }
    }
}
