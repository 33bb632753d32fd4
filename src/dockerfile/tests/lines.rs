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
