//! From a submission to a signed answer.

use std::collections::{BTreeMap, BTreeSet};

use super::decide::{Claim, No};
use super::group::Promise;
use super::{Record, Witness};
use regent_core::ids::{Epoch, GroupKey, SiteName};
use regent_core::message::{
    Ask, Exception, Grant, MAX_PROOFS, Refusal, Request, RoundError, Submission, Vote, entry_tree,
};
use regent_core::plan::{PlanError, Protection};
use regent_core::sign::{Digest, Envelope, SignError};
use regent_core::time::{Moment, nanos};

/// The most entries of one request: the groups that one site can hold or want.
pub const MAX_ENTRIES: usize = 10_000;
/// The most plans of one submission; what does not fit goes with the next one.
pub const MAX_PLANS: usize = 512;
/// The longest signed request, in bytes.
pub const MAX_REQUEST_BYTES: usize = 64 << 10;
/// The most tags of one request: no charter has more witnesses.
pub const MAX_TAGS: usize = 64;
/// The longest tag, in bytes.
pub const MAX_TAG_BYTES: usize = 256;
/// The most signatures of one envelope.
pub const MAX_SIGNATURES: usize = 64;
/// The most grants of one proof.
pub const MAX_GRANTS: usize = 64;
/// The longest grant, in bytes: room for an exception of each entry.
pub const MAX_GRANT_BYTES: usize = 4 << 20;

/// Why a submission is not answered at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// L9: this process does not lead, or could not confirm that it does in time.
    #[error("witness {0} does not lead its site; ask the other replica or wait for the next election")]
    NotLeading(SiteName),
    /// The signature or the payload is wrong.
    #[error("lease request: {0}")]
    Sign(#[from] SignError),
    /// Made under another charter.
    #[error(
        "lease request of site {site} is under charter version {found}, witness {witness} has version {wanted}; give both the same charter"
    )]
    Charter {
        /// Who asks.
        site: SiteName,
        /// Who is asked.
        witness: SiteName,
        /// The request's version.
        found: u64,
        /// The witness's version.
        wanted: u64,
    },
    /// Made under another charter of the same version.
    #[error(
        "lease request of site {site} is under another charter of version {version} than witness {witness} has; give both the same charter"
    )]
    OtherCharter {
        /// Who asks.
        site: SiteName,
        /// Who is asked.
        witness: SiteName,
        /// The version of both.
        version: u64,
    },
    /// Signed by nobody whom the charter names.
    #[error("lease request is of site {0}, which the charter does not name; add it to the charter's sites")]
    UnknownSite(SiteName),
    /// A list or a payload is larger than any real one.
    #[error("lease request: {found} {what} are more than the limit of {limit}; split the request")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        found: usize,
        /// What is allowed.
        limit: usize,
    },
    /// The entries are not those that were signed.
    #[error(
        "lease request of site {0}: entries do not match its signed entryRoot; send the entries that were signed, in their order"
    )]
    WrongEntries(SiteName),
    /// An epoch is made by the site whose number it bears.
    #[error(
        "lease request of site {site}: epoch {epoch} of group {group} bears another site's number; ask for epochs of site number {number} only"
    )]
    ForeignEpoch {
        /// Who asks.
        site: SiteName,
        /// For which group.
        group: GroupKey,
        /// The epoch.
        epoch: Epoch,
        /// The number that the charter gives to the site.
        number: u32,
    },
    /// A group is listed twice.
    #[error("lease request of site {site}: group {group} is listed twice; list each group once")]
    GroupTwice {
        /// Who asks.
        site: SiteName,
        /// The group.
        group: GroupKey,
    },
    /// Only `Observed` and `Protected` can be asked for.
    #[error("lease request of site {site}: group {group} is asked for as Retiring; ask as Observed or Protected")]
    Retiring {
        /// Who asks.
        site: SiteName,
        /// The group.
        group: GroupKey,
    },
}

