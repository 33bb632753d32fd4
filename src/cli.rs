//! The command line, as clap's types.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::manifest::DEFAULT_REGISTRY;

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failed, 2 wrong usage or manifest, 130 interrupted.
Results go to stdout, everything else to stderr.";

const PUSH_ALL_EXAMPLES: &str = "\
Examples:
  lattice-images push-all                       to your own channel
  lattice-images push-all --with-debug          and the debug variants to <user>-debug
  lattice-images push-all -n                    only show what would be done
  lattice-images push-all --registry 127.0.0.1:5000/lattice-dev
  CI=true lattice-images push-all --stable      what CI runs on master

Every build that can still succeed is carried through, so that one run shows all errors.
When one fails, nothing is pushed.";

const PUSH_IMAGE_EXAMPLES: &str = "\
Examples:
  lattice-images push-image envoy-prepare
  lattice-images push-image envoy-prepare lattice-cli-admin --debug

What an image is FROM is built first where it is an image of the manifest too; only the named images are pushed.";

const BUILD_EXAMPLES: &str = "\
Examples:
  lattice-images build                          every image of the manifest
  lattice-images build envoy-prepare --debug

Each image ends in the daemon as `<registry>/<channel>-<image>:latest`; nothing leaves the machine.";

const CHANNELS_EXAMPLES: &str = "\
Examples:
  lattice-images channels                       name, prefix and an image of each of your four channels
  eval \"$(lattice-images channels env --debug)\"
  env $(lattice-images channels env) npm start
  lattice-cli $(lattice-images channels backend-vars) ...";

/// Build a team's set of Docker images and publish the set to a channel
#[derive(Debug, Parser)]
#[command(name = "lattice-images", version, after_help = EXIT_CODES, max_term_width = 100, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build and push every image of the manifest
    ///
    /// Builds every image of `images.yaml` with the Docker daemon, in the order of what they are FROM, and pushes
    /// them to `<registry>/<channel>-<image>:latest`.
    #[command(after_help = PUSH_ALL_EXAMPLES)]
    PushAll(Push),
    /// Build and push the named images, and build what they are FROM
    #[command(after_help = PUSH_IMAGE_EXAMPLES)]
    PushImage {
        /// Images of the manifest
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
        #[command(flatten)]
        push: Push,
    },
    /// Build into the daemon only, push nothing
    #[command(after_help = BUILD_EXAMPLES)]
    Build {
        /// Images of the manifest; none: all
        #[arg(value_name = "IMAGE")]
        images: Vec<String>,
        #[command(flatten)]
        variants: Variants,
        #[command(flatten)]
        run: Run,
    },
    /// Show your four channels, or what a consumer of one is given
    #[command(after_help = CHANNELS_EXAMPLES)]
    Channels {
        #[command(subcommand)]
        command: Option<Channels>,
    },
}

#[derive(Debug, Subcommand)]
pub enum Channels {
    /// Print `LATTICE_CONTAINER_REPO_PREFIX=<prefix>`, right in `eval`, `export $(...)` and `env $(...) COMMAND`
    Env(Selection),
    /// Print the two `--backend-var` of the admin CLI, right in `$(...)`
    BackendVars(Selection),
}

/// What every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Where")]
pub struct Common {
    /// The manifest [default: images.yaml in this folder or the nearest one above]
    #[arg(
        short,
        long,
        global = true,
        value_name = "FILE",
        env = "LATTICE_IMAGES_FILE",
        hide_env_values = true
    )]
    pub file: Option<PathBuf>,
    #[arg(long, global = true, value_name = "HOST/PATH", env = "LATTICE_IMAGES_REGISTRY", hide_env_values = true, help = format!("The registry [default: the manifest's, else {DEFAULT_REGISTRY}]"))]
    pub registry: Option<String>,
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        visible_alias = "channel",
        help = "Whose channel [default: the OS user's] [env: LATTICE_IMAGES_USER]"
    )]
    pub user: Option<String>,
    /// Show more of what is done
    #[arg(short, long, global = true)]
    pub verbose: bool,
}

/// The channel of a command that speaks of one.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Channel")]
pub struct Selection {
    /// The channel `stable` instead of your own
    #[arg(long)]
    pub stable: bool,
    /// The debug variant: the same images with utilities such as busybox
    #[arg(long)]
    pub debug: bool,
}

#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Channel")]
pub struct Variants {
    #[command(flatten)]
    pub selection: Selection,
    /// Both variants, normal and debug
    #[arg(long, conflicts_with = "debug")]
    pub with_debug: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Run")]
pub struct Push {
    #[command(flatten)]
    pub variants: Variants,
    /// Answer every question with yes
    #[arg(short, long, help_heading = "Run")]
    pub yes: bool,
    #[command(flatten)]
    pub run: Run,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Run")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct Run {
    /// How many images are built or pushed at once [default: the number of cores]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
    /// Print the plan; ask neither daemon nor registry
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Fetch the images that a build is FROM, even if the daemon has them
    #[arg(long)]
    pub pull: bool,
    /// Build without the builder's cache
    #[arg(long)]
    pub no_cache: bool,
    /// Stop at the first failure
    #[arg(long)]
    pub fail_fast: bool,
    /// What is shown while it runs
    #[arg(long, value_enum, value_name = "KIND", default_value_t = Progress::Plain)]
    pub progress: Progress,
    /// The same as --progress quiet: one `reference@digest` a line
    #[arg(short, long)]
    pub quiet: bool,
    /// Write what came of each image to FILE, as JSON
    #[arg(long, value_name = "FILE")]
    pub metadata_file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Progress {
    /// Lines, each with its image before it
    Plain,
    /// Nothing but failures
    Quiet,
}

impl Run {
    #[must_use]
    pub fn progress(&self) -> Progress {
        if self.quiet { Progress::Quiet } else { self.progress }
    }
}
