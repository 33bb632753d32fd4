//! One build: `Control.Solve`, with its progress from `Control.Status` (moby/buildkit, `api/services/control`).

use std::collections::HashMap;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Error;
use bollard::moby::buildkit::v1::control_client::ControlClient;
use bollard::moby::buildkit::v1::{SolveRequest, StatusRequest, StatusResponse, Vertex};
use futures_util::future::{self, Either};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tracing::{Span, debug};

use super::folder::Folder;
use super::gateway::{Bridge, FrontendResult, Look, Question};
use super::replica::{Compared, Plan, Replica};
use super::request::Again;
use crate::docker::instructions::{self, Cache};
use crate::event::{Event, Events, Speaker};
use crate::problem::printable;
use crate::timing;

const LAST_WORDS: Duration = Duration::from_secs(5);

/// What came of a build.
pub(super) struct Solved {
    /// The exporter's.
    pub(super) answer: HashMap<String, String>,
    /// Every instruction came from the cache.
    pub(super) cached: bool,
    pub(super) made: FrontendResult,
    pub(super) replica: Option<Arc<Replica>>,
}

/// What the client's part of a build is.
pub(super) struct Making<'a> {
    /// To the build that is asked for.
    pub(super) bridge: Bridge,
    pub(super) question: Question,
    pub(super) look: Option<Look>,
    /// For instructions that only copy files.
    pub(super) settling: Settling<'a>,
}

pub(super) struct Settling<'a> {
    pub(super) folders: Arc<HashMap<String, Arc<Folder>>>,
    /// What the build may stand on.
    pub(super) siblings: Vec<Arc<Replica>>,
    /// Where what is made is to be made again.
    pub(super) again: Option<Again<'a>>,
    /// Where things are kept from run to run.
    pub(super) cache: Option<PathBuf>,
}

