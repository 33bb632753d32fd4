//! Channels, and how a person's name becomes one.

use std::fmt;
use std::str::FromStr;

use crate::problem::{Problem, printable};
use crate::reference::{ImageName, Reference, Registry, is_component};

const STABLE: &str = "stable";
const DEBUG_SUFFIX: &str = "-debug";
const SEPARATORS: [char; 3] = ['.', '_', '-'];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Variant {
    Normal,
    /// The same image with utilities.
    Debug,
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Normal => "normal",
            Self::Debug => "debug",
        })
    }
}

/// A person's name, valid in a repository's path, and in no other channel's name space.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UserName(String);

impl UserName {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Makes `raw` a channel's name: lower case, `DOMAIN\` and `@host` off, separators at the ends off.
    ///
    /// # Errors
    /// When what is left is no path component, or would write into another channel.
    pub fn clean(raw: &str) -> Result<Self, Problem> {
        let lower = raw.to_ascii_lowercase();
        let name = lower.split_once('\\').map_or(lower.as_str(), |(_, name)| name);
        let name = name.split_once('@').map_or(name, |(name, _)| name);
        let name = name.trim_matches(SEPARATORS);
        if name.is_empty() {
            return Err(refused(raw, "nothing is left of it"));
        }
        name.parse()
    }

    /// # Errors
    /// When the channel's address would be an image of another channel: `kevin-api` is where `api` of `kevin` lives.
    pub fn refuse_images<'a>(&self, images: impl IntoIterator<Item = &'a ImageName>) -> Result<(), Problem> {
        let addresses = [self.0.clone(), format!("{}{DEBUG_SUFFIX}", self.0)];
        for image in images {
            for address in &addresses {
                if let Some(other) = address.strip_suffix(image.as_str()).and_then(|rest| rest.strip_suffix('-')) {
                    return Err(refused(
                        &self.0,
                        &format!("`{address}` is where the image `{image}` of the channel `{other}` lives"),
                    ));
                }
            }
        }
        Ok(())
    }
}

impl FromStr for UserName {
    type Err = Problem;

    fn from_str(name: &str) -> Result<Self, Problem> {
        if name.is_empty() {
            return Err(refused(name, "nothing is left of it"));
        }
        if !is_component(name) {
            return Err(refused(
                name,
                "it may hold letters and digits of ASCII, with `-`, `_`, `__` or `.` between them",
            ));
        }
        if name == STABLE || name.starts_with("stable-") {
            return Err(refused(name, "it would write into the channel `stable`").hint("to push the channel `stable` itself: --stable"));
        }
        if name.ends_with(DEBUG_SUFFIX) {
            return Err(refused(name, "it would write into another user's debug channel")
                .hint("for the debug variant of your own channel: --debug"));
        }
        Ok(Self(name.to_owned()))
    }
}

fn refused(name: &str, why: &str) -> Problem {
    Problem::usage(format!("the user's name `{}` cannot be a channel: {why}", printable(name)))
        .hint("--user NAME (or LATTICE_IMAGES_USER) chooses another name")
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    Stable,
    User(UserName),
}

impl Owner {
    #[must_use]
    pub fn channel(&self, variant: Variant) -> ChannelName {
        ChannelName {
            owner: self.clone(),
            variant,
        }
    }
}

/// One complete set of images, all built the same way: `stable`, `stable-debug`, `<user>` or `<user>-debug`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChannelName {
    owner: Owner,
    variant: Variant,
}

impl ChannelName {
    #[must_use]
    pub fn variant(&self) -> Variant {
        self.variant
    }

    #[must_use]
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// The channel of the same owner with the other variant.
    #[must_use]
    pub fn other_variant(&self) -> Self {
        let variant = match self.variant {
            Variant::Normal => Variant::Debug,
            Variant::Debug => Variant::Normal,
        };
        self.owner.channel(variant)
    }

    /// What a consumer puts before an image's name, e.g. `kevinrosendahl-debug-`.
    #[must_use]
    pub fn prefix(&self) -> String {
        format!("{self}-")
    }

    /// # Errors
    /// When the name is longer than a registry allows.
    pub fn reference(&self, registry: &Registry, image: &ImageName) -> Result<Reference, Problem> {
        registry.reference(&format!("{self}-{image}"))
    }
}

impl FromStr for ChannelName {
    type Err = Problem;

