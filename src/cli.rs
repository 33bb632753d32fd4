//! The command line, as clap's types.

use std::path::{Path, PathBuf};

use clap::builder::{OsStringValueParser, RangedU64ValueParser, TypedValueParser as _};
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::manifest::DEFAULT_REGISTRY;

const AFTER_HELP: &str = "\
The Docker daemon is the one that `docker` talks to: DOCKER_HOST, DOCKER_CONTEXT, docker context use.
Exit codes: 0 done, 1 failed, 2 wrong usage or manifest, 130 interrupted.
Results go to stdout, everything else to stderr.";

const PUSH_ALL_EXAMPLES: &str = "\
Examples:
  lattice-images push-all                       to your own channel
  lattice-images push-all --with-debug          and the debug variants to <user>-debug
  lattice-images push-all -n                    only show what would be done
  lattice-images push-all --registry 127.0.0.1:5000/lattice-dev
  CI=true lattice-images push-all --stable      what CI runs on master

What the channel has already is not built again. Every build that can still succeed is carried through, so that one run
shows all errors. When one fails, nothing is published: the channel is the old set or the new one.";

const PUSH_IMAGE_EXAMPLES: &str = "\
Examples:
  lattice-images push-image envoy-prepare                   to your own channel
  lattice-images push-image envoy-prepare --with-debug      and its debug variant
  lattice-images push-image envoy-prepare lattice-cli-admin --debug

What an image is FROM is built first where it is an image of the manifest too; only the named images are pushed.";

const BUILD_EXAMPLES: &str = "\
Examples:
  lattice-images build                          every image of the manifest
  lattice-images build envoy-prepare --debug

Each image ends in the daemon as `<registry>/<channel>-<image>:latest`; nothing leaves the machine.
A builder elsewhere (--builder) keeps the results in its cache.";

const CHANNELS_EXAMPLES: &str = "\
Examples:
  lattice-images channels                       your four channels, with an image of each
  eval \"$(lattice-images channels env --debug)\"
  env $(lattice-images channels env) npm start
  lattice-cli $(lattice-images channels backend-vars) ...
  lattice-images channels show stable           what is in it, from which commits, and who published it
  lattice-images channels diff                  your own channel against stable
  lattice-images channels copy stable           your channel becomes what stable is, by digest
  lattice-images channels rollback stable       to the record before";

const ENV_EXAMPLES: &str = "\
Examples:
  eval \"$(lattice-images channels env --debug)\"
  export $(lattice-images channels env --stable)
  env $(lattice-images channels env) npm start

A manifest is not needed; where there is one, only its images' names are read.";

const BACKEND_VARS_EXAMPLES: &str = "\
Examples:
  lattice-cli $(lattice-images channels backend-vars) ...
  lattice-cli $(lattice-images channels backend-vars --stable --registry gcr.io/lattice-dev) ...

A manifest is not needed; where there is one, only its registry and its images' names are read.";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  lattice-images completions bash >~/.local/share/bash-completion/completions/lattice-images
  lattice-images completions zsh >~/.zfunc/_lattice-images
  lattice-images completions fish >~/.config/fish/completions/lattice-images.fish";

const MAN_EXAMPLES: &str = "\
Examples:
  lattice-images man | man -l -
  lattice-images man --dir ~/.local/share/man/man1";

const SCHEMA_EXAMPLES: &str = "\
Examples:
  lattice-images schema >images.schema.json

With `# yaml-language-server: $schema=images.schema.json` as the first line of images.yaml, editors check and complete it.";

