//! A planned end of an epoch (L12), in an order that no step may leave.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use regent_core::ids::{Epoch, NodeName, SiteName};
use regent_core::time::Moment;

/// Where a release stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all_fields = "camelCase")]
pub enum ReleasePhase {
    /// The list of nodes is being closed. Until it is, everything can still be called off.
    ClosingList,
    /// The epoch is being retired at the witnesses: there is no way back.
    Retiring {
        /// Nodes that may run the group.
        nodes: BTreeSet<NodeName>,
        /// Witnesses that acknowledged.
        acknowledged: BTreeSet<SiteName>,
    },
    /// A quorum has retired it: the nodes stop, or their leases run out.
    Stopping {
        /// Nodes that have not yet confirmed.
        waiting: BTreeSet<NodeName>,
        /// When everything has stopped even if none confirms: Dmax after the q-th acknowledgement.
        run_out: Moment,
    },
    /// Nothing runs any more: witnesses are told to drop their promises.
    Releasing {
        /// Witnesses that have.
        dropped: BTreeSet<SiteName>,
    },
    /// A quorum has dropped its promises.
    Released,
}

/// Where a release stands, in a word: [`ReleasePhase`] without what it waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ReleaseStage {
    /// The list of nodes is being closed.
    ClosingList,
    /// The list is closed, and the epoch is being retired.
    Retiring,
    /// A quorum has retired it, and the nodes stop.
    Stopping,
    /// Nothing runs any more, and the promises are being dropped.
    Releasing,
    /// A quorum has dropped them.
    Released,
}

/// What happens to a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReleaseEvent {
    /// The list of nodes is closed, and these are on it.
    ListClosed(BTreeSet<NodeName>),
    /// A witness acknowledged the retirement. The q-th moves on, with this Dmax end.
    Retired {
        /// Which witness.
        witness: SiteName,
        /// Dmax from now.
        run_out: Moment,
        /// How many are needed.
        quorum: usize,
    },
    /// A node has stopped the group for good and journaled the epoch that it was told.
    NodeStopped {
        /// Which node.
        node: NodeName,
        /// The retired epoch in its journal.
        epoch: Epoch,
    },
    /// Time passed.
    Tick(Moment),
    /// A witness dropped its promise.
    Dropped {
        /// Which witness.
        witness: SiteName,
        /// How many are needed.
        quorum: usize,
    },
    /// D has passed since the release was first sent: no promise is left to drop.
    PromisesOver,
    /// Somebody calls it off.
    CallOff,
}

/// What a step of a release leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReleaseStep {
    /// Still the same phase, perhaps with one less to wait for.
    Stay,
    /// Send the retirement.
    Retire,
    /// The q-th acknowledged: stop the nodes.
    Stop,
    /// All stopped: send the release.
    Release,
    /// Done.
    Done,
    /// Called off: the holder goes on.
    CalledOff,
}

/// Why a release was refused or can't take a step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// Not a step that follows.
    #[error("release of epoch {epoch} is {stage:?}, where {event} can't follow")]
    Illegal {
        /// The epoch.
        epoch: Epoch,
        /// Where it stands.
        stage: ReleaseStage,
        /// The event's name.
        event: &'static str,
    },
    /// The group is not known here.
    #[error("group {0} has no plan at this site; release it where its plan is known")]
    UnknownGroup(regent_core::ids::GroupKey),
    /// No release is under way.
    #[error("no release of group {0} is under way; begin one first")]
    NotReleasing(regent_core::ids::GroupKey),
    /// The epoch is another site's.
    #[error("epoch {0} is not this site's: only its own site can release it")]
    NotOurs(Epoch),
    /// The successor is not in the plan.
    #[error("site {0} is neither home nor a standby of the plan; name one that is")]
    NotInPlan(SiteName),
    /// Brakes would keep the group from the successor.
    #[error(
        "group {group} has changed hands too often within the hour: in {wait_s} s its witnesses grant it to another site again; it stays where it is until then"
    )]
    Braked {
        /// Which group.
        group: regent_core::ids::GroupKey,
        /// How long still, in seconds.
        wait_s: u64,
    },
    /// A release of another epoch or to another site is under way.
    #[error("epoch {0} is already being released, to {1}; wait until that is done")]
    UnderWay(Epoch, SiteName),
}

/// A release that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// The epoch that ends.
    pub epoch: Epoch,
    /// Who is to acquire next.
    pub successor: SiteName,
    /// How far it is.
    pub phase: ReleasePhase,
}