/// A part of a submission that was left out, while the rest was answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ignored {
    /// The certificate that was shown is none.
    #[error("proof ignored: {0}")]
    Proof(RoundError),
    /// The proof is larger than any real one.
    #[error(
        "proof ignored: it is larger than {MAX_ENTRIES} entries, {MAX_GRANTS} grants or {MAX_GRANT_BYTES} bytes a grant"
    )]
    ProofTooLarge,
    /// A plan was not registered.
    #[error("plan ignored: {0}")]
    Plan(PlanError),
}

/// What was decided about a submission, and what must be written before it is answered.
/// It must be concluded, also when every write failed: its groups are busy until then.
#[derive(Debug)]
#[must_use]
pub struct Receipt {
    /// To be written by compare-and-swap, each in its own object.
    pub persists: Vec<(GroupKey, Record)>,
    /// Parts that were left out, for the log.
    pub ignored: Vec<Ignored>,
    /// Who asked.
    pub site: SiteName,
    request: Digest,
    received: Moment,
    promises: bool,
    query: bool,
    answers: Vec<(GroupKey, Result<(), No>)>,
    /// Promised already, whatever becomes of the writes.
    renewed: BTreeSet<GroupKey>,
    offered: BTreeSet<GroupKey>,
}

impl Witness {
    /// Decides about a submission that was received at `received`: read the clocks when
    /// it arrives, since promises count from then (L3). The shell has checked that the
    /// peer that sent it is the site that signed it. `wall_s` is the wall clock in
    /// seconds since 1970; it dates changes of holder for after a restart (L14).
    pub fn receive(
        &mut self,
        received: Moment,
        submission: &Submission,
        wall_s: Option<u64>,
    ) -> Result<Receipt, RequestError> {
        if !self.leads(received) {
            return Err(RequestError::NotLeading(self.site.clone()));
        }
        let request = self.authenticate(submission)?;
        self.read_tag(&request, received);
        let mut receipt = Receipt {
            persists: Vec::new(),
            ignored: Vec::new(),
            site: request.site.clone(),
            request: submission.request.digest(),
            received,
            promises: request.ask == Ask::Grant,
            query: matches!(request.ask, Ask::Query { .. }),
            answers: Vec::new(),
            renewed: BTreeSet::new(),
            offered: BTreeSet::new(),
        };
        let mut dirty = BTreeSet::new();
        // A stale witness must not write over what it may have forgotten (L8).
        if !self.is_stale() {
            (receipt.offered, dirty) = self.take_plans(&submission.plans, received, &mut receipt.ignored);
            for proof in submission.proofs.iter().take(MAX_PROOFS) {
                receipt.ignored.extend(self.take_proof(submission, proof, received, wall_s).err());
            }
        }
        if self.is_stale() {
            dirty.clear();
        }
        self.answer(&request, submission, &mut receipt, &mut dirty);
        for key in dirty {
            if let Some(group) = self.groups.get_mut(&key) {
                let record = group.write(self.start, self.charter.digest(), wall_s);
                receipt.persists.push((key, record));
            }
        }
        Ok(receipt)
    }

    fn answer(
        &mut self,
        request: &Request,
        submission: &Submission,
        receipt: &mut Receipt,
        dirty: &mut BTreeSet<GroupKey>,
    ) {
        let now = receipt.received;
        match &request.ask {
            Ask::Grant | Ask::Query { .. } => {
                for entry in &submission.entries {
                    let claim = Claim { site: &request.site, entry, binding: receipt.promises, now };
                    if !self.is_stale() {
                        self.stand_in_line(claim, &request.ask);
                    }
                    let verdict = self.decide(claim);
                    if receipt.promises && verdict.is_ok() && self.vote(claim, dirty) {
                        receipt.renewed.insert(entry.group.clone());
                    }
                    receipt.answers.push((entry.group.clone(), verdict));
                }
            }
            Ask::Retire { group, epoch, successor } => {
                let verdict = self.retire(&request.site, group, *epoch, successor, now);
                if verdict == Ok(true) {
                    dirty.insert(group.clone());
                }
                receipt.answers.push((group.clone(), verdict.map(drop)));
            }
            Ask::Release { group, epoch } => {
                let verdict = self.release(&request.site, group, *epoch);
                receipt.answers.push((group.clone(), verdict));
            }
        }
    }