pub(super) async fn solve(
    mut client: ControlClient<Channel>,
    request: SolveRequest,
    making: Making<'_>,
    step: &str,
    events: &Events,
) -> Result<Solved, Error> {
    let mut progress = Progress::of(step, events);
    let mut status_client = client.clone();
    let reference = request.r#ref.clone();
    let solving = async { client.solve(request).await.map_err(|status| said(&status)) };
    let watching = async {
        let mut answers = status_client.status(StatusRequest { r#ref: reference }).await?.into_inner();
        while let Some(answer) = answers.message().await? {
            progress.show(answer);
        }
        Ok::<_, Status>(())
    };
    // without its progress a build is still a build; of one that never began, it may have no end
    let solved = match future::select(pin!(made(solving, making)), pin!(watching)).await {
        Either::Left((solved, watching)) => {
            let _ = timeout(LAST_WORDS, watching).await;
            solved
        }
        Either::Right((_, making)) => making.await,
    };
    let (answer, made, replica) = solved?;
    Ok(Solved {
        answer: answer.into_inner().exporter_response,
        cached: progress.cache.all_hit(),
        made,
        replica,
    })
}

/// Tells of vertexes that the builder has left to us as of its own. Gives whether all came from a cache.
pub(super) fn tell_left(left: Vec<(String, bool)>, step: &str, events: &Events) -> bool {
    let vertexes = left.into_iter().map(|(name, cached)| Vertex {
        digest: name.clone(),
        name,
        cached,
        started: Some(<_>::default()),
        completed: Some(<_>::default()),
        ..Vertex::default()
    });
    let mut progress = Progress::of(step, events);
    progress.show(StatusResponse {
        vertexes: vertexes.collect(),
        ..StatusResponse::default()
    });
    progress.cache.all_hit()
}

/// `solving` ends when it was told to, or because it cannot go on.
async fn made<A>(
    solving: impl Future<Output = Result<A, Error>>,
    making: Making<'_>,
) -> Result<(A, FrontendResult, Option<Arc<Replica>>), Error> {
    let Making {
        mut bridge,
        question,
        look,
        settling,
    } = making;
    let mut solving = pin!(solving);
    let making = async {
        let mut made = bridge.make(question, look).await?;
        let replica = settled(&mut made, &bridge, settling).await;
        if let Some(Look::After { folder }) = look {
            made.has_folder = Some(match replica.as_ref().and_then(|replica| replica.has(folder)) {
                Some(has) => has,
                None => bridge.has_folder(&made, folder).await?,
            });
        }
        Ok((made, replica))
    };
    let made = tokio::select! {
        ended = &mut solving => return Err(ended.err().unwrap_or_else(|| Error::msg("the builder ended the build"))),
        made = making => made,
    };
    match made {
        Ok((made, replica)) => {
            let (exported, solved) = tokio::join!(bridge.export(&made), solving);
            let answer = solved?;
            exported?;
            Ok((answer, made, replica))
        }
        Err(error) => {
            // the last words of what failed come before the end
            let _ = timeout(LAST_WORDS, future::join(bridge.give_up(&error), solving)).await;
            Err(error)
        }
    }
}

/// Settles what the exporter would leave to chance.
async fn settled(made: &mut FrontendResult, bridge: &Bridge, settling: Settling<'_>) -> Option<Arc<Replica>> {
    let Settling {
        folders,
        siblings,
        again,
        cache,
    } = settling;
    let one = made.one()?;
    let planning = spawn_blocking(move || Some((Plan::of(&one, &folders, &siblings)?, one)));
    let (plan, one) = planning.await.ok()??;
    made.set_config(plan.config()?);
    let (what, ahead) = again?;
    let replica = if what == Compared::Unsure && plan.is_sure {
        made.leave();
        plan.made(cache.as_deref())
    } else {
        let looked_up = plan.looked_up(what, bridge, &one, cache).await;
        looked_up.inspect_err(|error| debug!("it cannot be made again: {error:#}")).ok()?
    };
    let replica = Arc::new(replica);
    ahead(&replica);
    Some(replica)
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
    begun: HashMap<String, Vec<u8>>,
    /// By digest: the vertexes that are parts of the run's time, until they end.
    parts: HashMap<String, Span>,
    cache: Cache,
}

#[derive(PartialEq, Eq)]
enum Told {
    Begin,
    End,
}

impl<'a> Progress<'a> {
    fn of(step: &'a str, events: &'a Events) -> Self {
        Self {
            step,
            events,
            vertexes: HashMap::new(),
            begun: HashMap::new(),
            parts: HashMap::new(),
            cache: Cache::default(),
        }
    }

    /// Begins go before logs and ends after them: one answer may hold the whole of a vertex.
    fn show(&mut self, answer: StatusResponse) {
        for vertex in &answer.vertexes {
            self.begin(vertex);
        }
        for log in answer.logs {
            // a message may end within a character
            let mut text = self.begun.remove(&log.vertex).unwrap_or_default();
            text.extend(&log.msg);
            let rest = text.split_off(text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1));
            for line in String::from_utf8_lossy(&text).lines() {
                self.say(Speaker::Command, line);
            }
            self.begun.insert(log.vertex, rest);
        }
        for vertex in answer.vertexes.iter().filter(|vertex| vertex.completed.is_some()) {
            let rest = self.begun.remove(&vertex.digest).unwrap_or_default();
            self.say(Speaker::Command, &String::from_utf8_lossy(&rest));
            self.end(vertex);
        }
    }

    fn begin(&mut self, vertex: &Vertex) {
        let begun = vertex.started.is_some() || vertex.completed.is_some();
        if let Some(part) = part(&vertex.name).filter(|_| begun) {
            // it begins again where its result is wanted after it was looked for in the cache
            let span = || timing::part_of(self.step, part);
            self.parts.entry(vertex.digest.clone()).or_insert_with(span);
        }
        if !begun || self.vertexes.contains_key(&vertex.digest) {
            return;
        }
        self.vertexes.insert(vertex.digest.clone(), Told::Begin);
        if verdict(vertex).is_none() {
            self.say(Speaker::Builder, &vertex.name);
        }
        if let Some(instruction) = instructions::of_vertex(&vertex.name) {
            let step = self.step.to_owned();
            self.events.send(Event::Instruction { step, instruction });
        }
    }

    fn end(&mut self, vertex: &Vertex) {
        self.parts.remove(&vertex.digest);
        if self.vertexes.insert(vertex.digest.clone(), Told::End) == Some(Told::End) {
            return;
        }
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
