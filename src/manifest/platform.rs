//! Platforms, `os/architecture[/variant]`.

/// A platform as BuildKit names it to builds (containerd, `platforms`): an architecture has one name, and no variant where it is
/// the usual one, but for `arm`.
#[must_use]
pub fn canonical(platform: &str) -> String {
    let mut parts = platform.splitn(3, '/');
    let mut next = || parts.next().unwrap_or_default();
    let (os, architecture, variant) = (next(), next(), next());
    let (architecture, variant) = match (architecture, variant) {
        ("amd64" | "x86_64", "" | "v1") => ("amd64", ""),
        ("x86_64", variant) => ("amd64", variant),
        ("arm64" | "aarch64", "" | "8" | "v8") => ("arm64", ""),
        ("aarch64", variant) => ("arm64", variant),
        ("arm", "" | "7") | ("armhf", _) => ("arm", "v7"),
        ("arm", "6") | ("armel", _) => ("arm", "v6"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "8") => ("arm", "v8"),
        ("i386", _) => ("386", ""),
        other => other,
    };
    let parts = [os, architecture, variant].into_iter().filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::canonical;

    #[test]
    fn one_platform_has_one_name() {
        for (written, name) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("linux/x86_64", "linux/amd64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v9", "linux/arm64/v9"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/6", "linux/arm/v6"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/i386", "linux/386"),
            ("linux/s390x", "linux/s390x"),
            ("linux", "linux"),
        ] {
            assert_eq!(canonical(written), name, "{written}");
        }
    }
}
