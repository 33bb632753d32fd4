//! The layers of a definition that are made by copying files that were sent.

use std::collections::HashMap;

use prost::Message as _;
use prost::bytes::Bytes;

use super::{AS_IT_IS, Action, Definition, FOLDER, FileCopy, IMAGE, Op};
use crate::reference::Digest;

/// Of a folder that is made, and of those above it that are.
const FOLDER_MODE: i32 = 0o755;

/// A layer that copies make.
pub(in crate::docker::buildkit) struct Layer {
    pub(in crate::docker::buildkit) vertex: String,
    /// What the vertex is called.
    pub(in crate::docker::buildkit) name: String,
    pub(in crate::docker::buildkit) steps: Vec<Step>,
}

pub(in crate::docker::buildkit) enum Step {
    Copy(Copy),
    /// A folder, and those above it.
    Folder(String),
}

/// A file, or what is in a folder, goes to a place of the image.
pub(in crate::docker::buildkit) struct Copy {
    /// The name of the folder that was sent.
    pub(in crate::docker::buildkit) folder: String,
    /// In that folder.
    pub(in crate::docker::buildkit) from: String,
    /// Ends with a slash where it means a folder.
    pub(in crate::docker::buildkit) to: String,
    /// Permissions, where they are not to be those of the source.
    pub(in crate::docker::buildkit) mode: Option<u32>,
    /// An archive is unpacked.
    pub(in crate::docker::buildkit) unpacks: bool,
}

/// What layers stand on.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::docker::buildkit) enum Below {
    Known(String),
    Image,
    Nothing,
}

/// The layers of a definition, the lowest first, down to an image, to nothing, or to a vertex that `is_known`. `None` where
/// anything but such copies makes one of them.
pub(in crate::docker::buildkit) fn copied_layers(definition: &Bytes, is_known: impl Fn(&str) -> bool) -> Option<(Below, Vec<Layer>)> {
    let definition = Definition::decode(definition.clone()).ok()?;
    let last = Op::decode(definition.ops.last()?.clone()).ok()?;
    let ops: HashMap<String, Op> = definition
        .ops
        .iter()
        .map(|op| Some((Digest::of(op).to_string(), Op::decode(op.clone()).ok()?)))
        .collect::<Option<_>>()?;
    let (below, mut layers) = layers(&last.inputs.first()?.digest, &ops, is_known)?;
    for layer in &mut layers {
        layer.name = definition.name_of(&layer.vertex).unwrap_or_default();
    }
    Some((below, layers))
}

type Ops = HashMap<String, Op>;

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
            name: String::new(),
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
        let is_plain = folder.mode == FOLDER_MODE && folder.makes_parents && folder.owner.is_none() && folder.timestamp == AS_IT_IS;
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

#[cfg(test)]
mod tests {
    use super::super::{FileOp, Input, MakeFolder, Owner};
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
            mode: FOLDER_MODE,
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
