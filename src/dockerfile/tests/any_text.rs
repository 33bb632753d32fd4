use proptest::prelude::*;

use super::*;

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
