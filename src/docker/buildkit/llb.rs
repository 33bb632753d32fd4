//! What a build is made from (moby/buildkit, `solver/pb/ops.proto`), as far as it copies files that it was sent.

use std::collections::{BTreeMap, HashMap};

use prost::bytes::Bytes;
use prost::{DecodeError, Message};
use serde_json::json;

use super::CONTEXT;
use super::upon::Upon;
use crate::reference::Digest;

const FOLDER: &str = "local://";
const IMAGE: &str = "docker-image://";
/// In the place of a mode or a time: that of the source.
const AS_IT_IS: i64 = -1;
/// In the place of what a file operation begins with.
const NOTHING: i64 = -1;
/// What of a folder is wanted, and by what it is known the next time (moby/buildkit, `solver/pb/attr.go`).
const PATHS: &str = "local.followpaths";
const FOLDER_NAME: &str = "local.sharedkeyhint";
const VERTEX_NAME: &str = "llb.customname";

/// All that is made on the way to this vertex of a definition.
///
/// # Errors
/// When it is none.
pub(super) fn up_to(vertex: &str, definition: &Bytes) -> Result<Definition, DecodeError> {
    let mut definition = Definition::decode(definition.clone())?;
    definition.end_with(vertex);
    Ok(definition)
}

/// A layer of what is in an archive, on top of an image: it is unpacked by itself, and copied from there.
pub(super) fn archive_upon(upon: &Upon) -> Definition {
    let mut definition = Definition::default();
    let [from, loading, unpacking, copying] = upon.names;
    let image = Op {
        platform: Some(upon.platform.clone()),
        ..Op::source(format!("{IMAGE}{}", upon.image), [])
    };
    let paths = json!([upon.archive]).to_string();
    let archive = Op::source(format!("{FOLDER}{CONTEXT}"), [(PATHS, paths), (FOLDER_NAME, CONTEXT.to_owned())]);
    let (image, archive) = (definition.add(from, &image), definition.add(loading, &archive));
    let unpacked = Action {
        input: NOTHING,
        copy: Some(FileCopy {
            unpacks: true,
            ..FileCopy::to_the_root(format!("/{}", upon.archive))
        }),
        ..Action::default()
    };
    let unpacked = definition.add(unpacking, &Op::files([archive], unpacked));
    let copied = Action {
        source: 1,
        copy: Some(FileCopy::to_the_root("/".to_owned())),
        ..Action::default()
    };
    let copied = definition.add(copying, &Op::files([image, unpacked], copied));
    definition.end_with(&copied.digest);
    definition
}

/// A layer that copies make.
pub(super) struct Layer {
    pub(super) vertex: String,
    pub(super) steps: Vec<Step>,
}

pub(super) enum Step {
    Copy(Copy),
    /// A folder, and those above it.
    Folder(String),
}

/// A file, or what is in a folder, goes to a place of the image.
pub(super) struct Copy {
    /// The name of the folder that was sent.
    pub(super) folder: String,
    /// In that folder.
    pub(super) from: String,
    /// Ends with a slash where it means a folder.
    pub(super) to: String,
    /// Permissions, where they are not to be those of the source.
    pub(super) mode: Option<u32>,
    /// An archive is unpacked.
    pub(super) unpacks: bool,
}

/// The layers of a definition, the lowest first, down to an image, to nothing, or to a vertex that `is_known`, which is told.
/// `None` where anything but such copies makes one of them.
pub(super) fn copied_layers(definition: &Bytes, is_known: impl Fn(&str) -> bool) -> Option<(Option<String>, Vec<Layer>)> {
    let definition = Definition::decode(definition.clone()).ok()?;
    let last = Op::decode(definition.ops.last()?.clone()).ok()?;
    let ops: HashMap<String, Op> = definition
        .ops
        .into_iter()
        .map(|op| Some((Digest::of(&op).to_string(), Op::decode(op).ok()?)))
        .collect::<Option<_>>()?;
    let (below, layers) = layers(&last.inputs.first()?.digest, &ops, is_known)?;
    Some(match below {
        Below::Known(vertex) => (Some(vertex), layers),
        Below::Image | Below::Nothing => (None, layers),
    })
}

