//! One build: `Control.Solve`, with its progress from `Control.Status` (moby/buildkit, `api/services/control`).

use std::collections::HashMap;

use anyhow::{Context as _, Error};
use bollard::moby::buildkit::v1::control_client::ControlClient;
use bollard::moby::buildkit::v1::{SolveRequest, StatusRequest, StatusResponse, Vertex};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::event::{Event, Events};
use crate::problem::printable;
use crate::reference::Digest;

/// What the `moby` exporter answers: the id of the image.
const IMAGE_ID: &str = "containerimage.digest";

/// Gives the id of the image.
pub(super) async fn solve(mut client: ControlClient<Channel>, request: SolveRequest, step: &str, events: &Events) -> Result<Digest, Error> {
    let mut progress = Progress {
        step,
        events,
        vertexes: HashMap::new(),
        begun: HashMap::new(),
    };
    let mut status_client = client.clone();
    let reference = request.r#ref.clone();
    let solving = client.solve(request);
    let watching = async {
        let mut answers = status_client.status(StatusRequest { r#ref: reference }).await?.into_inner();
        while let Some(answer) = answers.message().await? {
            progress.show(answer);
        }
        Ok::<_, Status>(())
    };
    // without its progress a build is still a build
    let (solved, _) = tokio::join!(solving, watching);
    let response = solved.map_err(|status| said(&status))?.into_inner();
    let id = response
        .exporter_response
        .get(IMAGE_ID)
        .context("the builder named no image at the end of the build")?;
    Ok(id.parse()?)
}

pub(super) fn said(status: &Status) -> Error {
    let message = printable(status.message());
    match status.code() {
        Code::Unknown | Code::Internal => Error::msg(message),
        code => Error::msg(format!("{message} ({})", code.description())),
    }
}

struct Progress<'a> {
    step: &'a str,
    events: &'a Events,
    /// By digest: how far each was told of.
    vertexes: HashMap<String, Told>,
    /// By digest: the line that a vertex has begun and not ended; logs come in pieces.
    begun: HashMap<String, String>,
}

#[derive(Default, PartialEq, Eq)]
enum Told {
    #[default]
    Nothing,
    Begin,
    End,
}

impl Progress<'_> {
    fn show(&mut self, answer: StatusResponse) {
        for log in answer.logs {
            let mut text = self.begun.remove(&log.vertex).unwrap_or_default();
            text.push_str(&String::from_utf8_lossy(&log.msg));
            let (lines, rest) = text.rsplit_once('\n').unwrap_or(("", &text));
            for line in lines.lines() {
                self.line(line);
            }
            self.begun.insert(log.vertex, rest.to_owned());
        }
        for vertex in &answer.vertexes {
            if vertex.completed.is_some() {
                let rest = self.begun.remove(&vertex.digest).unwrap_or_default();
                self.line(&rest);
            }
            self.vertex(vertex);
        }
    }

    fn vertex(&mut self, vertex: &Vertex) {
        let told = self.vertexes.entry(vertex.digest.clone()).or_default();
        let name = vertex.name.as_str();
        let line = match (&*told, vertex.started.is_some(), vertex.completed.is_some()) {
            (Told::Nothing | Told::Begin, _, true) if vertex.cached => Some((Told::End, format!("{name} CACHED"))),
            (Told::Nothing | Told::Begin, _, true) if !vertex.error.is_empty() => Some((Told::End, format!("{name} FAILED"))),
            (Told::Nothing, true, true) => Some((Told::End, name.to_owned())),
            (Told::Nothing, true, false) => Some((Told::Begin, name.to_owned())),
            _ => None,
        };
        if let Some((now, line)) = line {
            *told = now;
            self.line(&line);
        }
    }

    fn line(&self, line: &str) {
        let line = line.trim_end();
        if line.is_empty() {
            return;
        }
        self.events.send(Event::Output {
            step: self.step.to_owned(),
            line: line.to_owned(),
        });
    }
}