    /// Grants: the promise of a vote that is on disk is given at once, a new vote's only
    /// when it is written. Returns whether it is given.
    fn vote(&mut self, claim: Claim<'_>, dirty: &mut BTreeSet<GroupKey>) -> bool {
        let key = &claim.entry.group;
        let lapsed = |g: &super::group::Group| g.lapses_at(&self.charter).passed_for_waiting(claim.now);
        let Some(group) = self.groups.get_mut(key) else {
            return false;
        };
        let vote = Vote { site: claim.site.clone(), epoch: claim.entry.epoch };
        if group.renews(&vote) {
            group.promise_to(claim.site, claim.now.after(self.charter.lease_duration()));
            return true;
        }
        if group.record.vote.as_ref() != Some(&vote) {
            // L6: a new vote is no proof. A lapse that is acted on before a tick has seen it is
            // reported all the same, and not again.
            let has_lapsed = lapsed(group);
            let old =
                group.record.vote.as_ref().filter(|_| has_lapsed && group.reported.is_none() && !group.is_retired());
            if let Some(old) = old {
                let event = super::WitnessEvent::Lapsed { group: key.clone(), epoch: old.epoch };
                self.notices.push(group.lapses_at(&self.charter), event);
            }
            group.reported = has_lapsed.then(|| vote.clone());
            group.record.vote = Some(vote);
        }
        dirty.insert(key.clone());
        false
    }

    /// The answer, once every write of the receipt has ended; `failed` names the groups
    /// whose record could not be written, or of which nobody knows whether it was.
    pub fn conclude(&mut self, receipt: Receipt, failed: &[GroupKey]) -> Grant {
        let Receipt { persists, site, request, received, promises, query, answers, renewed, offered, .. } = receipt;
        let failed: BTreeSet<&GroupKey> = failed.iter().collect();
        let mut written: BTreeMap<GroupKey, bool> = BTreeMap::new();
        for (key, record) in persists {
            let group = self.groups.get_mut(&key);
            let rests = group.is_some_and(|g| g.settle(record.writes, !failed.contains(&key)));
            written.insert(key, rests);
        }
        let until = received.after(self.charter.lease_duration());
        let mut grant = Grant {
            witness: self.site.clone(),
            request,
            exceptions: Vec::new(),
            votes: BTreeMap::new(),
            plans: BTreeMap::new(),
            braked: BTreeMap::new(),
            start: self.start,
            tag: self.tags.issue(received, self.writes()),
        };
        for (key, verdict) in answers {
            let verdict = match (verdict, written.get(&key)) {
                (Ok(()), Some(false)) if !renewed.contains(&key) => Err(Refusal::NotPersisted.into()),
                // It found out while it wrote.
                (Ok(()), _) if self.is_stale() => Err(Refusal::Stale.into()),
                (verdict, _) => verdict,
            };
            if verdict.is_ok()
                && promises
                && written.contains_key(&key)
                && let Some(group) = self.groups.get_mut(&key)
            {
                group.promise_to(&site, until);
            }
            if verdict.is_ok()
                && let Some(No { until: Some(until), .. }) =
                    self.groups.get(&key).and_then(|group| self.holds_changes(group, &key, received))
            {
                grant.braked.insert(key.clone(), ceil_ms(until, received));
            }
            if query || verdict.is_err() {
                self.describe(&key, &mut grant);
            }
            if let Err(No { reason, until }) = verdict {
                let wait_ms = until.map(|u| ceil_ms(u, received));
                grant.exceptions.push(Exception { group: key, reason, wait_ms });
            }
        }
        offered.iter().for_each(|key| self.describe(key, &mut grant));
        grant
    }