type Ops = HashMap<String, Op>;

/// What layers stand on.
#[derive(PartialEq)]
enum Below {
    Known(String),
    Image,
    Nothing,
}

/// The lowest first.
fn layers(top: &str, ops: &Ops, is_known: impl Fn(&str) -> bool) -> Option<(Below, Vec<Layer>)> {
    let mut layers = Vec::new();
    let mut vertex = top;
    let below = loop {
        if is_known(vertex) {
            break Below::Known(vertex.to_owned());
        }
        let op = ops.get(vertex)?;
        if op.source.as_ref().is_some_and(|source| source.identifier.starts_with(IMAGE)) {
            break Below::Image;
        }
        let actions = &op.file.as_ref()?.actions;
        let steps = actions.iter().enumerate().map(|(at, action)| steps(op, at, action, ops));
        let steps = steps.collect::<Option<Vec<_>>>()?.into_iter().flatten().collect();
        layers.push(Layer {
            vertex: vertex.to_owned(),
            steps,
        });
        match usize::try_from(actions.first()?.input) {
            Ok(base) => vertex = &op.inputs.get(base)?.digest,
            Err(_) => break Below::Nothing,
        }
    };
    layers.reverse();
    Some((below, layers))
}

fn steps(op: &Op, at: usize, action: &Action, ops: &Ops) -> Option<Vec<Step>> {
    // each works on what the one before it has left
    if at > 0 && usize::try_from(action.input).ok()? != op.inputs.len() + at - 1 {
        return None;
    }
    if let Some(folder) = &action.folder {
        let is_plain = folder.makes_parents && folder.owner.is_none() && folder.timestamp == AS_IT_IS;
        return is_plain.then(|| vec![Step::Folder(folder.path.clone())]);
    }
    let copy = action.copy.as_ref().filter(|copy| copy.is_plain())?;
    let source = &op.inputs.get(usize::try_from(action.source).ok()?)?.digest;
    match &ops.get(source)?.source {
        Some(source) => Some(vec![Step::Copy(copy.of(source.identifier.strip_prefix(FOLDER)?))]),
        None => stage(copy, source, ops),
    }
}

/// All of a stage that is made of copies alone is what those copies would make here.
fn stage(copy: &FileCopy, top: &str, ops: &Ops) -> Option<Vec<Step>> {
    let is_whole = copy.from == "/" && copy.to == "/" && copy.mode < 0 && !copy.unpacks;
    let (below, layers) = layers(top, ops, |_| false).filter(|_| is_whole)?;
    (below == Below::Nothing).then(|| layers.into_iter().flat_map(|layer| layer.steps).collect())
}

impl FileCopy {
    /// As a frontend means it without a flag.
    fn to_the_root(from: String) -> Self {
        Self {
            from,
            to: "/".to_owned(),
            mode: -1,
            contents: true,
            creates_folders: true,
            allow_wildcard: true,
            timestamp: AS_IT_IS,
            ..Self::default()
        }
    }

    fn is_plain(&self) -> bool {
        let is_pattern = self.allow_wildcard && self.from.contains(['*', '?', '[', '\\']);
        !is_pattern
            && self.owner.is_none()
            && self.timestamp == AS_IT_IS
            && self.contents
            && self.creates_folders
            && self.includes.is_empty()
            && self.excludes.is_empty()
            && self.symbolic_mode.is_empty()
    }

