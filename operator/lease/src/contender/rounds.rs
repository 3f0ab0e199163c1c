//! The rounds that are under way, and the answers to them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::group::PlanMark;
use super::output::RoundId;
use regent_core::charter::Charter;
use regent_core::ids::{GroupKey, SiteName};
use regent_core::message::{Ask, Entry, Exception, Grant, MAX_PROOFS, Proof, Round, Tag, Vote, verify_grant};
use regent_core::sign::{Digest, Envelope};
use regent_core::time::Moment;

/// More rounds than this are never under way: at one renewal, one query and a few
/// acquisitions each P, and 2 D = 12 P remembered.
const REMEMBERED: usize = 128;

/// A request that was sent.
#[derive(Debug, Clone)]
pub(super) struct SentRound {
    pub id: RoundId,
    pub ask: Ask,
    pub entries: Vec<Entry>,
    /// Before it was signed: whatever is promised for D lasts at least D from here.
    pub sent: Moment,
    /// It was asked of every witness, so that it can become a certificate.
    pub whole: bool,
    /// The newest plan of each group when this was made: who answers it has seen them.
    pub plans: BTreeMap<GroupKey, PlanMark>,
    request: Option<(Envelope, Digest)>,
    grants: BTreeMap<SiteName, Envelope>,
    yes: BTreeMap<GroupKey, usize>,
}

/// A witness's word on one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    pub entry: Entry,
    /// None: it grants, or would.
    pub exception: Option<Exception>,
    pub vote: Option<Vote>,
    /// For how long a brake would keep the group from any other site.
    pub braked: Option<Duration>,
}

/// What an answer says.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub round: RoundId,
    pub ask: Ask,
    pub sent: Moment,
    pub tag: Tag,
    pub words: Vec<Word>,
    pub plans: BTreeMap<GroupKey, PlanMark>,
    /// The versions of plans that the witness holds, as far as it says.
    pub holds: BTreeMap<GroupKey, u64>,
    /// Its count of starts.
    pub start: u64,
    /// Entries that this grant brought to a quorum.
    pub certified: Vec<Entry>,
    /// Why a retirement or a release was refused, if it was.
    pub refused: Option<Exception>,
}

/// All rounds that an answer may still come to.
#[derive(Debug, Default)]
pub(super) struct Book {
    rounds: VecDeque<SentRound>,
    next: u64,
}

impl Book {
    /// A round that will be sent.
    pub(super) fn open(
        &mut self,
        now: Moment,
        ask: Ask,
        entries: Vec<Entry>,
        whole: bool,
        plans: BTreeMap<GroupKey, PlanMark>,
    ) -> RoundId {
        let id = RoundId(self.next);
        self.next += 1;
        if self.rounds.len() == REMEMBERED {
            self.rounds.pop_front();
        }
        self.rounds.push_back(SentRound {
            id,
            ask,
            entries,
            sent: now,
            whole,
            plans,
            request: None,
            grants: BTreeMap::new(),
            yes: BTreeMap::new(),
        });
        id
    }

    /// The signed request of a round.
    pub(super) fn seal(&mut self, id: RoundId, request: Envelope) {
        if let Some(round) = self.rounds.iter_mut().find(|r| r.id == id) {
            let digest = request.digest();
            round.request = Some((request, digest));
        }
    }

    /// Forgets what is older than `age`.
    pub(super) fn prune(&mut self, now: Moment, age: Duration) {
        while self.rounds.front().is_some_and(|r| r.sent.after(age).passed_for_waiting(now)) {
            self.rounds.pop_front();
        }
    }

    /// Takes an answer of that witness, if it is one to a round that is remembered and
    /// the first of that witness's to it.
    pub(super) fn answer(&mut self, charter: &Charter, witness: &SiteName, answer: &Envelope) -> Option<Answer> {
        let digest = answer.peek::<Grant>().ok()?.request;
        let round = self.rounds.iter_mut().find(|r| r.request.as_ref().is_some_and(|(_, d)| *d == digest))?;
        let grant = verify_grant(charter, answer, &digest)?;
        if &grant.witness != witness || round.grants.contains_key(witness) {
            return None;
        }
        round.grants.insert(witness.clone(), answer.clone());
        let exceptions: BTreeMap<&GroupKey, &Exception> = grant.exceptions.iter().map(|e| (&e.group, e)).collect();
        let quorum = charter.quorum();
        let mut words = Vec::with_capacity(round.entries.len());
        let mut certified = Vec::new();
        for entry in &round.entries {
            let exception = exceptions.get(&entry.group).map(|e| (*e).clone());
            if exception.is_none() && round.ask == Ask::Grant && round.whole {
                let yes = round.yes.entry(entry.group.clone()).or_default();
                *yes += 1;
                if *yes == quorum {
                    certified.push(entry.clone());
                }
            }
            let vote = grant.votes.get(&entry.group).cloned();
            let braked = grant.braked.get(&entry.group).map(|ms| Duration::from_millis(*ms));
            words.push(Word { entry: entry.clone(), exception, vote, braked });
        }
        let refused = match &round.ask {
            Ask::Retire { group, .. } | Ask::Release { group, .. } => exceptions.get(group).map(|e| (*e).clone()),
            Ask::Grant | Ask::Query { .. } => None,
        };
        Some(Answer {
            round: round.id,
            ask: round.ask.clone(),
            sent: round.sent,
            tag: grant.tag,
            holds: grant.plans,
            start: grant.start,
            words,
            plans: round.plans.clone(),
            certified,
            refused,
        })
    }

    /// The round with its grants so far.
    pub(super) fn round(&self, id: RoundId) -> Option<(Round, Vec<Entry>)> {
        let round = self.rounds.iter().find(|r| r.id == id)?;
        let (request, _) = round.request.as_ref()?;
        let grants = round.grants.values().cloned().collect();
        Some((Round { request: request.clone(), grants }, round.entries.clone()))
    }

    /// The certificates to show with the next request (L2): the newest, and where that doesn't
    /// prove all of `groups`, the one that proves most of the others. A group's proof must not
    /// grow old because another group of the same request is refused, or a witness that leaves
    /// one group out answers faster than one that doesn't.
    pub(super) fn proofs(&self, groups: &BTreeSet<&GroupKey>, quorum: usize) -> Vec<Proof> {
        let mut unproven = groups.clone();
        let mut proofs = Vec::new();
        while proofs.len() < MAX_PROOFS {
            let proven = |r: &&SentRound| {
                r.yes.iter().filter(|(group, yes)| **yes >= quorum && unproven.contains(group)).count()
            };
            let useful = self.rounds.iter().filter(|r| proven(r) > 0);
            let best =
                if proofs.is_empty() { useful.max_by_key(|r| r.id) } else { useful.max_by_key(|r| (proven(r), r.id)) };
            let Some(best) = best else { break };
            proofs.extend(self.round(best.id).map(|(round, entries)| Proof { round, entries }));
            unproven.retain(|group| best.yes.get(*group).is_none_or(|yes| *yes < quorum));
        }
        proofs
    }
}
