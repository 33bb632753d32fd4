use super::*;
use std::fs;
use tempfile::TempDir;

/// A folder with two contexts, `one` and `two`, and this manifest.
fn folder(manifest: impl AsRef<[u8]>) -> TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    for (context, dockerfile) in [("one", "FROM scratch\n"), ("two", "FROM scratch AS t\nFROM t AS debug\n")] {
        fs::create_dir(dir.path().join(context)).expect("created");
        fs::write(dir.path().join(context).join("Dockerfile"), dockerfile).expect("written");
    }
    fs::write(dir.path().join(FILE_NAME), manifest).expect("written");
    dir
}

fn load(manifest: impl AsRef<[u8]>) -> Result<Manifest, Problem> {
    let dir = folder(&manifest);
    let lookup = |name: &str| match name {
        "SET" => Some("from the environment".to_owned()),
        "CONTEXT" => Some("two".to_owned()),
        _ => None,
    };
    let environment = Environment {
        lookup: &lookup,
        current: dir.path(),
    };
    let loaded = Manifest::load(Path::new(FILE_NAME), environment);
    let schema_accepts = || schema::tests::accepts(std::str::from_utf8(manifest.as_ref()).expect("text"));
    match &loaded {
        Ok(_) => assert!(schema_accepts(), "the schema refuses what is read"),
        Err(problem) if problem.to_string().contains(" has no key ") => assert!(!schema_accepts(), "{problem}"),
        Err(_) => {}
    }
    loaded
}

fn only(manifest: &str) -> Image {
    load(manifest).expect(manifest).images.remove(0)
}

/// A build with no other keys, its context a folder that is not there.
pub(crate) fn one_build(dockerfile: &str) -> Build {
    let mut build = only("images: { a: { context: one } }").normal;
    build.dockerfile.text = dockerfile.to_owned();
    build.dockerfile.parsed = crate::dockerfile::parse(dockerfile).expect(dockerfile);
    build
}

#[test]
fn a_secret_is_needed_where_something_is_built() {
    for (secret, missing) in [
        ("id=x,src=none", Some("images.yaml:2: the secret `x`: there is no file ")),
        (
            "id=x,env=NONE",
            Some("images.yaml:2: the secret `x`: the environment variable `NONE` is not set"),
        ),
        ("id=x,env=SET", None),
    ] {
        let image = only(&format!("images:\n  a: {{ context: one, secrets: ['{secret}'] }}\n"));
        let refused = image.normal.refuse_missing_secrets(&|name| (name == "SET").then(String::new));
        match (refused, missing) {
            (Ok(()), None) => {}
            (Err(problem), Some(missing)) => assert!(problem.to_string().starts_with(missing), "{problem}"),
            (other, _) => panic!("{secret}: {other:?}"),
        }
    }
}

#[test]
fn defaults_are_the_documented_ones() {
    let manifest = load("images: { a: { context: one } }").expect("valid");
    assert_eq!(manifest.registry.to_string(), "gcr.io/lattice-dev");
    assert_eq!(manifest.stable.branch, "master");
    assert_eq!(manifest.utilities.source, UtilitiesSource::Image("busybox:stable-musl".into()));
    let image = &manifest.images[0];
    assert!(image.push && image.debug.is_none());
    assert_eq!(image.normal.platforms, ["linux/amd64"]);
    assert_eq!(image.normal.dockerfile.file, "one/Dockerfile");
}

#[test]
fn the_more_particular_key_wins_and_maps_are_merged() {
    let image = only(
        "x-own: { anything: [1] }\ndefaults: { context: one, args: { A: d, B: d }, target: t }\nimages:\n  a:\n    context: two\n    args: { B: i, C: 1.20 }\n    debug: { target: debug, args: [C=x, D=] }\n",
    );
    let args = |build: &Build| build.args.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>();
    assert!(image.normal.context.ends_with("two"));
    assert_eq!(args(&image.normal), ["A=d", "B=i", "C=1.20"]);
    assert_eq!(image.normal.target.as_deref(), Some("t"));
    let debug = image.debug.expect("its own");
    assert_eq!(args(&debug), ["A=d", "B=i", "C=x", "D="]);
    assert_eq!(debug.target.as_deref(), Some("debug"));
}