    fn of(&self, folder: &str) -> Copy {
        Copy {
            folder: folder.to_owned(),
            from: self.from.clone(),
            to: self.to.clone(),
            mode: u32::try_from(self.mode).ok(),
            unpacks: self.unpacks,
        }
    }
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Definition {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    ops: Vec<Bytes>,
    /// By operation: what it is called, and what it needs of a builder.
    #[prost(map = "string, bytes", tag = "2")]
    metadata: HashMap<String, Bytes>,
}

impl Definition {
    fn add(&mut self, name: &str, op: &Op) -> Input {
        let op = Bytes::from(op.encode_to_vec());
        let digest = Digest::of(&op).to_string();
        let description = BTreeMap::from([(VERTEX_NAME.to_owned(), name.to_owned())]);
        self.metadata
            .insert(digest.clone(), OpMetadata { description }.encode_to_vec().into());
        self.ops.push(op);
        Input::of(&digest)
    }

    /// The last operation names what is made.
    fn end_with(&mut self, made: &str) {
        let inputs = vec![Input::of(made)];
        self.ops.push(Op { inputs, ..Op::default() }.encode_to_vec().into());
    }
}

#[derive(Clone, PartialEq, Message)]
struct OpMetadata {
    #[prost(btree_map = "string, string", tag = "2")]
    description: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
struct Op {
    #[prost(message, repeated, tag = "1")]
    inputs: Vec<Input>,
    #[prost(message, optional, tag = "3")]
    source: Option<Source>,
    #[prost(message, optional, tag = "4")]
    file: Option<FileOp>,
    #[prost(message, optional, tag = "10")]
    platform: Option<Platform>,
}

impl Op {
    fn source<const N: usize>(identifier: String, attrs: [(&str, String); N]) -> Self {
        let attrs = attrs.map(|(name, value)| (name.to_owned(), value)).into();
        Self {
            source: Some(Source { identifier, attrs }),
            ..Self::default()
        }
    }

    fn files<const N: usize>(inputs: [Input; N], action: Action) -> Self {
        Self {
            inputs: inputs.into(),
            file: Some(FileOp { actions: vec![action] }),
            ..Self::default()
        }
    }
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Platform {
    #[prost(string, tag = "1")]
    architecture: String,
    #[prost(string, tag = "2")]
    os: String,
    #[prost(string, tag = "3")]
    variant: String,
}

impl Platform {
    /// `os/architecture[/variant]`
    pub(super) fn named(name: &str) -> Self {
        let mut parts = name.split('/').map(str::to_owned);
        let (os, architecture, variant) = (parts.next(), parts.next(), parts.next());
        Self {
            architecture: architecture.unwrap_or_default(),
            os: os.unwrap_or_default(),
            variant: variant.unwrap_or_default(),
        }
    }
}

#[derive(Clone, PartialEq, Message)]
struct Input {
    #[prost(string, tag = "1")]
    digest: String,
}

impl Input {
    fn of(vertex: &str) -> Self {
        Self { digest: vertex.to_owned() }
    }
}

#[derive(Clone, PartialEq, Message)]
struct Source {
    #[prost(string, tag = "1")]
    identifier: String,
    #[prost(btree_map = "string, string", tag = "2")]
    attrs: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
struct FileOp {
    #[prost(message, repeated, tag = "2")]
    actions: Vec<Action>,
}

#[derive(Clone, PartialEq, Message)]
struct Action {
    /// Below zero: nothing.
    #[prost(int64, tag = "1")]
    input: i64,
    #[prost(int64, tag = "2")]
    source: i64,
    #[prost(message, optional, tag = "4")]
    copy: Option<FileCopy>,
    #[prost(message, optional, tag = "6")]
    folder: Option<MakeFolder>,
}

#[derive(Clone, PartialEq, Message)]
struct MakeFolder {
    #[prost(string, tag = "1")]
    path: String,
    #[prost(bool, tag = "3")]
    makes_parents: bool,
    #[prost(message, optional, tag = "4")]
    owner: Option<Owner>,
    #[prost(int64, tag = "5")]
    timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
#[expect(clippy::struct_excessive_bools, reason = "as the protocol has it")]
struct FileCopy {
    #[prost(string, tag = "1")]
    from: String,
    #[prost(string, tag = "2")]
    to: String,
    #[prost(message, optional, tag = "3")]
    owner: Option<Owner>,
    #[prost(int32, tag = "4")]
    mode: i32,
    #[prost(bool, tag = "6")]
    contents: bool,
    #[prost(bool, tag = "7")]
    unpacks: bool,
    #[prost(bool, tag = "8")]
    creates_folders: bool,
    #[prost(bool, tag = "9")]
    allow_wildcard: bool,
    #[prost(int64, tag = "11")]
    timestamp: i64,
    #[prost(string, repeated, tag = "12")]
    includes: Vec<String>,
    #[prost(string, repeated, tag = "13")]
    excludes: Vec<String>,
    #[prost(string, tag = "15")]
    symbolic_mode: String,
}

#[derive(Clone, PartialEq, Message)]
struct Owner {}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(inputs: &[&Bytes]) -> Op {
        let inputs = inputs.iter().map(|input| Input::of(Digest::of(input).as_str()));
        Op {
            inputs: inputs.collect(),
            ..Op::default()
        }
    }

