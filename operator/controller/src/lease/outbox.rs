//! What waits to be sent to one witness. A slow or dead witness delays no other, and
//! a newer round replaces one that has not been sent.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use regent_core::ids::{GroupKey, SiteName};
use regent_core::message::{Ask, Line, Submission};
use regent_core::sign::Envelope;
use regent_lease::contender::Outgoing;
use regent_proto::v1;
use regent_shell::clock;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::LeaseShell;
use crate::federation::client::Peer;
use crate::witness::WitnessService;

/// The least deadline of a call: a hand-shake on a busy machine takes its time.
const LEAST: Duration = Duration::from_millis(300);

/// Messages that replace each other. One of each is under way at a time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lane {
    /// Renewals and acquisitions.
    Grant,
    /// Queries, by how they stand in line.
    Query(Line),
    /// Bringing one witness nearer to our term (L4.5).
    Climb,
    /// Retirement or release of a group.
    Ending(GroupKey),
}

impl Lane {
    pub(super) fn of(outgoing: &Outgoing, witnesses: usize) -> Self {
        match &outgoing.ask {
            Ask::Retire { group, .. } | Ask::Release { group, .. } => Self::Ending(group.clone()),
            Ask::Grant | Ask::Query { .. } if outgoing.to.len() < witnesses => Self::Climb,
            Ask::Grant => Self::Grant,
            Ask::Query { line } => Self::Query(*line),
        }
    }
}

enum Way {
    Peer(Arc<Peer>),
    Own(Arc<WitnessService>),
}

/// What waits: one slot a lane.
struct Waiting<T> {
    slots: BTreeMap<Lane, T>,
    under_way: Vec<Lane>,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self { slots: BTreeMap::new(), under_way: Vec::new() }
    }
}

impl<T> Waiting<T> {
    /// A newer message replaces an unsent one.
    fn put(&mut self, lane: Lane, message: T) {
        self.slots.insert(lane, message);
    }

    /// What may be sent now: of each lane one at a time.
    fn take(&mut self) -> Vec<(Lane, T)> {
        let Self { slots, under_way } = self;
        let free: Vec<Lane> = slots.keys().filter(|lane| !under_way.contains(lane)).cloned().collect();
        let taken = free.into_iter().filter_map(|lane| slots.remove(&lane).map(|message| (lane, message)));
        taken.inspect(|(lane, _)| under_way.push(lane.clone())).collect()
    }

    /// It was answered, or will not be.
    fn done(&mut self, lane: &Lane) {
        self.under_way.retain(|l| l != lane);
    }
}

/// One witness's outbox.
pub(super) struct Outbox {
    way: Way,
    waiting: Mutex<Waiting<Arc<Submission>>>,
    filled: Notify,
}

impl Outbox {
    pub(super) fn to_peer(peer: Arc<Peer>) -> Self {
        Self::new(Way::Peer(peer))
    }

    pub(super) fn to_own(witness: Arc<WitnessService>) -> Self {
        Self::new(Way::Own(witness))
    }

    fn new(way: Way) -> Self {
        Self { way, waiting: Mutex::default(), filled: Notify::new() }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting<Arc<Submission>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a message in its lane's slot.
    pub(super) fn put(&self, lane: Lane, submission: Arc<Submission>) {
        self.waiting().put(lane, submission);
        self.filled.notify_one();
    }

    /// Sends what is put, until cancelled.
    pub(super) fn spawn(self: Arc<Self>, site: SiteName, shell: Arc<LeaseShell>, stop: CancellationToken) {
        let deadline = (shell.context.charter.renewal_period() * 2).max(LEAST);
        tokio::spawn(async move {
            loop {
                let ready = self.waiting().take();
                for (lane, submission) in ready {
                    let (this, shell, site) = (self.clone(), shell.clone(), site.clone());
                    tokio::spawn(async move {
                        match this.call(&submission, deadline).await {
                            Ok(answer) => shell.answered(&site, &answer),
                            Err(e) => tracing::debug!(witness = %site, "{e}"),
                        }
                        this.waiting().done(&lane);
                        this.filled.notify_one();
                    });
                }
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = self.filled.notified() => {}
                }
            }
        });
    }

    async fn call(&self, submission: &Arc<Submission>, deadline: Duration) -> Result<Envelope, String> {
        match &self.way {
            Way::Peer(peer) => {
                let message: v1::Submission = submission.as_ref().clone().into();
                let answer = peer.call(deadline, |mut client| async move { client.lease(message).await }).await;
                answer.map(Into::into).map_err(|e| e.to_string())
            }
            Way::Own(witness) => {
                let answer = witness.submit(submission.as_ref().clone(), clock::now(), false);
                match tokio::time::timeout(deadline, answer).await {
                    Ok(answer) => answer.map_err(|status| status.message().to_owned()),
                    Err(_) => Err(format!("no answer within {} ms", deadline.as_millis())),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_round_replaces_an_unsent_one_of_its_lane_only() {
        let mut waiting = Waiting::default();
        waiting.put(Lane::Grant, 1);
        waiting.put(Lane::Query(Line::Ready), 2);
        waiting.put(Lane::Grant, 3);
        assert_eq!(waiting.take(), [(Lane::Grant, 3), (Lane::Query(Line::Ready), 2)]);
    }

    #[test]
    fn a_witness_that_does_not_answer_holds_up_no_other_lane_and_keeps_the_newest() {
        let group = Lane::Ending("home/shop".parse().unwrap());
        let mut waiting = Waiting::default();
        waiting.put(Lane::Grant, 1);
        assert_eq!(waiting.take(), [(Lane::Grant, 1)]);
        waiting.put(Lane::Grant, 2);
        waiting.put(group.clone(), 3);
        assert_eq!(waiting.take(), [(group, 3)]);
        waiting.put(Lane::Grant, 4);
        assert_eq!(waiting.take(), []);
        waiting.done(&Lane::Grant);
        assert_eq!(waiting.take(), [(Lane::Grant, 4)]);
    }
}
