//! L8: a witness whose state may be older than its answers reads it from others.
//!
//! It grants nothing for D after its start, or after it found out, and reads only *then*:
//! an earlier reading would miss grants in flight, and its own promises still run. Every report answers a nonce that was made after the
//! wait, so that an old one can't be taken for it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::group::Group;
use super::record::{Record, Retired};
use super::{MAX_GROUPS_PER_HOME, MAX_TERM_LEAP, Witness};
use regent_core::ids::{Epoch, GroupKey, SiteName};
use regent_core::message::{Proof, Vote};
use regent_core::plan::VerifiedPlan;
use regent_core::sign::{Digest, Envelope, Statement};
use regent_core::time::Moment;

/// What another witness knows of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GroupState {
    /// The group.
    pub group: GroupKey,
    /// Its vote there.
    pub vote: Option<Vote>,
    /// Its highest retired epoch there.
    pub retired: Option<Retired>,
    /// Its plan there.
    pub plan: Option<Envelope>,
}

/// A witness's state for one that recovers, signed by the witness.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StateReport {
    /// Whose state.
    pub witness: SiteName,
    /// The question that it answers.
    pub nonce: Digest,
    /// Whether it is stale itself; then it doesn't count.
    pub stale: bool,
    /// Its groups.
    pub groups: Vec<GroupState>,
    /// Certificates that it was shown: they let a vote be far above what is known (L4.5).
    pub proofs: Vec<Proof>,
}

impl Statement for StateReport {
    const PAYLOAD_TYPE: &'static str = "application/vnd.regent.witness-state.v1+json";
}

/// Why a recovery can't go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecoverError {
    /// There is nothing to recover.
    #[error("witness {0} is not stale; it needs no recovery")]
    NotStale(SiteName),
    /// Too early (L8).
    #[error("witness {witness} may read from others in {wait_ms} ms only: grants may be in flight until then")]
    TooEarly {
        /// Which witness.
        witness: SiteName,
        /// Time left, in milliseconds.
        wait_ms: u64,
    },
    /// No reading has begun.
    #[error("witness {0} has not begun its recovery; begin it with a fresh nonce, then ask the others")]
    NotBegun(SiteName),
    /// Not enough others.
    #[error(
        "witness {witness} has sound, fresh reports of {found} other witnesses, of {needed} that it needs; ask those that are missing"
    )]
    TooFew {
        /// Which witness.
        witness: SiteName,
        /// Valid reports of distinct others.
        found: usize,
        /// The quorum.
        needed: usize,
    },
}

/// A recovery under way.
#[derive(Debug)]
pub(super) struct Recovery {
    nonce: Digest,
    records: Option<BTreeMap<GroupKey, Record>>,
}

impl Witness {
    /// This witness's state, for one that recovers and made `nonce`.
    pub fn report(&self, nonce: Digest) -> StateReport {
        let state = |(key, group): (&GroupKey, &Group)| GroupState {
            group: key.clone(),
            vote: group.record.vote.clone(),
            retired: group.record.retired.clone(),
            plan: group.plan.as_ref().map(|p| p.envelope().clone()),
        };
        StateReport {
            witness: self.site.clone(),
            nonce,
            stale: self.is_stale(),
            groups: self.groups.iter().map(state).collect(),
            proofs: self.shown.values().cloned().collect(),
        }
    }

    /// Whether it needs to recover, and from when on it may begin to.
    pub fn recovery_due(&self) -> Option<Moment> {
        let due = self.stale_since?.after(self.charter.lease_duration());
        // A new leader waits for what the one before it promised, stale or not (L9).
        Some(self.waits_until.map_or(due, |until| due.max(until)))
    }

    /// Begins to read: the others are asked for their [`Self::report`] of this nonce,
    /// which is random and was never used.
    pub fn begin_recovery(&mut self, now: Moment, nonce: Digest) -> Result<(), RecoverError> {
        let due = self.recovery_due().ok_or_else(|| RecoverError::NotStale(self.site.clone()))?;
        if !due.passed_for_waiting(now) {
            let wait_ms = super::receive::ceil_ms(due, now);
            return Err(RecoverError::TooEarly { witness: self.site.clone(), wait_ms });
        }
        self.recovery = Some(Recovery { nonce, records: None });
        Ok(())
    }

    /// Takes the highest of what q others report. Returns the records to be written, each
    /// over whatever its object holds; then [`Self::conclude_recovery`].
    pub fn recover(
        &mut self,
        reports: &[Envelope],
        wall_s: Option<u64>,
    ) -> Result<Vec<(GroupKey, Record)>, RecoverError> {
        let begun = self.recovery.as_ref().filter(|_| self.is_stale());
        let nonce = begun.ok_or_else(|| RecoverError::NotBegun(self.site.clone()))?.nonce;
        let mut sound: BTreeMap<SiteName, StateReport> = BTreeMap::new();
        for report in reports.iter().filter_map(|e| self.sound_report(e, &nonce)) {
            sound.insert(report.witness.clone(), report);
        }
        let (found, needed) = (sound.len(), self.charter.quorum());
        if found < needed {
            return Err(RecoverError::TooFew { witness: self.site.clone(), found, needed });
        }
        let certified = self.certified_in(sound.values());
        let mut states: BTreeMap<&GroupKey, Vec<&GroupState>> = self.groups.keys().map(|k| (k, Vec::new())).collect();
        for report in sound.values() {
            // One word for each witness, or a liar would be as many as it likes.
            let said: BTreeMap<&GroupKey, &GroupState> = report.groups.iter().map(|s| (&s.group, s)).collect();
            for (key, state) in said.into_iter().filter(|(key, _)| self.charter.site(&key.home).is_some()) {
                states.entry(key).or_default().push(state);
            }
        }
        let mut records = BTreeMap::new();
        for (key, states) in states {
            let mut record = self.groups.get(key).map_or_else(Record::default, |g| g.record.clone());
            self.merge(&mut record, &states, certified.get(key));
            record.start = self.start;
            record.recovered = self.start;
            record.charter = Some(self.charter.digest());
            record.writes = record.writes.saturating_add(1);
            record.written_s = wall_s;
            records.insert(key.clone(), record);
        }
        let list = records.iter().map(|(key, record)| (key.clone(), record.clone())).collect();
        self.recovery = Some(Recovery { nonce, records: Some(records) });
        Ok(list)
    }