    fn source(identifier: &str) -> Bytes {
        Op::source(identifier.to_owned(), []).encode_to_vec().into()
    }

    fn action(input: i64, source: i64, from: &str) -> Action {
        let copy = FileCopy {
            from: from.to_owned(),
            to: "/to/".to_owned(),
            mode: -1,
            contents: true,
            creates_folders: true,
            allow_wildcard: true,
            timestamp: -1,
            ..FileCopy::default()
        };
        Action {
            input,
            source,
            copy: Some(copy),
            folder: None,
        }
    }

    fn folder(input: i64, path: &str) -> Action {
        let folder = MakeFolder {
            path: path.to_owned(),
            makes_parents: true,
            timestamp: -1,
            ..MakeFolder::default()
        };
        Action {
            input,
            folder: Some(folder),
            ..Action::default()
        }
    }

    fn copying(inputs: &[&Bytes], actions: Vec<Action>) -> Bytes {
        let file = Some(FileOp { actions });
        Op { file, ..op(inputs) }.encode_to_vec().into()
    }

    fn definition(ops: &[&Bytes]) -> Bytes {
        let last = op(&ops[ops.len() - 1..]).encode_to_vec().into();
        let ops = ops.iter().copied().cloned().chain([last]).collect();
        let metadata = HashMap::new();
        Definition { ops, metadata }.encode_to_vec().into()
    }

    fn shape(definition: &Bytes) -> Option<Vec<Vec<String>>> {
        let (_, layers) = copied_layers(definition, |_| false)?;
        Some(layers.iter().map(|layer| layer.steps.iter().map(said).collect()).collect())
    }

    fn said(step: &Step) -> String {
        match step {
            Step::Copy(copy) => format!("{}:{}", copy.folder, copy.from),
            Step::Folder(path) => path.clone(),
        }
    }

    #[test]
    fn a_folder_is_made_in_a_layer_of_its_own() {
        let image = source("docker-image://a");
        let made = copying(&[&image], vec![folder(0, "/app")]);
        assert_eq!(shape(&definition(&[&image, &made])).expect("known"), [["/app"]]);
        let mut owned = folder(0, "/app");
        owned.folder.as_mut().expect("a folder").owner = Some(Owner {});
        assert!(shape(&definition(&[&image, &copying(&[&image], vec![owned])])).is_none());
    }