    fn from_str(name: &str) -> Result<Self, Problem> {
        let (owner, variant) = match name.strip_suffix(DEBUG_SUFFIX) {
            Some(owner) => (owner, Variant::Debug),
            None => (name, Variant::Normal),
        };
        let owner = if owner == STABLE {
            Owner::Stable
        } else {
            Owner::User(owner.parse()?)
        };
        Ok(owner.channel(variant))
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.owner {
            Owner::Stable => STABLE,
            Owner::User(name) => name.as_str(),
        })?;
        match self.variant {
            Variant::Normal => Ok(()),
            Variant::Debug => f.write_str(DEBUG_SUFFIX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cleaned(raw: &str) -> String {
        UserName::clean(raw).expect(raw).0
    }

    #[test]
    fn names_are_cleaned_as_documented() {
        for (raw, name) in [
            ("kevinrosendahl", "kevinrosendahl"),
            ("Kevin.Rosendahl", "kevin.rosendahl"),
            ("DOMAIN\\kevin", "kevin"),
            ("kevin@corp.com", "kevin"),
            ("kevin_", "kevin"),
            ("_.-kevin-._", "kevin"),
            ("CORP\\Kevin.R@corp.com", "kevin.r"),
            ("root", "root"),
            ("debug", "debug"),
            ("stable_x", "stable_x"),
            ("stablehand", "stablehand"),
        ] {
            assert_eq!(cleaned(raw), name);
        }
    }

    #[test]
    fn names_that_would_write_elsewhere_are_refused() {
        for raw in [
            "stable",
            "Stable",
            "STABLE_",
            "CORP\\stable",
            "stable@x",
            "stable-x",
            "stable--x",
            "x-debug",
            "x--debug",
            "kevin-Debug",
            "stable-debug",
            "",
            "-",
            "@x",
            "DOMAIN\\",
            "kévin",
            "kevin rosendahl",
            "a/b",
            "a..b",
            "a___b",
            "../x",
            "a\\b\\c",
            "\u{212a}evin",
            "a\nb",
            "a:b",
            "$(id)",
        ] {
            assert!(UserName::clean(raw).is_err(), "{raw:?}");
        }
    }

    #[test]
    fn a_name_that_is_an_image_of_another_channel_is_refused() {
        let images = ["api", "envoy-prepare"].map(|name| ImageName::from_str(name).expect(name));
        assert!(
            UserName::clean("kevin-envoy-prepare")
                .expect("a name")
                .refuse_images(&images)
                .is_err()
        );
        assert!(UserName::clean("kevin-api-x").expect("a name").refuse_images(&images).is_ok());
        assert!(UserName::clean("api").expect("a name").refuse_images(&images).is_ok());
    }

    fn images() -> Vec<ImageName> {
        ["api", "envoy-prepare", "a.b", "x__y", "c-debug"]
            .iter()
            .map(|name| name.parse().expect("valid"))
            .collect()
    }

    fn references(user: &UserName) -> Vec<String> {
        let registry: Registry = "gcr.io/lattice-dev".parse().expect("valid");
        let owner = Owner::User(user.clone());
        let channels = [owner.channel(Variant::Normal), owner.channel(Variant::Debug)];
        let mut all: Vec<_> = channels.iter().map(|channel| format!("{registry}/{channel}")).collect();
        for channel in &channels {
            for image in images() {
                all.push(channel.reference(&registry, &image).expect("short").repository().to_string());
            }
        }
        all
    }

    proptest! {
        #[test]
        fn no_accepted_name_reaches_another_channel(a in "[a-c.@_\\\\ABC-]{0,6}(-?(debug|stable|api|envoy-prepare))?", b in "(stable-?|x-)?[a-c._-]{0,6}(-?(debug|api|a.b))?") {
            let accept = |raw: &str| UserName::clean(raw).ok().filter(|name| name.refuse_images(&images()).is_ok());
            let (Some(a), Some(b)) = (accept(&a), accept(&b)) else { return Ok(()) };
            for reference in references(&a) {
                prop_assert!(!reference.starts_with("gcr.io/lattice-dev/stable-") && reference != "gcr.io/lattice-dev/stable");
                prop_assert!(reference.split('/').skip(1).all(is_component), "{}", reference);
                if a != b {
                    prop_assert!(!references(&b).contains(&reference), "{} of {:?} and {:?}", reference, a, b);
                }
            }
        }

        #[test]
        fn any_text_is_cleaned_or_refused(raw in "\\PC{0,20}") {
            if let Ok(name) = UserName::clean(&raw) {
                prop_assert!(is_component(name.as_str()));
                prop_assert_eq!(UserName::clean(name.as_str()).expect("clean names stay"), name);
            }
        }
    }
}
