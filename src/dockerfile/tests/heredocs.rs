use super::*;

fn keywords(text: &str) -> Vec<String> {
    read(text).instructions.into_iter().map(|one| one.keyword).collect()
}

#[test]
fn several_may_follow_one_line() {
    let text = "FROM a\nRUN <<A cat <<-\"B\" > /x\nFROM x\nA\ny\n\tB\nCMD z\n";
    assert_eq!(keywords(text), ["FROM", "RUN", "CMD"]);
    assert_eq!(names(&references(text)), ["a"]);
}

#[test]
fn they_follow_copy_add_onbuild_and_a_continued_line() {
    for (text, keyword) in [
        ("COPY <<E \\\n /d\n1\nE\n", "COPY"),
        ("ADD x 3<<'E' /d\nE\n", "ADD"),
        ("ONBUILD RUN << E\n1\nE\n", "ONBUILD"),
        ("RUN <<E\r\n1\r\nE\r\n", "RUN"),
    ] {
        assert_eq!(keywords(&format!("FROM a\n{text}CMD z\n")), ["FROM", keyword, "CMD"], "{text:?}");
    }
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
        assert_eq!(
            keywords(&format!("FROM a\n{line}\nUSER b\n")).last().map(String::as_str),
            Some("USER"),
            "{line}"
        );
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