    #[test]
    fn layers_are_what_is_copied_down_to_an_image_or_nothing() {
        let (image, folder) = (source("docker-image://a"), source("local://context"));
        for base in [Some(&image), None] {
            let (inputs, first) = match base {
                Some(base) => (vec![base, &folder], action(0, 1, "/one")),
                None => (vec![&folder], action(-1, 0, "/one")),
            };
            let next = action(i64::try_from(inputs.len()).expect("few"), first.source, "/two");
            let below = copying(&inputs, vec![first, next]);
            let above = copying(&[&below, &folder], vec![action(0, 1, "/three")]);
            let ops: Vec<&Bytes> = base.into_iter().chain([&folder, &below, &above]).collect();
            let layers = shape(&definition(&ops)).expect("copies alone");
            assert_eq!(layers, [vec!["context:/one", "context:/two"], vec!["context:/three"]]);
        }
    }

    #[test]
    fn a_stage_that_is_copied_as_a_whole_is_what_it_was_made_of() {
        let (image, folder) = (source("docker-image://a"), source("local://context"));
        let stage = |base: Option<&Bytes>| match base {
            Some(base) => copying(&[base, &folder], vec![action(0, 1, "/one")]),
            None => copying(&[&folder], vec![action(-1, 0, "/one")]),
        };
        let copied = |stage: &Bytes, from: &str, to: &str| {
            let mut whole = action(0, 1, from);
            whole.copy.as_mut().expect("a copy").to = to.to_owned();
            let above = copying(&[&image, stage], vec![whole]);
            shape(&definition(&[&image, &folder, stage, &above]))
        };
        let of_nothing = stage(None);
        assert_eq!(copied(&of_nothing, "/", "/").expect("known"), [["context:/one"]]);
        assert!(copied(&of_nothing, "/to", "/").is_none(), "a part of it");
        assert!(copied(&of_nothing, "/", "/elsewhere").is_none());
        assert!(copied(&stage(Some(&image)), "/", "/").is_none(), "the files of the image as well");
    }

    #[test]
    fn an_archive_upon_an_image_is_such_a_stage() {
        let upon = Upon::new("h/i", "linux/arm/v7", "a.tar", ["from", "load", "unpack", "copy"], |_| None);
        let definition = archive_upon(&upon);
        let platform = Platform {
            architecture: "arm".to_owned(),
            os: "linux".to_owned(),
            variant: "v7".to_owned(),
        };
        let image = Op::decode(definition.ops[0].clone()).expect("an operation");
        assert_eq!(image.source.expect("a source").identifier, "docker-image://h/i");
        assert_eq!(image.platform, Some(platform));
        assert_eq!(definition.metadata.len(), 4, "each has a name");
        let shape = shape(&definition.encode_to_vec().into()).expect("copies alone");
        assert_eq!(shape, [["context:/a.tar"]]);
    }

    #[test]
    fn whatever_else_makes_a_layer_is_not_taken_for_a_copy() {
        let (image, folder) = (source("docker-image://a"), source("local://context"));
        let of = |source: &Bytes, change: fn(&mut FileCopy)| {
            let mut action = action(0, 1, "/one");
            change(action.copy.as_mut().expect("a copy"));
            let layer = copying(&[&image, source], vec![action]);
            shape(&definition(&[&image, source, &layer]))
        };
        assert!(of(&folder, |_| {}).is_some());
        let others: [fn(&mut FileCopy); 7] = [
            |copy| copy.from = "/on*".to_owned(),
            |copy| copy.owner = Some(Owner {}),
            |copy| copy.timestamp = 0,
            |copy| copy.contents = false,
            |copy| copy.includes = vec!["a".to_owned()],
            |copy| copy.excludes = vec!["a".to_owned()],
            |copy| copy.symbolic_mode = "u+x".to_owned(),
        ];
        for other in others {
            assert!(of(&folder, other).is_none());
        }
        assert!(of(&image, |_| {}).is_none(), "out of an image");
        let command = op(&[&image]).encode_to_vec().into();
        assert!(shape(&definition(&[&image, &command])).is_none(), "an operation of another kind");
        assert!(shape(&Bytes::from_static(b"\xff")).is_none());
        assert!(shape(&Bytes::new()).is_none());
    }
}