impl ReleasePhase {
    /// The same in a word.
    pub fn stage(&self) -> ReleaseStage {
        match self {
            Self::ClosingList => ReleaseStage::ClosingList,
            Self::Retiring { .. } => ReleaseStage::Retiring,
            Self::Stopping { .. } => ReleaseStage::Stopping,
            Self::Releasing { .. } => ReleaseStage::Releasing,
            Self::Released => ReleaseStage::Released,
        }
    }
}

impl ReleaseEvent {
    fn name(&self) -> &'static str {
        match self {
            Self::ListClosed(_) => "ListClosed",
            Self::Retired { .. } => "Retired",
            Self::NodeStopped { .. } => "NodeStopped",
            Self::Tick(_) => "Tick",
            Self::Dropped { .. } => "Dropped",
            Self::PromisesOver => "PromisesOver",
            Self::CallOff => "CallOff",
        }
    }
}

impl Release {
    /// Begins with the list of nodes.
    pub fn new(epoch: Epoch, successor: SiteName) -> Self {
        Self { epoch, successor, phase: ReleasePhase::ClosingList }
    }

    /// Whether the epoch must not be asked for again.
    pub fn is_final(&self) -> bool {
        self.phase != ReleasePhase::ClosingList
    }

    /// One step.
    pub fn on(&mut self, event: ReleaseEvent) -> Result<ReleaseStep, ReleaseError> {
        use ReleaseEvent as E;
        use ReleasePhase as P;
        use ReleaseStep as S;
        let illegal = ReleaseError::Illegal { epoch: self.epoch, stage: self.phase.stage(), event: event.name() };
        let (next, step) = match (&mut self.phase, event) {
            (P::ClosingList, E::ListClosed(nodes)) => (P::Retiring { nodes, acknowledged: BTreeSet::new() }, S::Retire),
            (P::ClosingList, E::CallOff) => (P::ClosingList, S::CalledOff),
            (P::Retiring { nodes, acknowledged }, E::Retired { witness, run_out, quorum }) => {
                acknowledged.insert(witness);
                if acknowledged.len() < quorum {
                    return Ok(S::Stay);
                }
                (P::Stopping { waiting: std::mem::take(nodes), run_out }, S::Stop)
            }
            (P::Stopping { waiting, .. }, E::NodeStopped { node, epoch }) => {
                // The late word of an earlier release says nothing about this epoch.
                if epoch >= self.epoch {
                    waiting.remove(&node);
                }
                if !waiting.is_empty() {
                    return Ok(S::Stay);
                }
                (P::Releasing { dropped: BTreeSet::new() }, S::Release)
            }
            (P::Stopping { waiting, run_out }, E::Tick(now)) => {
                if !waiting.is_empty() && !run_out.passed_for_waiting(now) {
                    return Ok(S::Stay);
                }
                (P::Releasing { dropped: BTreeSet::new() }, S::Release)
            }
            (P::Releasing { dropped }, E::Dropped { witness, quorum }) => {
                dropped.insert(witness);
                if dropped.len() < quorum {
                    return Ok(S::Stay);
                }
                (P::Released, S::Done)
            }
            (P::Releasing { .. }, E::PromisesOver) => (P::Released, S::Done),
            // Late or repeated reports of what is behind us.
            (P::Stopping { .. } | P::Releasing { .. } | P::Released, E::ListClosed(_) | E::Retired { .. })
            | (P::Retiring { .. }, E::ListClosed(_))
            | (P::Releasing { .. } | P::Released, E::NodeStopped { .. })
            | (P::Released, E::Dropped { .. } | E::PromisesOver)
            | (P::ClosingList | P::Retiring { .. } | P::Releasing { .. } | P::Released, E::Tick(_)) => {
                return Ok(S::Stay);
            }
            // A node's word before the retirement is of another epoch; a drop before the
            // stop would give the group away while it runs; what is retired stays so.
            (P::ClosingList | P::Retiring { .. }, E::NodeStopped { .. })
            | (P::ClosingList, E::Retired { .. })
            | (P::ClosingList | P::Retiring { .. } | P::Stopping { .. }, E::Dropped { .. } | E::PromisesOver)
            | (P::Retiring { .. } | P::Stopping { .. } | P::Releasing { .. } | P::Released, E::CallOff) => {
                return Err(illegal);
            }
        };
        self.phase = next;
        Ok(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(s: &str) -> SiteName {
        s.parse().unwrap()
    }
    fn at(ns: u64) -> Moment {
        Moment { boot_ns: ns, raw_ns: ns }
    }
    fn nodes(n: &[&str]) -> BTreeSet<NodeName> {
        n.iter().map(|n| NodeName((*n).into())).collect()
    }
    fn stopped(node: &str) -> ReleaseEvent {
        ReleaseEvent::NodeStopped { node: NodeName(node.into()), epoch: Epoch { term: 3, site: 1 } }
    }
    fn in_phase(phase: ReleasePhase) -> Release {
        Release { epoch: Epoch { term: 3, site: 1 }, successor: site("fr"), phase }
    }

    #[test]
    fn every_pair_of_phase_and_event_is_settled() {
        use ReleaseStep as S;
        let phases = [
            ReleasePhase::ClosingList,
            ReleasePhase::Retiring { nodes: nodes(&["a"]), acknowledged: BTreeSet::new() },
            ReleasePhase::Stopping { waiting: nodes(&["a"]), run_out: at(100) },
            ReleasePhase::Releasing { dropped: BTreeSet::new() },
            ReleasePhase::Released,
        ];
        let events = [
            ReleaseEvent::ListClosed(nodes(&["a"])),
            ReleaseEvent::Retired { witness: site("w"), run_out: at(100), quorum: 1 },
            stopped("a"),
            ReleaseEvent::Tick(at(100)),
            ReleaseEvent::Dropped { witness: site("w"), quorum: 1 },
            ReleaseEvent::PromisesOver,
            ReleaseEvent::CallOff,
        ];
        use ReleaseStage::{ClosingList, Released, Releasing, Retiring, Stopping};
        let stay = |phase| Some((S::Stay, phase));
        let table: [[Option<(S, ReleaseStage)>; 7]; 5] = [
            [Some((S::Retire, Retiring)), None, None, stay(ClosingList), None, None, Some((S::CalledOff, ClosingList))],
            [stay(Retiring), Some((S::Stop, Stopping)), None, stay(Retiring), None, None, None],
            [
                stay(Stopping),
                stay(Stopping),
                Some((S::Release, Releasing)),
                Some((S::Release, Releasing)),
                None,
                None,
                None,
            ],
            [
                stay(Releasing),
                stay(Releasing),
                stay(Releasing),
                stay(Releasing),
                Some((S::Done, Released)),
                Some((S::Done, Released)),
                None,
            ],
            [stay(Released), stay(Released), stay(Released), stay(Released), stay(Released), stay(Released), None],
        ];
        for (phase, row) in phases.iter().zip(&table) {
            for (event, want) in events.iter().zip(row) {
                let mut release = in_phase(phase.clone());
                let got = release.on(event.clone()).ok().map(|step| (step, release.phase.stage()));
                assert_eq!(&got, want, "{phase:?} on {event:?}");
                if want.is_none() {
                    assert_eq!(&release.phase, phase, "an illegal event changes nothing");
                }
            }
        }
    }

    #[test]
    fn nothing_is_released_before_a_quorum_retired_and_every_node_stopped_or_its_lease_ran_out() {
        let mut release = in_phase(ReleasePhase::ClosingList);
        release.on(ReleaseEvent::ListClosed(nodes(&["a", "b"]))).unwrap();
        let retired = |w: &str| ReleaseEvent::Retired { witness: site(w), run_out: at(50), quorum: 3 };
        assert_eq!(release.on(retired("w1")).unwrap(), ReleaseStep::Stay);
        assert_eq!(release.on(retired("w1")).unwrap(), ReleaseStep::Stay);
        assert_eq!(release.on(retired("w2")).unwrap(), ReleaseStep::Stay);
        assert_eq!(release.on(retired("w3")).unwrap(), ReleaseStep::Stop);
        let earlier = Epoch { term: 2, site: 1 };
        for node in ["a", "b"] {
            let late = ReleaseEvent::NodeStopped { node: NodeName(node.into()), epoch: earlier };
            assert_eq!(release.on(late).unwrap(), ReleaseStep::Stay);
        }
        assert_eq!(release.on(stopped("a")).unwrap(), ReleaseStep::Stay);
        let mut silent = release.clone();
        assert_eq!(silent.on(ReleaseEvent::Tick(at(49))).unwrap(), ReleaseStep::Stay);
        // One clock that runs ahead doesn't end a wait (L1).
        let ahead = Moment { boot_ns: 60, raw_ns: 49 };
        assert_eq!(silent.on(ReleaseEvent::Tick(ahead)).unwrap(), ReleaseStep::Stay);
        assert_eq!(silent.on(ReleaseEvent::Tick(at(50))).unwrap(), ReleaseStep::Release);
        assert_eq!(release.on(stopped("b")).unwrap(), ReleaseStep::Release);
    }
}
