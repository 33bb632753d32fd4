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
