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
        Self::checked(name).map_err(|(why, hints)| hints.into_iter().fold(refused(raw, why), Problem::hint))
    }

    /// # Errors
    /// When the channel's address would be an image of another channel: `kevin-api` is where `api` of `kevin` lives.
    pub fn refuse_images<'a>(&self, images: impl IntoIterator<Item = &'a ImageName>) -> Result<(), Problem> {
        self.image_there(images).map_or(Ok(()), |why| Err(refused(&self.0, &why)))
    }

    /// The image of another channel that lives where this one's channels would.
    fn image_there<'a>(&self, images: impl IntoIterator<Item = &'a ImageName>) -> Option<String> {
        let addresses = [self.0.clone(), format!("{}{DEBUG_SUFFIX}", self.0)];
        images.into_iter().find_map(|image| {
            addresses.iter().find_map(|address| {
                let other = address.strip_suffix(image.as_str())?.strip_suffix('-')?;
                Some(format!("`{address}` is where the image `{image}` of the channel `{other}` lives"))
            })
        })
    }

    /// Else why it is none, and what may be meant.
    fn checked(name: &str) -> Result<Self, (&'static str, Option<&'static str>)> {
        if !is_component(name) {
            let why = "it may hold lower-case letters and digits of ASCII, with `-`, `_`, `__` or `.` between them";
            return Err((why, None));
        }
        if name == STABLE || name.starts_with("stable-") {
            let meant = "to push the channel `stable` itself: --stable";
            return Err(("it would write into the channel `stable`", Some(meant)));
        }
        if name.ends_with(DEBUG_SUFFIX) {
            let meant = "for the debug variant of your own channel: --debug";
            return Err(("it would write into another user's debug channel", Some(meant)));
        }
        Ok(Self(name.to_owned()))
    }
}

/// A person's name, of which a channel is made.
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
    /// When another channel's image lives there.
    pub fn refuse_images<'a>(&self, images: impl IntoIterator<Item = &'a ImageName>) -> Result<(), Problem> {
        let there = match &self.owner {
            Owner::Stable => None,
            Owner::User(name) => name.image_there(images),
        };
        there.map_or(Ok(()), |why| Err(no_channel(&self.to_string(), &why)))
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
            Owner::User(UserName::checked(owner).map_err(|(why, _)| no_channel(name, why))?)
        };
        Ok(owner.channel(variant))
    }
}

fn no_channel(name: &str, why: &str) -> Problem {
    Problem::usage(format!("`{}` is no channel: {why}", printable(name)))
        .hint("`lattice-images channels list` shows the channels of a registry")
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
            let refused = UserName::clean(raw).expect_err(raw).to_string();
            assert!(refused.contains(&format!("`{}`", printable(raw))), "{refused}");
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
