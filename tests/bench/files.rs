//! The same set of images in the words of each tool. `$CHANNEL` is where it goes.

use std::fs;
use std::io;

use crate::workload::{BASE, Variants, Workload};

/// How the services' builds get the base.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// By its local tag: it is built by a command before. `BuildKit` of Docker 20.10 knows no other way.
    Tag,
    /// As a named context, so that the tool itself builds it first.
    Context,
}

pub fn write(workload: &Workload, registry: &str, base: Base) -> io::Result<()> {
    let services = &workload.services;
    let all = services.join(" ");
    let put = |name: &str, text: String| fs::write(workload.folder.join(name), text);
    put("images.yaml", images(services, registry))?;
    put("docker-bake.hcl", bake(services, registry, base))?;
    put("remote-bake.hcl", bake(services, registry, Base::Context))?;
    put("compose.yaml", compose(services, registry, base))?;
    put("skaffold.yaml", skaffold(services, registry))?;
    put("loop.sh", shell_loop(&all, registry, workload.variants))?;
    put("copy.sh", copies(&all, registry))
}

fn images(services: &[String], registry: &str) -> String {
    let images = services.iter().map(|service| format!("  {service}: {{ context: {service} }}\n"));
    format!(
        "registry: {registry}\ndebug: {{ utilities: ./busybox }}\ndefaults: {{ target: normal }}\nimages:\n  {BASE}: {{ context: base, push: false }}\n{}",
        images.collect::<String>()
    )
}

fn bake(services: &[String], registry: &str, base: Base) -> String {
    let quoted: Vec<String> = services.iter().map(|service| format!("\"{service}\"")).collect();
    let contexts = match base {
        Base::Tag => String::new(),
        Base::Context => format!("  contexts = {{ {BASE} = \"target:{BASE}\" }}\n"),
    };
    format!(
        r#"variable "CHANNEL" {{}}
group "default" {{ targets = ["service"] }}
target "{BASE}" {{
  context = "base"
  target = "normal"
  tags = ["{BASE}"]
}}
target "service" {{
  name = "${{service}}-${{variant}}"
  matrix = {{ service = [{}], variant = ["normal", "debug"] }}
  context = service
  target = variant
{contexts}  tags = ["{registry}/${{CHANNEL}}-${{variant == "debug" ? "debug-" : ""}}${{service}}:latest"]
}}
"#,
        quoted.join(", ")
    )
}

fn compose(services: &[String], registry: &str, base: Base) -> String {
    // by default neither built nor pushed; a service without an image's name is built and not pushed
    let (of_base, contexts) = match base {
        Base::Tag => (format!("image: {BASE}, profiles: [base]"), String::new()),
        Base::Context => (
            "pull_policy: build".to_owned(),
            format!(", additional_contexts: {{ {BASE}: \"service:{BASE}\" }}"),
        ),
    };
    let entries = services.iter().flat_map(|service| {
        [("", "", "normal"), ("-debug", "debug-", "debug")].map(|(suffix, prefix, target)| {
            let build = format!("{{ context: {service}, target: {target}{contexts} }}");
            format!("  {service}{suffix}: {{ image: \"{registry}/${{CHANNEL}}-{prefix}{service}:latest\", build: {build} }}\n")
        })
    });
    format!(
        "name: bench\nservices:\n  {BASE}: {{ build: {{ context: base, target: normal }}, {of_base} }}\n{}",
        entries.collect::<String>()
    )
}

/// `CHANNEL` is put in by the script: skaffold reads no variables in the name of an image.
fn skaffold(services: &[String], registry: &str) -> String {
    let artifacts = services.iter().flat_map(|service| {
        [("", "normal"), ("debug-", "debug")].map(|(prefix, target)| {
            format!("    - {{ image: {registry}/CHANNEL-{prefix}{service}, context: {service}, docker: {{ target: {target} }} }}\n")
        })
    });
    format!(
        "apiVersion: skaffold/v4beta6\nkind: Config\nbuild:\n  local: {{ push: true, useBuildkit: true, concurrency: 0 }}\n  \
         tagPolicy: {{ sha256: {{}} }}\n  artifacts:\n{}",
        artifacts.collect::<String>()
    )
}

fn shell_loop(services: &str, registry: &str, variants: Variants) -> String {
    let one = |prefix: &str, target: &str| {
        let image = format!("\"{registry}/$CHANNEL-{prefix}$service:latest\"");
        format!("  docker build -q --target {target} -t {image} \"$service\"\n  docker push -q {image}\n")
    };
    let debug = if variants == Variants::Both {
        one("debug-", "debug")
    } else {
        String::new()
    };
    format!(
        "docker build -q -t {BASE} base\nfor service in {services}; do\n{}{debug}done\n",
        one("", "normal")
    )
}

/// `$COPY SOURCE TARGET` for each image of `$FROM`, six at a time.
fn copies(services: &str, registry: &str) -> String {
    format!(
        r#"for variant in '' debug-; do
  for service in {services}; do
    echo "${{PREFIX}}{registry}/$FROM-$variant$service:latest" "${{PREFIX}}{registry}/$CHANNEL-$variant$service:latest"
  done
done | xargs -P 6 -n 2 $COPY
"#
    )
}