#[test]
fn the_environment_is_read_as_compose_reads_it() {
    let image = only(
        "images:\n  a:\n    context: ${CONTEXT}\n    args:\n      SET:\n      UNSET:\n      LITERAL: $${X}\n      D: ${UNSET:-default}\n    labels: { l: }\n",
    );
    assert!(image.normal.context.ends_with("two"));
    let args: Vec<_> = image.normal.args.into_iter().collect();
    let expected = [("D", "default"), ("LITERAL", "${X}"), ("SET", "from the environment")];
    assert_eq!(args, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!(image.normal.labels["l"], "");
}

#[test]
fn the_time_of_the_environment_is_an_arg_where_there_is_none() {
    let arg = |manifest: &str, value: Option<&str>| {
        let dir = folder(manifest);
        let lookup = |name: &str| value.filter(|_| name == "SOURCE_DATE_EPOCH").map(str::to_owned);
        let environment = Environment {
            lookup: &lookup,
            current: dir.path(),
        };
        let manifest = Manifest::load(Path::new(FILE_NAME), environment).expect("valid");
        manifest.images[0].normal.args.get(SOURCE_DATE_EPOCH).cloned()
    };
    let plain = "images: { a: { context: one } }";
    assert_eq!(arg(plain, Some("1700000000")).as_deref(), Some("1700000000"));
    assert_eq!(arg(plain, None), None);
    assert_eq!(arg(plain, Some("")), None, "empty is none");
    let own = "images: { a: { context: one, args: { SOURCE_DATE_EPOCH: 1 } } }";
    assert_eq!(arg(own, Some("1700000000")).as_deref(), Some("1"));
}

#[test]
fn additional_contexts_have_the_names_that_buildkit_looks_for() {
    let image = only(
        "defaults: { additional_contexts: { alpine: one } }\nimages:\n  a:\n    context: one\n    additional_contexts: { 'alpine:latest': two, docker.io/library/debian:12: one }\n",
    );
    let contexts = &image.normal.additional_contexts;
    assert_eq!(contexts.keys().collect::<Vec<_>>(), ["alpine", "debian:12"]);
    assert!(matches!(&contexts["alpine"], NamedContext::Folder(path) if path.ends_with("two")));
    for name in ["alpine", "alpine:latest", "docker.io/library/alpine", "debian:12"] {
        assert!(image.normal.named_context(name).is_some(), "{name}");
    }
    assert!(image.normal.named_context("debian").is_none());
}

#[test]
fn platforms_have_one_name_each() {
    let image = only("images: { a: { context: one, platforms: [linux/arm, linux/arm64/v8, linux/aarch64] } }");
    assert_eq!(image.normal.platforms, ["linux/arm/v7", "linux/arm64"]);
    let args = image.normal.dockerfile_args("linux/arm/v7");
    let expected = [("ARCH", "arm"), ("OS", "linux"), ("PLATFORM", "linux/arm/v7"), ("VARIANT", "v7")];
    let expected = expected.map(|(name, value)| (format!("TARGET{name}"), value.to_owned()));
    assert_eq!(args.into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn utilities_are_a_path_or_an_image() {
    let source = |text: &str| {
        load(format!("debug: {{ utilities: {text} }}\nimages: {{ a: {{ context: one }} }}"))
            .expect(text)
            .utilities
            .source
    };
    assert!(matches!(source("./tools/busybox"), UtilitiesSource::Path(_)));
    assert!(matches!(source("/bin/busybox"), UtilitiesSource::Path(_)));
    assert!(matches!(source("one/Dockerfile"), UtilitiesSource::Path(_)), "it is there");
    assert!(matches!(source("gcr.io/x/busybox:1"), UtilitiesSource::Image(_)));
}

#[test]
fn an_inline_dockerfile_wins_over_a_more_general_file() {
    let image = only(
        "defaults: { dockerfile: Other }\nimages:\n  a:\n    context: one\n    dockerfile_inline: |\n      FROM scratch\n      LABEL x=y\n",
    );
    assert_eq!(image.normal.dockerfile.text, "FROM scratch\nLABEL x=y\n");
    assert!(image.normal.dockerfile.path.is_none());
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn bad_manifests_get_one_message_with_their_line() {
    let one = "images:\n  a: { context: one }\n";
    let cases: [(String, &str); 66] = [
        (String::new(), "images.yaml is empty"),
        ("# only a comment\n".into(), "images.yaml is empty"),
        ("images:\n".into(), "images.yaml:1: `images` is nothing, not a map"),
        ("images: {}\n".into(), "images.yaml:1: `images` holds no image"),
        ("images: { x-a: { context: one } }\n".into(), "holds no image"),
        ("- a\n".into(), "images.yaml:1: the manifest is a list, not a map"),
        ("registry: gcr.io/x\n".into(), "there is no `images:`"),
        (format!("{one}image: x\n"), "images.yaml:3: the manifest has no key `image`"),
        (format!("{one}images: {{}}\n"), "images.yaml:3: `images` stands here a second time"),
        (
            "images:\n  a: { context: one }\n  a: { context: two }\n".into(),
            "images.yaml:3: `a` stands here a second time; the first is in line 2",
        ),
        (
            "images:\n  a:\n    contxt: one\n".into(),
            "images.yaml:3: the image `a` has no key `contxt`",
        ),
        (
            "images:\n  a:\n    context: one\n    target: [x]\n".into(),
            "images.yaml:4: `target` is a list, not a text",
        ),
        (
            "images:\n  a:\n    context: one\n    args: x\n".into(),
            "images.yaml:4: `args` is a single value, not a map",
        ),
        (
            "images:\n  a:\n    context: one\n    args: { A: [1] }\n".into(),
            "images.yaml:4: `A` is a list",
        ),
        (
            "images:\n  a:\n    context: one\n    push: maybe\n".into(),
            "images.yaml:4: `push` is `maybe`",
        ),
        (
            "images:\n  a:\n    context: one\n    push:\n".into(),
            "images.yaml:4: `push` is nothing",
        ),
        ("images:\n\ta: { context: one }\n".into(), "images.yaml:2: "),
        ("images: [a, b]\n".into(), "images.yaml:1: `images` is a list"),
        ("images:\n  a: one\n".into(), "images.yaml:2: the image `a` is a single value"),
        ("images:\n  a:\n".into(), "images.yaml:2: the image `a` is nothing"),
        ("images:\n  a: {}\n".into(), "images.yaml:2: the image `a` has no `context`"),
        ("images:\n  a:\n    context:\n".into(), "images.yaml:3: `context` is nothing"),
        (
            "images:\n  a:\n    context: three\n".into(),
            "images.yaml:3: the context three does not exist",
        ),
        (
            "images:\n  a:\n    context: one/Dockerfile\n".into(),
            "images.yaml:3: the context one/Dockerfile is not a folder",
        ),
        (
            "images:\n  a:\n    context: https://x/y.git\n".into(),
            "images.yaml:3: the context `https://x/y.git` is not a folder",
        ),
        (
            "images:\n  a:\n    context: one\n    dockerfile: No\n".into(),
            "images.yaml:4: there is no file one/No",
        ),
        (
            "images:\n  a:\n    context: .\n".into(),
            "images.yaml:3: there is no file Dockerfile",
        ),
        (
            "images:\n  a:\n    context: one\n    dockerfile: Dockerfile\n    dockerfile_inline: FROM scratch\n".into(),
            "images.yaml:4: `dockerfile` and",
        ),
        (
            "images:\n  A: { context: one }\n".into(),
            "images.yaml:2: `A` cannot be an image's name",
        ),
        (
            "images:\n  debug-x: { context: one }\n".into(),
            "images.yaml:2: an image cannot be called `debug-x`",
        ),
        ("images:\n  'a/b': { context: one }\n".into(), "images.yaml:2: `a/b` cannot be"),
        (
            "images:\n  prepare: { context: one }\n  envoy-prepare: { context: two }\n".into(),
            "images.yaml:3: the images `envoy-prepare` and `prepare` collide",
        ),
        (
            "images:\n  envoy-prepare: { context: one }\n  prepare: { context: two }\n".into(),
            "images.yaml:3: the images `envoy-prepare` and `prepare` collide",
        ),
        (
            "images:\n  a: { context: one, secrets: [x] }\n".into(),
            "images.yaml:2: `x` in `secrets` is not a secret",
        ),
        (
            "builder: []\nimages: { a: { context: one } }\n".into(),
            "images.yaml:1: `builder` is empty",
        ),
        (
            "images:\n  a: { context: one, secrets: ['id=x,src=one/Dockerfile,env=SET'] }\n".into(),
            "is not a secret",
        ),
        (
            "images:\n  a: { context: one, secrets: ['id=x,src=one/Dockerfile,mode=0400'] }\n".into(),
            "images.yaml:2: `id=x,src=one/Dockerfile,mode=0400` in `secrets` is not a secret",
        ),
        (
            "images:\n  a: { context: one, secrets: ['id=,env=SET'] }\n".into(),
            "images.yaml:2: `id=,env=SET` in `secrets`",
        ),
        (
            "images:\n  a: { context: one, secrets: ['id=x,id=y,env=SET'] }\n".into(),
            "is not a secret",
        ),
        (
            "images:\n  a: { context: one, secrets: ['id=x,env=SET', 'id=x,source=one/Dockerfile'] }\n".into(),
            "images.yaml:2: the secret `x` stands there twice",
        ),
        (
            "images:\n  a: { context: one, ssh: ['x=one/Dockerfile'] }\n".into(),
            "images.yaml:2: `ssh`: one/Dockerfile is not an agent's socket",
        ),
        (
            "images:\n  a: { context: one, args: ['=x'] }\n".into(),
            "images.yaml:2: `` in `args` is not a name",
        ),
        (
            "images:\n  a:\n    context: one\n    labels:\n      a b: x\n".into(),
            "images.yaml:5: `a b` in `labels` is not a name",
        ),
        (
            "images:\n  a: { context: one, additional_contexts: { x: } }\n".into(),
            "images.yaml:2: the additional context `x` is neither",
        ),
        (
            "images:\n  a: { context: one, additional_contexts: { x: 'docker-image://' } }\n".into(),
            "images.yaml:2: the additional context `x` is neither",
        ),
        (
            "images:\n  a: { context: one, push: }\n".into(),
            "images.yaml:2: `push` is nothing, neither true nor false",
        ),
        (format!("stable: {{ branch: '' }}\n{one}"), "images.yaml:1: `branch` is empty"),
        (format!("debug: {{ utilities: '' }}\n{one}"), "images.yaml:1: `utilities` is empty"),
        (
            "images:\n  a: { context: one, ssh: [default] }\n".into(),
            "images.yaml:2: `ssh` asks for your ssh agent",
        ),
        (
            "images:\n  a: { context: one, additional_contexts: { x: three } }\n".into(),
            "images.yaml:2: the additional context `x`: there is no folder three",
        ),
        (
            "images:\n  a: { context: one, additional_contexts: { x: 'https://y/z.git' } }\n".into(),
            "images.yaml:2: the additional context `x` is neither",
        ),
        (
            "images:\n  a: { context: one, platforms: [] }\n".into(),
            "images.yaml:2: `platforms` is empty",
        ),
        (
            "images:\n  a: { context: one, platforms: [amd64] }\n".into(),
            "images.yaml:2: `amd64` is not a platform",
        ),
        (
            "images:\n  a: { context: one, platforms: linux/amd64 }\n".into(),
            "images.yaml:2: `platforms` is a single value, not a list",
        ),
        (
            format!("registry: lattice-dev\n{one}"),
            "images.yaml:1: `lattice-dev` cannot be a registry",
        ),
        (
            format!("stable: {{ brunch: x }}\n{one}"),
            "images.yaml:1: `stable` has no key `brunch`",
        ),
        (
            format!("defaults: {{ push: false }}\n{one}"),
            "images.yaml:1: `defaults` has no key `push`",
        ),
        (
            format!("insecure_registries: ['http://x']\n{one}"),
            "images.yaml:1: `http://x` in `insecure_registries`",
        ),
        (
            "images:\n  a:\n    context: ${NOT_SET}\n".into(),
            "images.yaml:3: in `context`: the environment variable `NOT_SET` is not set",
        ),
        (
            "images:\n  a:\n    context: ${SET\n".into(),
            "images.yaml:3: in `context`: `${SET` has no closing `}`",
        ),
        ("images: *none\n".into(), "images.yaml:1: "),
        (
            "images:\n  a:\n    context: one\n    target: nope\n".into(),
            "images.yaml:4: `target`: there is no stage `nope` in one/Dockerfile (no stage has a name)",
        ),
        (
            "defaults: { target: nope }\nimages:\n  a: { context: two }\n".into(),
            "images.yaml:1: `target`: there is no stage `nope` in two/Dockerfile (stages with a name: t, debug)",
        ),
        (
            "images:\n  a: { context: one }\n---\nimages: {}\n".into(),
            "a second document begins here",
        ),
        ("images: {a: {context: one}\n".into(), "images.yaml:1: "),
        (
            "images:\n  \"a\\e[31m\": { context: one }\n".into(),
            "images.yaml:2: `a?[31m` cannot be",
        ),
    ];
    for (text, expected) in cases {
        let message = load(&text).expect_err(&text).to_string();
        assert!(message.contains(expected), "{text}\n  gave: {message}\n  not: {expected}");
        assert!(!message.contains('\n'), "{message}");
    }
}

#[test]
fn what_is_no_text_is_refused() {
    assert!(
        load(b"images:\n  \xff\xfe")
            .expect_err("binary")
            .to_string()
            .contains("images.yaml:2: this is not text")
    );
    assert!(load(b"a: \0\n").is_err());
    assert!(load(vec![b'#'; 2 << 20]).expect_err("large").to_string().contains("larger than"));
}

#[test]
fn a_dockerfile_that_cannot_be_read_is_named_with_its_line() {
    let dir = folder("images: { a: { context: one } }");
    fs::write(dir.path().join("one/Dockerfile"), "# nothing\n").expect("written");
    let environment = Environment {
        lookup: &|_| None,
        current: dir.path(),
    };
    let message = Manifest::load(Path::new(FILE_NAME), environment).expect_err("refused").to_string();
    assert!(message.starts_with("one/Dockerfile:"), "{message}");
    fs::remove_file(dir.path().join("one/Dockerfile")).expect("removed");
    let _listener = std::os::unix::net::UnixListener::bind(dir.path().join("one/Dockerfile")).expect("bound");
    let message = Manifest::load(Path::new(FILE_NAME), environment).expect_err("refused").to_string();
    assert_eq!(message, "images.yaml:1: one/Dockerfile is not a file");
}

#[test]
fn the_nearest_manifest_above_is_found() {
    let dir = folder("");
    let deep = dir.path().join("one/deeper");
    fs::create_dir(&deep).expect("created");
    assert_eq!(find(&deep), Some(dir.path().join(FILE_NAME)));
    assert_eq!(find(Path::new("/")), None);
}