/// Build a team's set of Docker images and publish the set to a channel
#[derive(Debug, Parser)]
#[command(name = "lattice-images", version, after_help = AFTER_HELP, max_term_width = 100, arg_required_else_help = true)]
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
    /// Builds every image of `images.yaml` with the Docker daemon, or with --builder elsewhere, in the order of what they are FROM, and pushes
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
    /// Build only, into the daemon; push nothing
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
    /// Show which images of your channel differ from this checkout; with -v, why
    ///
    /// Exit codes: 0 nothing differs, 1 something does, 2 it could not be told.
    Status {
        #[command(flatten)]
        variants: Variants,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Check what the tool needs: builder, registry, credentials, git, names; and say how to mend it
    ///
    /// Exit codes: 0 all is well, 1 something is not.
    Doctor {
        /// The builder to check, as with `build` [default: the one that builds]
        #[arg(long, value_name = "BUILDER")]
        builder: Vec<String>,
    },
    /// Print what completes the program's command line in a shell
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions {
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Print the program's manual page, or write one for each command
    #[command(after_help = MAN_EXAMPLES)]
    Man {
        /// Write the pages of all commands into this folder
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Print the JSON schema of `images.yaml`, for editors
    #[command(after_help = SCHEMA_EXAMPLES)]
    Schema,
    /// Show your four channels, look into them, copy them, go back
    #[command(after_help = CHANNELS_EXAMPLES)]
    Channels {
        #[command(subcommand)]
        command: Option<Channels>,
    },
}

impl Command {
    /// Where the timeline of the run goes.
    #[must_use]
    pub fn timings(&self) -> Option<&Path> {
        self.run()?.timings.as_deref()
    }

    /// The files that are written at the end.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let files = self.run().map(|run| [&run.metadata_file, &run.timings]);
        files.into_iter().flatten().filter_map(|file| file.as_deref())
    }

    fn run(&self) -> Option<&Run> {
        match self {
            Self::PushAll(push) | Self::PushImage { push, .. } => Some(&push.run),
            Self::Build { run, .. } => Some(run),
            _ => None,
        }
    }
}

#[derive(Debug, Subcommand)]
pub enum Channels {
    /// Print `LATTICE_CONTAINER_REPO_PREFIX=<prefix>`, right in `eval`, `export $(...)` and `env $(...) COMMAND`
    #[command(after_help = ENV_EXAMPLES)]
    Env(Selection),
    /// Print the two `--backend-var` of the admin CLI, right in `$(...)`
    #[command(after_help = BACKEND_VARS_EXAMPLES)]
    BackendVars(Selection),
    /// Show every channel of the registry
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what is in a channel: digests, fingerprints, revisions, who published it and when
    Show {
        /// For example `stable` or `kevinrosendahl-debug` [default: your own]
        channel: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the records of a channel, the newest first
    History {
        /// [default: your own]
        channel: Option<String>,
        /// How many records
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
        limit: usize,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show how two channels differ, image by image, and the commits between them
    ///
    /// Exit codes: 0 they are the same, 1 they differ, 2 it could not be told.
    Diff {
        /// [default: your own]
        #[arg(value_name = "A")]
        left: Option<String>,
        /// [default: stable]
        #[arg(value_name = "B")]
        right: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Publish the images of one channel as another, by digest: nothing is built
    #[command(visible_alias = "promote")]
    Copy {
        from: String,
        /// [default: your own]
        to: Option<String>,
        /// Answer every question with yes
        #[arg(short, long)]
        yes: bool,
        /// Publish `stable` though what is copied is not what it is built from
        #[arg(long)]
        override_stable_guard: bool,
    },
    /// Make a channel what an earlier record says
    Rollback {
        channel: String,
        /// The number of the record [default: the one before]
        #[arg(long, value_name = "N")]
        to: Option<u64>,
        /// Answer every question with yes
        #[arg(short, long)]
        yes: bool,
    },
    /// Remove images that the manifest no longer publishes, and what no recent record names
    Clean {
        /// [default: your own]
        channel: Option<String>,
        /// How many records are kept, with all that they name
        #[arg(long, value_name = "N", default_value_t = 10)]
        keep: usize,
        /// Only show what would be removed
        #[arg(short = 'n', long)]
        dry_run: bool,
        /// Answer every question with yes
        #[arg(short, long)]
        yes: bool,
    },
    /// Delete a channel with all of its images and records
    Delete {
        channel: String,
        /// Answer every question with yes
        #[arg(short, long)]
        yes: bool,
    },
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
        // an empty variable is none
        value_parser = OsStringValueParser::new().map(PathBuf::from),
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
    /// Build and push even what is unchanged
    #[arg(long, help_heading = "Run")]
    pub force: bool,
    /// Publish `stable` though the checkout is not what it is built from
    #[arg(long, help_heading = "Run", requires = "stable")]
    pub override_stable_guard: bool,
    #[arg(
        long,
        value_enum,
        value_name = "WHO",
        help_heading = "Run",
        help = "Who compresses and uploads what the Docker daemon or a builder has built [default: the client, where that is on this machine, and the image is made of copied files alone; also where it is a daemon, and the registry takes 10 ms or more to answer; else the daemon or the builder] [env: LATTICE_IMAGES_PUSH_BY]"
    )]
    pub push_by: Option<PushBy>,
    #[command(flatten)]
    pub run: Run,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PushBy {
    /// The daemon or the builder: each layer on one core, and only new layers are touched
    Daemon,
    /// This program: it makes images of copied files again itself, and takes others out of the daemon whole; it compresses
    /// each new layer on all cores, and waits for fewer answers of the registry
    Client,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Run")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct Run {
    /// How many images are built or pushed at once [default: twice the number of cores]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
    /// Print the plan; ask neither builder nor registry
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Fetch the images that a build is FROM, even if the daemon has them
    #[arg(long)]
    pub pull: bool,
    /// Build without the builder's cache
    #[arg(long)]
    pub no_cache: bool,
    /// Build with a `BuildKit` elsewhere: an address, or the name of a buildx builder; several share the work
    ///
    /// `tcp://HOST:PORT` (for TLS with ,cacert=FILE,cert=FILE,key=FILE behind it), `unix://SOCKET`, `docker-container://NAME`,
    /// or what `docker buildx ls` shows. Several are parted by commas, or the option is repeated. `default` is the
    /// Docker daemon. Without it `LATTICE_IMAGES_BUILDER`, `BUILDX_BUILDER`, or `builder` of the manifest.
    #[arg(long, value_name = "BUILDER")]
    pub builder: Vec<String>,
    /// Stop at the first failure
    #[arg(long)]
    pub fail_fast: bool,
    /// What is shown while it runs, on stderr
    #[arg(long, value_enum, value_name = "KIND", default_value_t = Progress::Auto)]
    pub progress: Progress,
    /// The same as --progress quiet: one `reference@digest` a line, or the id of what is only built
    #[arg(short, long, conflicts_with_all = ["progress", "verbose"])]
    pub quiet: bool,
    /// Write what came of each image to FILE, as JSON
    #[arg(long, value_name = "FILE")]
    pub metadata_file: Option<PathBuf>,
    /// Write a timeline of the run to FILE, as HTML: each image's parts, and what the run waited for
    #[arg(long, value_name = "FILE")]
    pub timings: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Progress {
    /// tty at a terminal, else plain; plain also with CI set, TERM=dumb, or -v
    Auto,
    /// A line an image, redrawn in place
    Tty,
    /// Lines, each with its image before it; in GitHub Actions a group an image, and errors as annotations
    Plain,
    /// One JSON object a line, as docs/progress.md describes them
    Json,
    /// Nothing but failures; results as one `reference@digest` a line
    Quiet,
}

impl Run {
    #[must_use]
    pub fn progress(&self) -> Progress {
        if self.quiet { Progress::Quiet } else { self.progress }
    }
}
