//! What a contender has its shell do.

use std::collections::BTreeMap;

use regent_core::ids::{Epoch, GroupKey, SiteName};
use regent_core::message::{Ask, Entry, Proof, Round, Submission, Tag, Vote};
use regent_core::sign::Envelope;
use regent_core::time::Moment;

/// One request of this contender, in the order in which they were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoundId(pub u64);

/// A request to be signed ([`super::Contender::seal`]) and sent to witnesses at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Which round.
    pub round: RoundId,
    /// What is asked.
    pub ask: Ask,
    /// For which groups.
    pub entries: Vec<Entry>,
    /// For each witness the tag of its last answer.
    pub tags: BTreeMap<SiteName, Tag>,
    /// The last certificate of each group (L2).
    pub proofs: Vec<Proof>,
    /// Plans that one of the witnesses may lack.
    pub plans: Vec<Envelope>,
    /// The witnesses that are asked.
    pub to: Vec<SiteName>,
}

impl Outgoing {
    /// What is sent, once the request is signed.
    pub(super) fn submission(&self, request: Envelope) -> Submission {
        Submission { request, entries: self.entries.clone(), proofs: self.proofs.clone(), plans: self.plans.clone() }
    }
}

/// A round that is a certificate, for the hub to send to nodes. The hub has the nonces'
/// tree of the round that it signed, and makes the paths of entries from `entries`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certified {
    /// Which round.
    pub round_id: RoundId,
    /// The request and its grants so far.
    pub round: Round,
    /// All entries of the request, in their order.
    pub entries: Vec<Entry>,
    /// Those for which this is news: a quorum has granted them now.
    pub granted: Vec<Entry>,
}

/// A fact about the lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContenderEvent {
    /// A quorum's certificate for an epoch that this replica had none for.
    Certificate {
        /// Of which group.
        group: GroupKey,
        /// Its epoch.
        epoch: Epoch,
        /// When the request was made that it answers.
        asked: Moment,
        /// When the q-th grant arrived.
        at: Moment,
    },
    /// A quorum of witnesses said that they would grant.
    EligibleLearnt {
        /// Of which group.
        group: GroupKey,
        /// When the q-th said so.
        at: Moment,
    },
    /// This site holds the group no more.
    Lost {
        /// Of which group.
        group: GroupKey,
        /// Which epoch it held.
        epoch: Epoch,
        /// When.
        at: Moment,
        /// The highest vote that a witness named.
        higher: Option<Vote>,
    },
    /// The certificate ran out; the holder goes on asking.
    RanOut {
        /// Of which group.
        group: GroupKey,
        /// Its epoch.
        epoch: Epoch,
        /// When.
        at: Moment,
    },
    /// A quorum of witnesses has retired the epoch (L12).
    Retired {
        /// Of which group.
        group: GroupKey,
        /// The epoch that ended.
        epoch: Epoch,
        /// When the q-th acknowledged.
        at: Moment,
    },
}

/// What to do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Sign and send.
    Send(Outgoing),
    /// Show to the nodes.
    Certified(Certified),
    /// Report a fact.
    Event(ContenderEvent),
    /// Close the group's list of nodes by compare-and-swap, then report
    /// [`super::ReleaseEvent::ListClosed`] with what is on it (L12).
    CloseNodeList {
        /// Of which group.
        group: GroupKey,
        /// The epoch that is to end.
        epoch: Epoch,
    },
    /// Have every listed node stop the group for good; report each with
    /// [`super::ReleaseEvent::NodeStopped`] (L12).
    StopNodes {
        /// Of which group.
        group: GroupKey,
        /// The retired epoch.
        epoch: Epoch,
    },
    /// The release is done: the successor may acquire. The list of nodes opens again, and
    /// notes this end ([`crate::nodes::NodeList::end`]): the other replica may still collect a
    /// certificate of it, and a node that was never on the list hasn't journaled that it is
    /// retired.
    Released {
        /// Of which group.
        group: GroupKey,
        /// The epoch that ended.
        epoch: Epoch,
        /// Who is to acquire.
        successor: SiteName,
    },
}
