//! Runs the steps of a plan: each after what it needs, at most so many at once, the longest way first.

use std::future::Future;

use anyhow::Error;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio_util::sync::CancellationToken;

/// How a step ended.
#[derive(Debug)]
pub enum Outcome<T> {
    Done(T),
    Failed(Error),
    /// Not begun, because the step with this index failed.
    Blocked(usize),
    /// Stopped, or not begun, because the run was.
    Stopped,
}

impl<T> Outcome<T> {
    pub fn done(&self) -> Option<&T> {
        match self {
            Self::Done(value) => Some(value),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// Everything that can still succeed is carried through.
    KeepGoing,
    Stop,
}

#[derive(Clone, Debug)]
pub struct Limits {
    /// How many steps run at once, of those that take an effort.
    pub jobs: usize,
    pub on_failure: OnFailure,
    pub cancel: CancellationToken,
}

/// What is to be done of a step.
#[derive(Clone, Debug)]
pub struct Task {
    /// The steps that it needs, all of them earlier ones.
    pub needs: Vec<usize>,
    /// In a unit that all have. What takes none begins at once, however many run.
    pub effort: u64,
}

/// Runs one `work(step)` for each task. It finds what came out of those that it needs in its second argument.
pub async fn run<T, W, F>(tasks: &[Task], limits: &Limits, work: W) -> Vec<Outcome<T>>
where
    T: Clone,
    W: Fn(usize, Vec<T>) -> F,
    F: Future<Output = Result<T, Error>>,
{
    let cancel = limits.cancel.child_token();
    let lengths = lengths(tasks);
    let mut outcomes: Vec<Option<Outcome<T>>> = tasks.iter().map(|_| None).collect();
    let mut begun = vec![false; tasks.len()];
    let mut running = FuturesUnordered::new();
    loop {
        block(tasks, &mut outcomes, &begun);
        while !cancel.is_cancelled() {
            let is_counted = |step: usize| tasks[step].effort > 0;
            let counted = (0..tasks.len()).filter(|step| begun[*step] && outcomes[*step].is_none() && is_counted(*step));
            let is_full = counted.count() >= limits.jobs;
            let ready = |step: &usize| {
                let is_due = !begun[*step] && outcomes[*step].is_none() && !(is_full && is_counted(*step));
                is_due && results(&tasks[*step], &outcomes).is_some()
            };
            let Some(step) = (0..tasks.len())
                .filter(ready)
                .max_by_key(|step| (lengths[*step], usize::MAX - step))
            else {
                break;
            };
            begun[step] = true;
            let given = results(&tasks[step], &outcomes).expect("a ready step has what it needs");
            let (doing, cancel) = (work(step, given), &cancel);
            running.push(async move {
                tokio::select! {
                    biased;
                    () = cancel.cancelled() => (step, Outcome::Stopped),
                    result = doing => (step, result.map_or_else(Outcome::Failed, Outcome::Done)),
                }
            });
        }
        let Some((step, outcome)) = running.next().await else { break };
        if matches!(outcome, Outcome::Failed(_)) && limits.on_failure == OnFailure::Stop {
            cancel.cancel();
        }
        outcomes[step] = Some(outcome);
    }
    outcomes.into_iter().map(|outcome| outcome.unwrap_or(Outcome::Stopped)).collect()
}

fn results<T: Clone>(task: &Task, outcomes: &[Option<Outcome<T>>]) -> Option<Vec<T>> {
    task.needs
        .iter()
        .map(|need| outcomes[*need].as_ref().and_then(Outcome::done).cloned())
        .collect()
}

/// Marks the steps that can no longer begin. Steps are in order, so one pass reaches what stands on a blocked one.
fn block<T>(tasks: &[Task], outcomes: &mut [Option<Outcome<T>>], begun: &[bool]) {
    for (step, task) in tasks.iter().enumerate() {
        if outcomes[step].is_some() || begun[step] {
            continue;
        }
        let cause = task.needs.iter().find_map(|need| match &outcomes[*need] {
            Some(Outcome::Failed(_)) => Some(*need),
            Some(Outcome::Blocked(cause)) => Some(*cause),
            _ => None,
        });
        if let Some(cause) = cause {
            outcomes[step] = Some(Outcome::Blocked(cause));
        }
    }
}

/// The effort of the longest way that begins with each step.
fn lengths(tasks: &[Task]) -> Vec<u64> {
    let mut lengths: Vec<u64> = tasks.iter().map(|task| task.effort).collect();
    for (step, task) in tasks.iter().enumerate().rev() {
        for need in &task.needs {
            lengths[*need] = lengths[*need].max(tasks[*need].effort + lengths[step]);
        }
    }
    lengths
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;
    use std::cell::{Cell, RefCell};

    fn limits(jobs: usize, on_failure: OnFailure) -> Limits {
        Limits {
            jobs,
            on_failure,
            cancel: CancellationToken::new(),
        }
    }

    fn tasks<const N: usize>(needs: [Vec<usize>; N]) -> [Task; N] {
        needs.map(|needs| Task { needs, effort: 1 })
    }

    fn shape(outcomes: &[Outcome<usize>]) -> String {
        outcomes
            .iter()
            .map(|outcome| match outcome {
                Outcome::Done(_) => "d".to_owned(),
                Outcome::Failed(_) => "f".to_owned(),
                Outcome::Blocked(cause) => cause.to_string(),
                Outcome::Stopped => "s".to_owned(),
            })
            .collect()
    }

    #[tokio::test]
    async fn a_step_gets_what_it_needs_and_the_longest_way_goes_first() {
        let mut tasks = tasks([vec![], vec![], vec![1], vec![2, 1]]);
        let order = RefCell::new(Vec::new());
        let work = |step, given: Vec<usize>| {
            order.borrow_mut().push(step);
            async move { Ok(step * 10 + given.iter().sum::<usize>()) }
        };
        let outcomes = run(&tasks, &limits(1, OnFailure::KeepGoing), work).await;
        assert_eq!(order.take(), [1, 2, 0, 3]);
        assert_eq!(outcomes[3].done(), Some(&70));
        tasks[0].effort = 10;
        run(&tasks, &limits(1, OnFailure::KeepGoing), work).await;
        assert_eq!(order.take(), [0, 1, 2, 3]);
    }

    #[tokio::test]
    async fn what_stands_on_a_failure_is_blocked_and_the_rest_goes_on() {
        let tasks = tasks([vec![], vec![0], vec![1], vec![]]);
        let fail = |step, _| async move { if step == 0 { Err(anyhow!("no")) } else { Ok(step) } };
        assert_eq!(shape(&run(&tasks, &limits(2, OnFailure::KeepGoing), fail).await), "f00d");
        assert_eq!(shape(&run(&tasks, &limits(1, OnFailure::Stop), fail).await), "f00s");
    }

    #[tokio::test]
    async fn no_more_run_at_once_than_allowed_of_those_that_take_an_effort() {
        assert_eq!(most_at_once(|_| 1).await, 3);
        assert_eq!(most_at_once(|step| u64::from(step >= 10)).await, 13);
    }

    async fn most_at_once(effort: impl Fn(usize) -> u64) -> usize {
        let (running, most) = (Cell::new(0), Cell::new(0));
        let tasks = (0..20).map(|step| Task {
            needs: vec![],
            effort: effort(step),
        });
        run(
            &tasks.collect::<Vec<_>>(),
            &limits(3, OnFailure::KeepGoing),
            |step, _: Vec<usize>| {
                let (running, most) = (&running, &most);
                async move {
                    running.set(running.get() + 1);
                    most.set(most.get().max(running.get()));
                    for _ in 0..5 {
                        tokio::task::yield_now().await;
                    }
                    running.set(running.get() - 1);
                    Ok(step)
                }
            },
        )
        .await;
        most.get()
    }

    #[tokio::test]
    async fn a_cancelled_run_stops_what_runs_and_begins_nothing() {
        let limits = limits(2, OnFailure::KeepGoing);
        let cancel = limits.cancel.clone();
        let outcomes = run(&tasks([vec![], vec![0]]), &limits, |_, _: Vec<usize>| {
            cancel.cancel();
            std::future::pending()
        })
        .await;
        assert_eq!(shape(&outcomes), "ss");
    }
}
