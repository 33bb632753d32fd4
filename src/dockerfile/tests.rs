use super::*;
use proptest::prelude::*;

fn args(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// `name@line=as written`
fn found_with(text: &str, given: &[(&str, &str)], target: Option<&str>) -> Vec<String> {
    let references = parse(text).expect(text).image_references(&args(given), target).expect(text);
    references
        .into_iter()
        .map(|found| format!("{}@{}={}", found.name, found.line, &text[found.span]))
        .collect()
}

fn found(text: &str) -> Vec<String> {
    found_with(text, &[], None)
}

#[test]
fn every_place_that_names_an_image() {
    let text = "FROM --platform=linux/amd64 base AS one\nCOPY --chown=1 --from=tool /a /b\nRUN --mount=type=bind,from=mounted,target=/x --network=none true\nfrom scratch\nADD --from=added x y\n";
    assert_eq!(found(text), ["base@1=base", "tool@2=tool", "mounted@3=mounted", "added@5=added"]);
}

#[test]
fn stages_shadow_images_from_their_line_on_whatever_their_case() {
    let text = "FROM base AS base\nFROM Base AS two\nCOPY --from=TWO /x /x\nCOPY --from=BASE /x /x\nCOPY --from=0 /x /x\nRUN --mount=from=0 true\nCOPY --from=later /x /x\nFROM two AS later\n";
    assert_eq!(found(text), ["base@1=base", "TWO@3=TWO", "0@6=0", "later@7=later"]);
}

#[test]
fn args_before_the_first_from_choose_an_image() {
    let text = "ARG NAME=base\nARG TAG=${NAME}-tag EMPTY=\nFROM ${NAME}:$TAG\nFROM ${EMPTY:-x}${EMPTY-y}${NONE:+no}${NAME:+z}\nARG NAME=other\nFROM \"$NAME\"\n";
    assert_eq!(
        found(text),
        [
            "base:base-tag@3=${NAME}:$TAG",
            "xz@4=${EMPTY:-x}${EMPTY-y}${NONE:+no}${NAME:+z}",
            "base@6=\"$NAME\""
        ]
    );
    assert_eq!(found_with(text, &[("NAME", "given")], None)[0], "given:given-tag@3=${NAME}:$TAG");
    assert_eq!(
        found_with("FROM b-$TARGETARCH\n", &[("TARGETARCH", "arm64")], None),
        ["b-arm64@1=b-$TARGETARCH"]
    );
    let undeclared = parse("FROM x$UNDECLARED\n")
        .expect("parsed")
        .image_references(&args(&[("UNDECLARED", "y")]), None);
    assert_eq!(undeclared.expect("found")[0].name, "x", "an arg that is not declared is not seen");
}

#[test]
fn continued_lines_comments_within_them_and_crlf() {
    let text = "# c\r\nFROM \\\r\n  # a comment\r\n\r\n  ba\\\r\nse \\  \r\n  AS x\r\nRUN echo \\\\\r\nCOPY --from=t \\\r\n /a /b\r\n";
    assert_eq!(found(text), ["base@2=ba\\\r\nse", "t@9=t"]);
}

#[test]
fn the_escape_directive_counts_at_the_top_only() {
    assert_eq!(
        found("# syntax=x\n# ESCAPE = `\nFROM a`\nb\nRUN c:\\\nFROM c\n"),
        ["ab@3=a`\nb", "c@6=c"]
    );
    assert_eq!(found("# a comment\n# escape=`\nFROM a\\\nb\n"), ["ab@3=a\\\nb"]);
}

#[test]
fn heredocs_are_passed_over() {
    let text = "FROM base\nRUN <<EOF cat <<-'TWO' 3<<\"THREE\"\nFROM no\nEOF\n\tFROM no\n\tTWO\nCOPY --from=no a b\nTHREE\nCOPY --from=yes <<X /x\nFROM no\nX\nRUN echo $((1<<2)) \"<<Y\"\nFROM last\n";
    assert_eq!(found(text), ["base@1=base", "yes@9=yes", "last@13=last"]);
}

#[test]
fn only_stages_up_to_the_target() {
    let text = "FROM a AS one\nFROM b AS Two\nFROM c\n";
    assert_eq!(found_with(text, &[], Some("two")).len(), 2);
    let error = parse(text)
        .expect("parsed")
        .image_references(&BTreeMap::new(), Some("three"))
        .expect_err("refused");
    assert_eq!(error.message, "there is no stage `three` (stages: one, two)");
}

#[test]
fn replacing_leaves_everything_else() {
    let text = "\u{feff}# base\r\nFROM base AS base\r\nCOPY --from=base-two a b # base-two\r\n";
    let parsed = parse(text).expect("parsed");
    let references = parsed.image_references(&BTreeMap::new(), None).expect("found");
    let replacements: Vec<_> = references
        .into_iter()
        .rev()
        .map(|found| (found.span, format!("<{}>", found.name)))
        .collect();
    assert_eq!(
        parsed.replace(&replacements),
        "\u{feff}# base\r\nFROM <base> AS base\r\nCOPY --from=<base-two> a b # base-two\r\n"
    );
}

#[test]
fn what_cannot_be_read_says_where() {
    for (text, line, part) in [
        ("", 1, "no FROM"),
        ("# only\n", 1, "no FROM"),
        ("\nRUN x\nFROM y\n", 2, "`RUN` stands before"),
        ("FROM\n", 1, "FROM takes an image"),
        ("FROM a b c\n", 1, "FROM takes an image"),
        ("FROM a\nRUN <<EOF\nno end\n", 2, "`EOF` has no end"),
    ] {
        let error = parse(text).expect_err(text);
        assert!(error.line == line && error.message.contains(part), "{text}: {error:?}");
    }
    for (text, part) in [
        ("FROM ${X", "no closing"),
        ("FROM ${X:?give-it}", "give-it"),
        ("FROM $X", "is empty"),
        ("FROM ${X%y}", "none that is known"),
        ("FROM ${}", "name"),
    ] {
        let error = parse(text).expect(text).image_references(&BTreeMap::new(), None).expect_err(text);
        assert!(error.message.contains(part), "{text}: {error:?}");
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_and_replacing_nothing_changes_nothing(text in "(\\PC|\n|FROM |COPY --from=|\\\\\n|<<E|\\$\\{A)*") {
        if let Ok(parsed) = parse(&text) {
            prop_assert_eq!(parsed.replace(&[]), text.clone());
            if let Ok(references) = parsed.image_references(&BTreeMap::new(), None) {
                for found in references {
                    prop_assert!(text.get(found.span.clone()).is_some(), "{:?}", found);
                }
            }
        }
    }
}
