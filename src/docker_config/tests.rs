use tempfile::TempDir;

use super::*;

fn environment<'a>(variables: &'a [(&str, &str)]) -> impl Fn(&str) -> Option<String> + 'a {
    |name| {
        let found = variables.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| (*value).to_owned())
    }
}

fn load(config_json: &str) -> Result<DockerConfig, DockerConfigError> {
    load_with(config_json, &[])
}

fn load_with(config_json: &str, variables: &[(&str, &str)]) -> Result<DockerConfig, DockerConfigError> {
    let home = TempDir::new().expect("a folder");
    let directory = home.path().join(".docker");
    fs::create_dir(&directory).expect("a folder");
    fs::write(directory.join("config.json"), config_json).expect("a file");
    let home = home.path().to_str().expect("UTF-8");
    let variables: Vec<_> = variables.iter().copied().chain([("HOME", home)]).collect();
    DockerConfig::load(&environment(&variables))
}

#[test]
fn the_directory_is_docker_config_else_the_home_folder_else_nothing() {
    let directory = |variables: &[(&str, &str)]| config_directory(&environment(variables));
    assert_eq!(directory(&[("DOCKER_CONFIG", "/c"), ("HOME", "/h")]), Some("/c".into()));
    assert_eq!(directory(&[("DOCKER_CONFIG", ""), ("HOME", "/h")]), Some("/h/.docker".into()));
    assert_eq!(directory(&[]), None);
}

#[test]
fn a_missing_or_empty_file_is_an_empty_configuration() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().to_str().expect("UTF-8");
    let config = DockerConfig::load(&environment(&[("DOCKER_CONFIG", path)]));
    let config = config.expect("empty");
    assert_eq!(config.directory(), Some(folder.path()));
    assert_eq!(config.file(), Some(folder.path().join("config.json")));
    assert!(config.auths.is_empty() && config.creds_store.is_none());
    for text in ["", " \n", "null", "{}", "{\"auths\":null,\"credsStore\":\"\"}"] {
        let config = load(text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        assert!(config.auths.is_empty() && config.creds_store.is_none());
    }
    assert_eq!(DockerConfig::load(&|_| None), Ok(DockerConfig::default()));
}

#[test]
fn reads_what_docker_writes_and_leaves_the_rest() {
    let config = load(
        r#"{ "auths": { "a.example": { "auth": "dTpw", "identitytoken": "t" }, "b.example": {}, "c.example": null },
             "HttpHeaders": { "X": "y" }, "credsStore": "pass", "credHelpers": { "gcr.io": "gcr" },
             "currentContext": "colima", "cliPluginsExtraDirs": ["/x"] } trailing"#,
    )
    .expect("valid");
    assert_eq!(config.auths["a.example"].auth.expose(), "dTpw");
    assert_eq!(config.auths["a.example"].identity_token.expose(), "t");
    assert_eq!(config.auths["b.example"], AuthEntry::default());
    assert_eq!(config.auths["c.example"], AuthEntry::default());
    assert_eq!(config.creds_store.as_deref(), Some("pass"));
    assert_eq!(config.cred_helpers["gcr.io"], "gcr");
    assert_eq!(config.current_context.as_deref(), Some("colima"));
}

#[test]
fn a_broken_file_is_named_with_its_line() {
    let error = load("{\n  \"auths\": {}\n  \"credsStore\": \"pass\"\n}").expect_err("broken");
    let message = error.to_string();
    assert!(message.contains("/.docker/config.json:3: not JSON"), "{message}");
    assert!(message.ends_with("expected `,` or `}`"), "{message}");
    assert!(error.hint().contains("docker login"));
    let error = load("{\n\"auths\": {").expect_err("broken");
    assert!(error.to_string().contains("config.json:2: not JSON"), "{error}");
}

#[test]
fn a_value_of_the_wrong_type_is_not_quoted() {
    for text in ["{\n\"auths\": \"hunter2\"}", "{\n\"auths\": {\"h\": \"hunter2\"}}"] {
        let error = load(text).expect_err("broken");
        assert!(error.to_string().contains("config.json:2: not what Docker"), "{error}");
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
}

#[test]
fn a_file_that_cannot_be_read_is_an_error() {
    let home = TempDir::new().expect("a folder");
    fs::create_dir_all(home.path().join("config.json")).expect("a folder");
    let path = home.path().to_str().expect("UTF-8");
    let error = DockerConfig::load(&environment(&[("DOCKER_CONFIG", path)])).expect_err("error");
    assert!(error.to_string().contains("config.json cannot be read: "), "{error}");
    assert!(error.hint().contains("DOCKER_CONFIG"));
}

#[test]
fn secrets_do_not_show_in_debug() {
    let config = load(
        r#"{"auths":{"h":{"auth":"hunter2","password":"hunter2","identitytoken":"hunter2","registrytoken":"hunter2"}},
            "proxies":{"default":{"httpProxy":"http://u:hunter2@p"}}}"#,
    )
    .expect("valid");
    let debug = format!("{config:?}");
    assert!(debug.contains("Secret(..)"));
    assert!(!debug.contains("hunter2"), "{debug}");
}

#[test]
fn the_auth_variable_is_read_as_docker_reads_it() {
    let with = |value| load_with("{}", &[("DOCKER_AUTH_CONFIG", value)]).expect("valid");
    let config = with(r#"{"auths":{"h.example":{"auth":"dTpw"}}}"#);
    assert_eq!(config.auths_of_environment["h.example"].auth.expose(), "dTpw");
    assert!(config.notes.is_empty());
    for value in [
        r#"{"auths":{"h.example":{"auth":"hunter2"}},"credHelpers":{}}"#,
        r#"{"auths":{"h.example":{"auth":"hunter2","email":"hunter2"}}}"#,
        r#"{"auths":{"h.example":{}}}"#,
        r#"{"auths":{"h.example":{"auth":"hunter2"}}}"#,
        r#"{"auths":{}} {}"#,
        "hunter2",
    ] {
        let config = with(value);
        assert!(config.auths_of_environment.is_empty(), "{value}");
        assert_eq!(config.notes.len(), 1, "{value}");
        assert!(config.notes[0].starts_with("DOCKER_AUTH_CONFIG is not used: "));
        assert!(!config.notes[0].contains("hunter2"), "{:?}", config.notes);
    }
}

#[test]
fn proxies_become_build_args_in_both_cases() {
    let config =
        load(r#"{"proxies":{"default":{"httpProxy":"http://p:1","noProxy":"localhost"},"tcp://d:2375":{"allProxy":"socks5://s"}}}"#)
            .expect("valid");
    let args = |daemon| {
        let args = config.proxy_build_args(daemon).into_iter();
        args.map(|(name, value)| format!("{name}={}", value.expose())).collect::<Vec<_>>()
    };
    assert_eq!(
        args("unix:///var/run/docker.sock"),
        [
            "HTTP_PROXY=http://p:1",
            "http_proxy=http://p:1",
            "NO_PROXY=localhost",
            "no_proxy=localhost"
        ]
    );
    assert_eq!(args("tcp://d:2375"), ["ALL_PROXY=socks5://s", "all_proxy=socks5://s"]);
    assert!(DockerConfig::default().proxy_build_args("x").is_empty());
}
