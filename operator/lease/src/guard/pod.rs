//! One pod at its node: a state machine of four states and four events.

use serde::{Deserialize, Serialize};

use regent_core::ids::{Epoch, GroupKey};
use regent_core::time::Moment;

/// A pod by its UID (Kubernetes makes it and never uses it again).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PodUid(pub String);

/// A pod that carries the gate's volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// Its UID.
    pub uid: PodUid,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The group that its volume names.
    pub group: GroupKey,
}

/// Where a pod stands between its gate and its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PodState {
    /// Nothing of it has passed the gate since its processes last died: nothing to fence.
    Gated,
    /// It may be executing.
    Running {
        /// Under this epoch.
        epoch: Epoch,
    },
    /// It stands still, or is being brought to.
    Frozen {
        /// It ran under this epoch, and is thawed under no other (L13).
        epoch: Epoch,
        /// When the lease ended or will have: `thawLimit` counts from here.
        since: Moment,
    },
    /// Its processes are being killed; it is not yet certain that all are dead.
    Killing,
}

/// What happens to a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodEvent {
    /// Its group may run here under this epoch, and if it is gated its gate asks.
    Permit(Epoch),
    /// The lease ends at this moment.
    LeaseEnds(Moment),
    /// It must never go on: retired, superseded, paused too long, or not to be frozen.
    Stop,
    /// All its processes are dead.
    Dead,
}

/// What must be done to the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodAction {
    /// Nothing.
    Nothing,
    /// Write the epoch, then open the gate.
    Open(Epoch),
    /// Write the epoch; it runs on.
    WriteEpoch(Epoch),
    /// Freeze its cgroup.
    Freeze,
    /// Thaw its cgroup.
    Thaw,
    /// Kill its cgroup.
    Kill,
}

/// A report that contradicts what the guard knows of the pod.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("pod is {state:?}, where {event:?} can't happen; the report is late or of another pod and changes nothing")]
pub struct IllegalPodEvent {
    /// The pod's state.
    pub state: PodState,
    /// What was reported.
    pub event: PodEvent,
}

impl PodState {
    /// The next state and what to do.
    pub fn next(self, event: PodEvent) -> Result<(Self, PodAction), IllegalPodEvent> {
        use PodAction as Do;
        use PodEvent::{Dead, LeaseEnds, Permit, Stop};
        use PodState::{Frozen, Gated, Killing, Running};
        Ok(match (self, event) {
            (Gated, Permit(epoch)) => (Running { epoch }, Do::Open(epoch)),
            (Gated, LeaseEnds(_) | Stop) => (Gated, Do::Nothing),
            (Running { epoch }, Permit(new)) if new == epoch => (self, Do::Nothing),
            // Its lease never ended in between, so no other site can have run (L10).
            (Running { .. }, Permit(epoch)) => (Running { epoch }, Do::WriteEpoch(epoch)),
            (Running { epoch }, LeaseEnds(since)) => (Frozen { epoch, since }, Do::Freeze),
            (Running { .. } | Frozen { .. }, Stop) => (Killing, Do::Kill),
            (Frozen { epoch, .. }, Permit(new)) if new == epoch => (Running { epoch }, Do::Thaw),
            // Another site may have run in between: its memory is of the past (L13).
            (Frozen { .. }, Permit(_)) => (Killing, Do::Kill),
            (Frozen { .. }, LeaseEnds(_)) => (self, Do::Nothing),
            (Killing, Permit(_) | LeaseEnds(_) | Stop) => (Killing, Do::Nothing),
            (Killing, Dead) => (Gated, Do::Nothing),
            (Gated | Running { .. } | Frozen { .. }, Dead) => {
                return Err(IllegalPodEvent { state: self, event });
            }
        })
    }

    /// Whether anything of the pod has passed its gate.
    pub fn has_run(self) -> bool {
        self != Self::Gated
    }

    /// The epoch under which it runs or ran.
    pub fn epoch(self) -> Option<Epoch> {
        match self {
            Self::Running { epoch } | Self::Frozen { epoch, .. } => Some(epoch),
            Self::Gated | Self::Killing => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_of_state_and_event_is_settled() {
        use PodAction as Do;
        use PodEvent::{Dead, LeaseEnds, Permit, Stop};
        use PodState::{Frozen, Gated, Killing, Running};
        let e = Epoch { term: 1, site: 1 };
        let other = Epoch { term: 2, site: 1 };
        let t = Moment { boot_ns: 5, raw_ns: 5 };
        let early = Moment { boot_ns: 3, raw_ns: 3 };
        let (run, frozen) = (Running { epoch: e }, Frozen { epoch: e, since: early });
        let table = [
            (Gated, Permit(e), Some((run, Do::Open(e)))),
            (Gated, LeaseEnds(t), Some((Gated, Do::Nothing))),
            (Gated, Stop, Some((Gated, Do::Nothing))),
            (Gated, Dead, None),
            (run, Permit(e), Some((run, Do::Nothing))),
            (run, Permit(other), Some((Running { epoch: other }, Do::WriteEpoch(other)))),
            (run, LeaseEnds(t), Some((Frozen { epoch: e, since: t }, Do::Freeze))),
            (run, Stop, Some((Killing, Do::Kill))),
            (run, Dead, None),
            (frozen, Permit(e), Some((run, Do::Thaw))),
            (frozen, Permit(other), Some((Killing, Do::Kill))),
            (frozen, LeaseEnds(t), Some((frozen, Do::Nothing))),
            (frozen, Stop, Some((Killing, Do::Kill))),
            (frozen, Dead, None),
            (Killing, Permit(e), Some((Killing, Do::Nothing))),
            (Killing, LeaseEnds(t), Some((Killing, Do::Nothing))),
            (Killing, Stop, Some((Killing, Do::Nothing))),
            (Killing, Dead, Some((Gated, Do::Nothing))),
        ];
        for (state, event, want) in table {
            assert_eq!(state.next(event).ok(), want, "{state:?} on {event:?}");
        }
        for state in [Gated, run, frozen, Killing] {
            for event in [Permit(e), LeaseEnds(t), Stop, Dead] {
                assert_eq!(table.iter().filter(|(s, v, _)| *s == state && *v == event).count(), 1);
            }
        }
    }
}
