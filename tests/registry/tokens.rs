//! A token server of ours for a real registry (distribution's token authentication), and its key.

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use tempfile::TempDir;
use url::form_urlencoded;

use crate::front::{Act, Front, Seen};
use crate::server::{Registry, Setup, openssl};

/// `kevin` with `secret` may do everything, `reader` with `secret` read; so may whoever has the identity token. Others
/// may read what lies below `public/`.
pub struct TokenServer {
    pub front: Front,
    signer: Arc<Signer>,
}

pub struct Signer {
    dir: TempDir,
}

pub const IDENTITY: &str = "an-identity-token";

impl Signer {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let subject = ["-subj", "/CN=tokens", "-days", "2", "-keyout", "key.pem", "-out", "cert.pem"];
        let arguments = [&["req", "-x509", "-newkey", "rsa:2048", "-nodes"][..], &subject].concat();
        openssl(dir.path(), &arguments);
        Self { dir }
    }

    pub fn certificate(&self) -> Vec<u8> {
        std::fs::read(self.dir.path().join("cert.pem")).expect("read")
    }

    /// A JWT for `access` that ends so many seconds from now.
    pub fn token(&self, access: &[String], seconds: i64) -> String {
        let pem = String::from_utf8(self.certificate()).expect("PEM");
        let der: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("after 1970")
            .as_secs()
            .cast_signed();
        let header = format!("{{\"typ\":\"JWT\",\"alg\":\"RS256\",\"x5c\":[\"{der}\"]}}");
        let nonce: u64 = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), now);
        let claims = format!(
            "{{\"iss\":\"tests\",\"sub\":\"\",\"aud\":\"registry\",\"exp\":{},\"nbf\":{},\"iat\":{},\"jti\":\"{nonce}\",\"access\":[{}]}}",
            now + seconds,
            now - 1000,
            now - 1000,
            access.join(",")
        );
        let encode = |part: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(part);
        let signed = format!("{}.{}", encode(header.as_bytes()), encode(claims.as_bytes()));
        let name = format!("signed-{nonce}");
        let path: &Path = self.dir.path();
        std::fs::write(path.join(&name), &signed).expect("written");
        let signature = openssl(path, &["dgst", "-sha256", "-sign", "key.pem", &name]);
        format!("{signed}.{}", encode(&signature))
    }
}

impl TokenServer {
    /// The first `stale` tokens are no good any more, though it says otherwise.
    pub async fn start(stale: usize) -> Self {
        let signer = Arc::new(Signer::new());
        let signs = Arc::clone(&signer);
        let given = std::sync::atomic::AtomicUsize::new(0);
        let front = Front::start("", move |seen| match granted(seen) {
            None => Act::Answer(
                401,
                Vec::new(),
                b"{\"errors\":[{\"code\":\"UNAUTHORIZED\",\"message\":\"who is that\"}]}".to_vec(),
            ),
            Some(access) => {
                let is_stale = given.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < stale;
                let token = signs.token(&access, if is_stale { -500 } else { 600 });
                // distribution, "Docker Registry v2 authentication": OAuth2 has another name for it
                let name = if seen.method == "POST" { "access_token" } else { "token" };
                Act::Answer(
                    200,
                    Vec::new(),
                    format!("{{\"{name}\":\"{token}\",\"expires_in\":300}}").into_bytes(),
                )
            }
        })
        .await;
        Self { front, signer }
    }

    pub fn registry(&self) -> Registry {
        let auth = format!(
            "auth: {{ token: {{ realm: \"http://{}/token\", service: registry, issuer: tests, rootcertbundle: DIR/cert.pem }} }}",
            self.front.host
        );
        Registry::with(Setup {
            config: &auth,
            files: &[("cert.pem", &self.signer.certificate())],
            ..Setup::default()
        })
    }

    pub fn signer(&self) -> &Signer {
        &self.signer
    }

    /// The scopes that were asked for, one request a line.
    pub fn scopes(&self) -> Vec<String> {
        self.front.seen().iter().map(|seen| scopes(seen).join(" ")).collect()
    }
}

fn scopes(seen: &Seen) -> Vec<String> {
    parameters(seen)
        .into_iter()
        .filter(|(name, _)| name == "scope")
        .map(|(_, value)| value)
        .collect()
}

fn parameters(seen: &Seen) -> Vec<(String, String)> {
    let query = seen.target.split_once('?').map_or("", |(_, query)| query);
    let (query, form) = (form_urlencoded::parse(query.as_bytes()), form_urlencoded::parse(&seen.body));
    query.into_owned().chain(form.into_owned()).collect()
}

/// What is granted of what is asked for, as a JWT's `access` has it; `None` for whom nobody knows.
fn granted(seen: &Seen) -> Option<Vec<String>> {
    let parameters = parameters(seen);
    let value = |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    assert_eq!(value("service"), Some("registry"));
    let allowed: fn(&str, &str) -> bool = match seen.password().as_deref() {
        Some("kevin:secret") => |_, _| true,
        Some("reader:secret") => |_, action| action == "pull",
        Some(_) => return None,
        None if seen.method == "POST" => {
            assert_eq!(value("grant_type"), Some("refresh_token"));
            match value("refresh_token") {
                Some(IDENTITY) => |_, _| true,
                _ => return None,
            }
        }
        None => |name, action| name.starts_with("public/") && action == "pull",
    };
    let asked: Vec<String> = scopes(seen)
        .iter()
        .flat_map(|scopes| scopes.split(' ').map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let access = asked.iter().filter(|scope| !scope.is_empty()).map(|scope| {
        let [kind, name, actions] = scope.split(':').collect::<Vec<_>>()[..] else {
            panic!("the scope {scope}")
        };
        let actions: Vec<_> = actions
            .split(',')
            .filter(|action| allowed(name, action))
            .map(|action| format!("\"{action}\""))
            .collect();
        format!("{{\"type\":\"{kind}\",\"name\":\"{name}\",\"actions\":[{}]}}", actions.join(","))
    });
    Some(access.collect())
}