    /// Names the vote, or a higher epoch of which a certificate was shown, and the plan's
    /// version, as they are on disk.
    fn describe(&self, key: &GroupKey, grant: &mut Grant) {
        let Some(group) = self.groups.get(key).filter(|g| !g.is_busy()) else {
            return;
        };
        if let Some(known) = group.highest() {
            grant.votes.insert(key.clone(), known.clone());
        }
        if let Some(plan) = &group.plan {
            grant.plans.insert(key.clone(), plan.plan().version);
        }
    }

    /// Checks everything about a request that needs no state: sizes, charter, signature,
    /// entries and whose epochs they are.
    fn authenticate(&self, submission: &Submission) -> Result<Request, RequestError> {
        check_sizes(submission)?;
        let claimed: Request = submission.request.peek()?;
        limit("tags", claimed.tags.len(), MAX_TAGS)?;
        for tag in claimed.tags.values() {
            limit("bytes of a tag", tag.0.len(), MAX_TAG_BYTES)?;
        }
        let entry = self.charter.site(&claimed.site).ok_or_else(|| RequestError::UnknownSite(claimed.site.clone()))?;
        let request: Request = submission.request.open(entry.name.as_str(), &entry.key)?;
        if request.charter_version != self.charter.version {
            return Err(RequestError::Charter {
                site: request.site,
                witness: self.site.clone(),
                found: request.charter_version,
                wanted: self.charter.version,
            });
        }
        if request.charter != self.charter.digest() {
            let version = self.charter.version;
            return Err(RequestError::OtherCharter { site: request.site, witness: self.site.clone(), version });
        }
        if entry_tree(&submission.entries).root() != request.entry_root {
            return Err(RequestError::WrongEntries(request.site));
        }
        let mut seen = BTreeSet::new();
        for claim in &submission.entries {
            let (site, group) = (|| request.site.clone(), || claim.group.clone());
            if claim.epoch.site != entry.number {
                let (epoch, number) = (claim.epoch, entry.number);
                return Err(RequestError::ForeignEpoch { site: site(), group: group(), epoch, number });
            }
            if claim.state == Protection::Retiring {
                return Err(RequestError::Retiring { site: site(), group: group() });
            }
            if !seen.insert(&claim.group) {
                return Err(RequestError::GroupTwice { site: site(), group: group() });
            }
        }
        Ok(request)
    }
}

impl super::group::Group {
    /// L3. A promise is never shortened by a request that was received earlier.
    fn promise_to(&mut self, site: &SiteName, until: Moment) {
        let until = match &self.promise {
            Some(before) if &before.site == site => before.until.max(until),
            _ => until,
        };
        self.promise = Some(Promise { site: site.clone(), until });
    }
}

/// Time until `until`, in whole milliseconds: never rounded down, or who waits would come too early.
pub(super) fn ceil_ms(until: Moment, now: Moment) -> u64 {
    nanos(until.left_for_waiting(now)).div_ceil(1_000_000)
}

fn limit(what: &'static str, found: usize, limit: usize) -> Result<(), RequestError> {
    if found > limit { Err(RequestError::TooMany { what, found, limit }) } else { Ok(()) }
}

fn check_sizes(submission: &Submission) -> Result<(), RequestError> {
    let envelope = |e: &Envelope| limit("signatures", e.signatures.len(), MAX_SIGNATURES);
    limit("entries", submission.entries.len(), MAX_ENTRIES)?;
    limit("plans", submission.plans.len(), MAX_PLANS)?;
    limit("bytes of the signed request", submission.request.payload.len(), MAX_REQUEST_BYTES)?;
    envelope(&submission.request)?;
    submission.plans.iter().try_for_each(envelope)?;
    // Plans are bounded by themselves; this bounds what is parsed to learn whose they are.
    let longest = submission.plans.iter().map(|p| p.payload.len()).max().unwrap_or(0);
    limit("bytes of a plan", longest, regent_core::plan::MAX_PLAN_BYTES)
}
