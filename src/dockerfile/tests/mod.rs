mod any_text;
mod directives;
mod heredocs;
mod instructions;
mod lines;
mod replacing;
mod stages;
mod variables;

use std::collections::BTreeMap;

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