    /// Goes on once every record is written; otherwise it stays stale and reads again.
    /// Incumbents count as proven now. Returns whether it is sound again.
    pub fn conclude_recovery(&mut self, now: Moment, failed: &[GroupKey], wall_s: Option<u64>) -> bool {
        let Some(records) = self.recovery.take().and_then(|r| r.records) else {
            return !self.is_stale();
        };
        if !failed.is_empty() {
            return false;
        }
        self.groups.clear();
        self.parties.clear();
        self.recovered = self.start;
        for (key, record) in records {
            self.load(now, key, record, wall_s);
        }
        self.stale_since = None;
        true
    }

    fn sound_report(&self, envelope: &Envelope, nonce: &Digest) -> Option<StateReport> {
        let claimed: StateReport = envelope.peek().ok()?;
        let witness = self.charter.site(&claimed.witness).filter(|s| s.name != self.site)?;
        let report: StateReport = envelope.open(witness.name.as_str(), &witness.key).ok()?;
        let most = MAX_GROUPS_PER_HOME.saturating_mul(self.charter.sites.len());
        let fits = report.groups.len() <= most && report.proofs.len() <= self.charter.sites.len();
        let counts = self.charter.is_witness(&report.witness) && !report.stale && &report.nonce == nonce;
        (fits && counts).then_some(report)
    }

    /// The highest epoch of each group of which a report shows a certificate.
    fn certified_in<'a>(&self, reports: impl Iterator<Item = &'a StateReport>) -> BTreeMap<GroupKey, Vote> {
        let mut highest: BTreeMap<GroupKey, Vote> = BTreeMap::new();
        for proof in reports.flat_map(|r| &r.proofs) {
            let Ok(round) = self.verify_proof(proof, &proof.entries) else {
                continue;
            };
            let number = self.charter.site(&round.request.site).map(|s| s.number);
            for entry in proof.entries.iter().filter(|e| Some(e.epoch.site) == number && round.is_granted(&e.group)) {
                let vote = Vote { site: round.request.site.clone(), epoch: entry.epoch };
                let known = highest.entry(entry.group.clone()).or_insert_with(|| vote.clone());
                if vote.epoch > known.epoch {
                    *known = vote;
                }
            }
        }
        highest
    }

    /// The highest of each, votes and retired epochs only as far as L4.5 allows above what is
    /// certified or what f + 1 name: a liar's report must not lead to the last epoch, and what
    /// honest ones know must come back although nobody shows its certificate any more.
    fn merge(&self, record: &mut Record, states: &[&GroupState], certified: Option<&Vote>) {
        let term = |vote: Option<&Vote>| vote.map_or(0, |v| v.epoch.term);
        let mut named: Vec<u64> =
            states.iter().map(|s| term(s.vote.as_ref()).max(s.retired.as_ref().map_or(0, |r| r.epoch.term))).collect();
        named.sort_unstable_by_key(|term| std::cmp::Reverse(*term));
        let honest = named.get(self.charter.faulty_witnesses as usize).copied().unwrap_or(0);
        let known = term(record.vote.as_ref()).max(term(record.certified.as_ref())).max(term(certified)).max(honest);
        let allowed = |epoch: &Epoch| epoch.term <= known.saturating_add(MAX_TERM_LEAP);
        let own_number = |vote: &Vote| self.charter.site(&vote.site).is_some_and(|s| s.number == vote.epoch.site);
        let mut plan = record.plan.as_ref().and_then(|e| VerifiedPlan::open(e, &self.charter).ok());
        for state in states {
            if let Some(vote) = state.vote.as_ref().filter(|v| allowed(&v.epoch) && own_number(v))
                && record.vote.as_ref().is_none_or(|held| vote.epoch > held.epoch)
            {
                record.vote = Some(vote.clone());
            }
            if let Some(retired) = state.retired.as_ref().filter(|r| allowed(&r.epoch))
                && record.retired.as_ref().is_none_or(|held| retired.epoch > held.epoch)
            {
                record.retired = Some(retired.clone());
            }
            // A plan that is no better than what is held, or of another group, is passed over.
            let opened = state.plan.as_ref().and_then(|e| VerifiedPlan::open(e, &self.charter).ok());
            let opened = opened.filter(|p| p.plan().group == state.group);
            if let Some(better) = opened.and_then(|p| VerifiedPlan::supersede(plan.as_ref(), p).ok().flatten()) {
                plan = Some(better);
            }
        }
        if let Some(certified) = certified
            && record.certified.as_ref().is_none_or(|held| certified.epoch > held.epoch)
        {
            record.certified = Some(certified.clone());
        }
        record.plan = plan.map(|p| p.envelope().clone()).or_else(|| record.plan.take());
    }
}
