use std::io;
use std::time::Instant;

use super::*;

#[test]
fn a_helper_is_given_the_key_and_the_word_get() {
    let machine = Machine::new(r#"{"credsStore":"x.y_z-1"}"#).with_program(
        "docker-credential-x.y_z-1",
        r#"printf '{"Username":"%s %s","Secret":"s"}' "$*" "$(cat; echo .)""#,
    );
    assert_eq!(machine.get("h:5000"), Ok(password("get h:5000.", "s")));
    let hub = password("get https://index.docker.io/v1/.", "s");
    assert_eq!(machine.get("docker.io"), Ok(hub));
}

#[test]
fn the_answers_of_a_helper() {
    let answer = |json: &str| {
        Machine::new(r#"{"credsStore":"s"}"#)
            .with_program("docker-credential-s", &format!("echo '{json}'"))
            .get("h")
    };
    let identity = Credential::IdentityToken(Secret::new("t"));
    assert_eq!(answer(r#"{"Username":"<token>","Secret":"t"}"#), Ok(identity));
    assert_eq!(answer(r#"{"username":"u","secret":"p"} trailing"#), Ok(password("u", "p")));
    assert_eq!(answer(r#"{"ServerURL":"","Username":"","Secret":""}"#), Ok(Credential::Anonymous));
    assert_eq!(answer(r#"{"Username":"<token>","Secret":""}"#), Ok(Credential::Anonymous));
    for broken in [r#"{"Username":"u","Secret":"hunter2""#, r#"["hunter2"]"#, "hunter2", ""] {
        let error = answer(broken).expect_err("not the protocol");
        assert!(matches!(error.problem, CredentialProblem::HelperAnswer { .. }));
        assert!(error.to_string().contains("`docker-credential-s` answered for h with"));
        assert!(!format!("{error} {error:?} {}", error.hint()).contains("hunter2"));
    }
}

#[test]
fn a_helper_that_reads_nothing_and_fails_says_so_itself() {
    let machine = Machine::new(r#"{"credsStore":"s"}"#).with_program(
        "docker-credential-s",
        r"exec 0<&-; printf 'cannot\topen\033[31m\n keychain\n'; echo 'and more' >&2; exit 3",
    );
    let error = machine.error("h.example");
    assert_eq!(
        error.to_string(),
        "credential helper `docker-credential-s` failed for h.example (exit status: 3): cannot open [31m keychain and more"
    );
    assert_eq!(error.hint(), "log in with `docker login h.example`");
    let machine = Machine::new(r#"{"credsStore":"s"}"#).with_program("docker-credential-s", "kill -9 $$");
    let message = machine.error("h").to_string();
    assert!(
        message.ends_with("failed for h (signal: 9 (SIGKILL)) and said nothing"),
        "{message}"
    );
}

#[test]
fn google_s_helper_without_a_login_is_explained() {
    // the words of docker-credential-gcr 2.2.1
    let said = "docker-credential-gcr/helper: could not retrieve GCR's access token: docker-credential-gcr/helper: failed to detect default credentials: credentials: could not find default credentials. See https://cloud.google.com/docs/authentication/external/set-up-adc for more information";
    let machine =
        Machine::new(r#"{"credHelpers":{"gcr.io":"gcr"}}"#).with_program("docker-credential-gcr", &format!("echo \"{said}\"; exit 1"));
    let error = machine.error("gcr.io");
    assert_eq!(
        error.to_string(),
        format!("credential helper `docker-credential-gcr` failed for gcr.io (exit status: 1): {said}")
    );
    for command in [
        "`gcloud auth login`",
        "`gcloud components install docker-credential-gcr`",
        "`docker-credential-gcr configure-docker`",
        "`gcloud auth configure-docker`",
        "`docker-credential-gcr config --token-source=gcloud`",
    ] {
        assert!(error.hint().contains(command), "{}", error.hint());
    }
}

#[test]
fn a_helper_that_is_not_there_is_named() {
    let machine = Machine::new(r#"{"credHelpers":{"gcr.io":"gcr"},"credsStore":"pass"}"#);
    let error = machine.error("gcr.io");
    assert_eq!(
        error.to_string(),
        "credential helper `docker-credential-gcr` for gcr.io, from `credHelpers` of Docker's config.json, is not on PATH"
    );
    assert_eq!(error.hint(), missing_credential_hint("gcr.io"));
    let error = machine.error("docker.io");
    assert!(error.to_string().contains("for docker.io, from `credsStore`"), "{error}");
    assert!(error.hint().contains("install docker-credential-pass"));
    assert!(error.hint().ends_with("run `docker login`"));
}

#[test]
fn a_file_that_is_no_program_is_not_the_helper() {
    let machine = Machine::new(r#"{"credsStore":"s"}"#);
    fs::write(machine.path().join("docker-credential-s"), "x").expect("a file");
    let problem = machine.error("h").problem;
    assert!(matches!(problem, CredentialProblem::HelperMissing { .. }));
    let machine = machine.with_program("docker-credential-s", "");
    fs::remove_file(machine.path().join("docker-credential-s")).expect("removed");
    fs::create_dir(machine.path().join("docker-credential-s")).expect("a folder");
    let problem = machine.error("h").problem;
    assert!(matches!(problem, CredentialProblem::HelperMissing { .. }));
}

#[test]
fn helpers_are_looked_for_in_absolute_folders_only() {
    let machine = Machine::new("{}").with_program("docker-credential-s", "");
    let inner = |path: OsString| {
        let config = DockerConfig::default();
        Credentials::new(&config, Some(path), SHORT).inner
    };
    let here = machine.path().as_os_str();
    let find = |inner: &Inner| inner.find_program("docker-credential-s");
    assert!(find(&inner(here.to_owned())).is_some());
    let mut relative = OsString::from("..");
    for _ in 0..20 {
        relative.push("/..");
    }
    relative.push(here);
    assert!(Path::new(&relative).join("docker-credential-s").exists());
    assert!(find(&inner(relative)).is_none());
    assert!(find(&inner(OsString::new())).is_none());
}

#[test]
fn a_program_that_cannot_be_run_says_why() {
    let machine = Machine::new(r#"{"credsStore":"s"}"#).with_program("docker-credential-s", "");
    let program = machine.path().join("docker-credential-s");
    fs::write(&program, "no program at all").expect("written");
    let error = machine.error("h");
    assert!(error.to_string().contains("`docker-credential-s` for h cannot be run: "), "{error}");
    assert!(error.hint().contains("reinstall docker-credential-s"));
}

#[test]
fn a_name_that_leaves_the_path_is_refused() {
    for name in ["../evil", "a/b", "a b", "a;b", "é"] {
        let machine = Machine::new(&format!(r#"{{"credsStore":"{name}"}}"#));
        let error = machine.error("h");
        assert!(matches!(error.problem, CredentialProblem::HelperName { .. }), "{name}");
        assert!(error.to_string().contains(&format!("`{name}`")), "{error}");
        assert!(error.hint().contains("`credsStore`"));
    }
}

#[test]
fn a_helper_that_hangs_is_stopped() {
    let machine = Machine::new(r#"{"credsStore":"s"}"#).with_program("docker-credential-s", "echo $$ > pid; exec sleep 60");
    let credentials = machine.credentials(SHORT);
    block_on(async {
        let started = Instant::now();
        let error = credentials.for_host("h").await.expect_err("too late");
        assert_eq!(
            error.to_string(),
            "credential helper `docker-credential-s` did not answer for h within 300ms and was stopped"
        );
        assert!(error.hint().contains("`echo h | docker-credential-s get > /dev/null`"));
        assert!(started.elapsed() < Duration::from_secs(30));
        let again = Instant::now();
        assert_eq!(credentials.for_host("h").await, Err(error));
        assert!(again.elapsed() < SHORT, "the failure is remembered");
    });
    let pid = fs::read_to_string(machine.path().join("pid")).expect("it ran");
    let state = || fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
    // dead, if perhaps not collected yet: its parent is this very test
    let dead = |stat: io::Result<String>| stat.map_or(true, |stat| stat.contains(") Z "));
    let killed = Instant::now();
    while !dead(state()) {
        assert!(killed.elapsed() < Duration::from_secs(20), "it lives on");
        std::thread::yield_now();
    }
}

#[test]
fn one_call_a_host_however_many_ask() {
    let machine = Machine::new(r#"{"credsStore":"s"}"#).with_program("docker-credential-s", &format!("echo x >> calls; sleep 0.2; {ECHO}"));
    let credentials = machine.credentials(HELPER_TIMEOUT);
    block_on(async {
        let asking: Vec<_> = (0..20)
            .map(|n| {
                let credentials = credentials.clone();
                tokio::spawn(async move { credentials.for_host(["a", "b"][n % 2]).await })
            })
            .collect();
        for (n, answer) in asking.into_iter().enumerate() {
            let answer = answer.await.expect("not cancelled");
            assert_eq!(answer, Ok(password(["a", "b"][n % 2], "helper")));
        }
    });
    let calls = fs::read_to_string(machine.path().join("calls")).expect("it ran");
    assert_eq!(calls.lines().count(), 2);
}

#[cfg(target_os = "linux")]
#[test]
fn the_platforms_helper_is_asked_only_where_nothing_is_configured() {
    let with_helpers = |config_json| {
        Machine::new(config_json)
            .with_program("docker-credential-secretservice", ECHO)
            .with_program("docker-credential-pass", "echo no gpg; exit 1")
    };
    assert_eq!(with_helpers("{}").get("h"), Ok(password("h", "helper")));
    let machine = with_helpers(r#"{"auths":{"x":{}}}"#);
    assert_eq!(machine.get("h"), Ok(Credential::Anonymous));
    let machine = with_helpers("{}").with_program("pass", "");
    assert_eq!(machine.get("h"), Ok(Credential::Anonymous), "its failure is no error");
    assert_eq!(Machine::new("{}").get("h"), Ok(Credential::Anonymous));
}
