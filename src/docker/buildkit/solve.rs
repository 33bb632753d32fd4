//! One build: `Control.Solve`, with its progress from `Control.Status` (moby/buildkit, `api/services/control`).

use std::collections::HashMap;

use anyhow::Error;
use bollard::moby::buildkit::v1::control_client::ControlClient;
use bollard::moby::buildkit::v1::{SolveRequest, StatusRequest, StatusResponse, Vertex};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tracing::Span;

use crate::docker::instructions::{self, Cache};
use crate::event::{Event, Events, Speaker};
use crate::problem::printable;
use crate::timing;

/// What the exporter answers, and whether every instruction came from the cache.
pub(super) type Answer = (HashMap<String, String>, bool);

pub(super) async fn solve(mut client: ControlClient<Channel>, request: SolveRequest, step: &str, events: &Events) -> Result<Answer, Error> {
    let mut progress = Progress {
        step,
        events,
        vertexes: HashMap::new(),
        begun: HashMap::new(),
        parts: HashMap::new(),
        cache: Cache::default(),
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
    let answer = solved.map_err(|status| said(&status))?.into_inner().exporter_response;
    Ok((answer, progress.cache.all_hit()))
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
    /// By digest: the vertexes that are parts of the run's time, until they end.
    parts: HashMap<String, Span>,
    cache: Cache,
}

#[derive(PartialEq, Eq)]
enum Told {
    Begin,
    End,
}

impl Progress<'_> {
    /// Begins go before logs and ends after them: one answer may hold the whole of a vertex.
    fn show(&mut self, answer: StatusResponse) {
        for vertex in &answer.vertexes {
            self.begin(vertex);
        }
        for log in answer.logs {
            let mut text = self.begun.remove(&log.vertex).unwrap_or_default();
            text.push_str(&String::from_utf8_lossy(&log.msg));
            let (lines, rest) = text.rsplit_once('\n').unwrap_or(("", &text));
            for line in lines.lines() {
                self.say(Speaker::Command, line);
            }
            self.begun.insert(log.vertex, rest.to_owned());
        }
        for vertex in answer.vertexes.iter().filter(|vertex| vertex.completed.is_some()) {
            let rest = self.begun.remove(&vertex.digest).unwrap_or_default();
            self.say(Speaker::Command, &rest);
            self.end(vertex);
        }
    }

    fn begin(&mut self, vertex: &Vertex) {
        let begun = vertex.started.is_some() || vertex.completed.is_some();
        if !begun || self.vertexes.contains_key(&vertex.digest) {
            return;
        }
        self.vertexes.insert(vertex.digest.clone(), Told::Begin);
        if let Some(part) = part(&vertex.name) {
            let part = timing::part_of(self.step, part);
            self.parts.insert(vertex.digest.clone(), part);
        }
        if verdict(vertex).is_none() {
            self.say(Speaker::Builder, &vertex.name);
        }
        if let Some(instruction) = instructions::of_vertex(&vertex.name) {
            let step = self.step.to_owned();
            self.events.send(Event::Instruction { step, instruction });
        }
    }

    fn end(&mut self, vertex: &Vertex) {
        if self.vertexes.insert(vertex.digest.clone(), Told::End) == Some(Told::End) {
            return;
        }
        self.parts.remove(&vertex.digest);
        if let Some(verdict) = verdict(vertex) {
            self.say(Speaker::Builder, &format!("{} {verdict}", vertex.name));
        }
        if let Some(instruction) = instructions::of_vertex(&vertex.name)
            && self.cache.count(&instruction, vertex.cached)
        {
            let step = self.step.to_owned();
            self.events.send(Event::Cached { step, instruction });
        }
    }

    fn say(&self, by: Speaker, line: &str) {
        let line = line.trim_end();
        if !line.is_empty() {
            self.events.send(Event::output(self.step, line, by));
        }
    }
}

/// What a vertex that is no instruction takes time for (moby/buildkit, `frontend/dockerfile` and `exporter`).
fn part(vertex: &str) -> Option<&'static str> {
    match vertex {
        "[internal] load build context" => Some("send the context"),
        "exporting to image" => Some("export"),
        _ => None,
    }
}

fn verdict(vertex: &Vertex) -> Option<&'static str> {
    if vertex.cached {
        Some("CACHED")
    } else {
        (!vertex.error.is_empty()).then_some("FAILED")
    }
}
