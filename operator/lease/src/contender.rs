//! A site's side of the control lease: holder and candidate of all its groups (L10 to L12).
//!
//! Each replica of the operator runs one; both work at once. They know nothing of each
//! other and need not: the same site asks for the same epoch, because each learns from the
//! witnesses' votes which one that is.
//!
//! ```text
//!            q would grant            q grants
//!  Candidate ------------> Attempting ---------> Holder --release--> Releasing
//!      ^ ^                     | 3 D               | ran out, and 3 D, |
//!      | +--------- Silent <---+                   | a higher vote, or |
//!      |      2 D x rank                           | retired           |
//!      +-------------------------------------------+-------------------+
//! ```
//!
//! Each P one signed request renews everything that is held, and one asks for everything
//! that might be. An acquisition is a renewal that comes at once and has more entries, so
//! that there is one chain of certificates, each the proof that the next request carries
//! (L2).

mod answers;
mod believed;
mod group;
mod output;
mod release;
mod releasing;
mod roles;
mod rounds;
mod status;
#[cfg(test)]
mod tests;
mod votes;

pub use believed::Believed;
pub use group::{HeldBack, IdleReason, Readiness};
pub use output::{Certified, ContenderEvent, Outgoing, Output, RoundId};
pub use release::{Release, ReleaseError, ReleaseEvent, ReleasePhase, ReleaseStage, ReleaseStep};
pub use status::{GroupStatus, RoleName, WitnessWord};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::SigningKey;

use crate::witness::MAX_PLANS;
use group::{Group, Role};
use regent_core::charter::{Charter, Pinned};
use regent_core::ids::{GroupKey, SiteName};
use regent_core::message::{Ask, Entry, Line, Request, Submission, Tag, entry_tree};
use regent_core::plan::{Plan, Protection, VerifiedPlan};
use regent_core::sign::{Digest, Envelope};
use regent_core::time::Moment;
use rounds::Book;

/// The least time between two queries: a witness's clock may be behind ours by what it
/// drifted, and asking again at once would be polling.
const BETWEEN_QUERIES: Duration = Duration::from_millis(5);

/// How often a plan is offered to a witness that doesn't answer.
const OFFERS: u32 = 3;

/// A group in whose plan this site is home or standby, or which it holds although a newer
/// plan leaves it out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupInput {
    /// The newest plan known here, verified once, by whoever took it. Shared: thousands of them
    /// are compared each time that something changes.
    pub plan: Arc<VerifiedPlan>,
    /// For groups with the trigger `Approval`: somebody has approved a takeover by this
    /// site. A planned takeover to this site counts as one.
    pub approved: bool,
    /// How much of what this site would run is held ready.
    pub readiness: Readiness,
}

/// Why something was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContenderError {
    /// The site is not in the charter.
    #[error("charter {charter:?} names no site {site}; name a site of the charter")]
    UnknownSite {
        /// The charter's name.
        charter: String,
        /// The site.
        site: SiteName,
    },
}

/// Holder and candidate of one replica.
#[derive(Debug)]
pub struct Contender {
    charter: Pinned,
    site: SiteName,
    number: u32,
    groups: BTreeMap<GroupKey, Group>,
    tags: BTreeMap<SiteName, (RoundId, Tag)>,
    /// When each witness answered last.
    heard: BTreeMap<SiteName, Moment>,
    book: Book,
    renewed: Option<Moment>,
    queried: Option<Moment>,
    /// A request is to be sent before P has passed.
    renew_now: bool,
    query_now: bool,
    changes: u64,
    stagger: Duration,
    out: Vec<Output>,
}

impl Contender {
    /// A contender that knows nothing yet: what it holds it learns from the witnesses.
    pub fn new(charter: Charter, site: SiteName) -> Result<Self, ContenderError> {
        let Some(entry) = charter.site(&site) else {
            return Err(ContenderError::UnknownSite { charter: charter.name.clone(), site });
        };
        let number = entry.number;
        Ok(Self {
            charter: charter.into(),
            site,
            number,
            groups: BTreeMap::new(),
            tags: BTreeMap::new(),
            heard: BTreeMap::new(),
            book: Book::default(),
            renewed: None,
            queried: None,
            renew_now: false,
            query_now: false,
            changes: 0,
            stagger: Duration::ZERO,
            out: Vec::new(),
        })
    }

    /// The site's groups, all of them: one that is missing is let go of (its lease runs
    /// out). A plan that leaves this site out belongs here while the site holds the group, or
    /// did when it last knew: it goes on with what it holds and acquires nothing. A plan older
    /// than the one known is ignored.
    pub fn set_plans(&mut self, inputs: Vec<GroupInput>) {
        let mut named = BTreeSet::new();
        for input in inputs {
            let key = input.plan.plan().group.clone();
            named.insert(key.clone());
            self.set_plan(key, input);
        }
        self.groups.retain(|group, _| named.contains(group));
    }

    fn set_plan(&mut self, key: GroupKey, input: GroupInput) {
        match self.groups.get_mut(&key) {
            Some(group) => {
                let version = input.plan.plan().version;
                if version >= group.plan().version && input.plan != group.plan {
                    self.changes += 1;
                    group.mark = group::PlanMark { version, change: self.changes };
                    (group.plan, group.offered) = (input.plan, 0);
                }
                (group.approved, group.readiness) = (input.approved, input.readiness);
            }
            None => {
                self.groups.insert(key, Group::new(input.plan, input.approved, input.readiness));
            }
        }
    }

    /// Time passes: to be called at [`Self::next_tick`], and after plans changed.
    pub fn tick(&mut self, now: Moment) -> Vec<Output> {
        self.book.prune(now, self.charter.lease_duration() * 2);
        let keys: Vec<GroupKey> = self.groups.keys().cloned().collect();
        for key in &keys {
            self.pass_time(now, key);
        }
        self.flush(now)
    }

    /// Asks for a group at once and not only when P has passed: its holder has just
    /// released it, or somebody approved.
    pub fn nudge(&mut self, group: &GroupKey) {
        if self.groups.get(group).is_some_and(|g| matches!(g.role, Role::Candidate { .. })) {
            self.query_now = true;
        }
    }

    /// Whether q witnesses hold at least this version of the group's plan at one time:
    /// asked again after the q-th said so, their counts of starts unchanged. Home learns
    /// it; other sites offer plans only to witnesses that lack them.
    pub fn is_registered(&self, group: &GroupKey, version: u64) -> bool {
        self.groups.get(group).is_some_and(|g| g.is_registered(version, self.charter.quorum()))
    }

    /// How long this replica leaves asking at a lapse, and acquiring, to the other one. Two
    /// that acquire at one moment find each other's votes being written and lose a round
    /// trip. Zero for the leader; some round trips (50 ms) for the other.
    pub fn set_stagger(&mut self, stagger: Duration) {
        self.stagger = stagger;
    }

    /// Signs a request of [`Output::Send`] and notes it, so that answers to it are known.
    /// `id` must be random; `nonce_root` is the root over the newest nonces of the site's
    /// guards.
    pub fn seal(&mut self, outgoing: &Outgoing, id: Digest, nonce_root: Digest, key: &SigningKey) -> Submission {
        let request = Request {
            charter_version: self.charter.version,
            charter: self.charter.digest(),
            site: self.site.clone(),
            ask: outgoing.ask.clone(),
            id,
            nonce_root,
            entry_root: entry_tree(&outgoing.entries).root(),
            tags: outgoing.tags.clone(),
        };
        let envelope = Envelope::sign(&request, self.site.as_str(), key);
        self.book.seal(outgoing.round, envelope.clone());
        outgoing.submission(envelope)
    }

    /// Sends what is due.
    fn flush(&mut self, now: Moment) -> Vec<Output> {
        let period = self.charter.renewal_period();
        let due = |last: Option<Moment>| last.is_none_or(|at| at.after(period).passed_for_stopping(now));
        if self.renew_now || due(self.renewed) || self.is_awaited(now) {
            self.send_grant(now);
        }
        let waited = self.queried.is_none_or(|at| at.after(BETWEEN_QUERIES).passed_for_stopping(now));
        if due(self.queried) || (waited && (self.query_now || self.wait_is_over(now))) {
            self.send_queries(now);
        }
        self.send_releases(now);
        std::mem::take(&mut self.out)
    }

    fn wait_is_over(&self, now: Moment) -> bool {
        let over = |g: &Group| matches!(g.role, Role::Candidate { again: Some(at) } if at.passed_for_stopping(now));
        self.groups.values().any(over)
    }

    /// Whether an attempt asks before the next renewal.
    fn is_awaited(&self, now: Moment) -> bool {
        let over =
            |g: &Group| matches!(g.role, Role::Attempting { again: Some(at), .. } if at.passed_for_stopping(now));
        self.groups.values().any(over)
    }

    fn send_grant(&mut self, now: Moment) {
        self.renew_now = false;
        for group in self.groups.values_mut() {
            if let Role::Attempting { again, .. } = &mut group.role {
                again.take_if(|at| at.passed_for_stopping(now));
            }
        }
        let asked = |(key, g): (&GroupKey, &Group)| {
            g.asked().map(|epoch| Entry { group: key.clone(), epoch, state: state_of(g.plan()) })
        };
        let entries: Vec<Entry> = self.groups.iter().filter_map(asked).collect();
        if entries.is_empty() {
            return;
        }
        self.renewed = Some(now);
        self.send(now, Ask::Grant, entries, self.charter.witnesses.clone());
    }

    fn send_queries(&mut self, now: Moment) {
        self.query_now = false;
        let (f, q) = (self.charter.faulty_witnesses as usize, self.charter.quorum());
        let fresh = self.charter.renewal_period() * 2;
        let mut lines: BTreeMap<Line, Vec<Entry>> = BTreeMap::new();
        for (key, group) in &mut self.groups {
            let Role::Candidate { again } = &mut group.role else {
                continue;
            };
            *again = None;
            let epoch = group.target(f, (&self.site, self.number));
            let heard = group.answered(now, fresh) >= q;
            let aside = group.aside.is_some_and(|until| !until.passed_for_waiting(now));
            let line = if heard && !aside { group.line(&self.charter, &self.site) } else { Line::Beside };
            let entry = Entry { group: key.clone(), epoch, state: state_of(group.plan()) };
            lines.entry(line).or_default().push(entry);
        }
        for (line, entries) in lines {
            self.queried = Some(now);
            self.send(now, Ask::Query { line }, entries, self.charter.witnesses.clone());
        }
    }

    /// Asks one witness for a lower epoch than the others (L4.5).
    fn send_climb(&mut self, now: Moment, ask: Ask, entry: Entry, witness: SiteName) {
        self.send(now, ask, vec![entry], vec![witness]);
    }

    fn send(&mut self, now: Moment, ask: Ask, entries: Vec<Entry>, to: Vec<SiteName>) {
        let whole = to.len() == self.charter.witness_count();
        let mut marks = BTreeMap::new();
        let mut plans = Vec::new();
        let subjects: BTreeSet<&GroupKey> = match &ask {
            Ask::Grant | Ask::Query { .. } => entries.iter().map(|e| &e.group).collect(),
            Ask::Retire { group, .. } | Ask::Release { group, .. } => BTreeSet::from([group]),
        };
        let recent = self.charter.renewal_period() * 2;
        let heard = |w: &SiteName| self.heard.get(w).is_some_and(|at| !at.after(recent).passed_for_stopping(now));
        for key in &subjects {
            let Some(group) = self.groups.get_mut(*key) else { continue };
            let mut lacking = to.iter().filter(|w| group.seen.get(*w) != Some(&group.mark)).peekable();
            // A witness that is gone must not have every plan sent for ever.
            let lacks = lacking.peek().is_some() && (group.offered < OFFERS || lacking.any(heard));
            let registers = self.site == key.home && !group.is_registered(group.mark.version, self.charter.quorum());
            if (lacks || registers) && plans.len() < MAX_PLANS {
                group.offered = group.offered.saturating_add(1);
                plans.push(group.plan.envelope().clone());
                marks.insert((*key).clone(), group.mark);
            }
        }
        let proofs = self.book.proofs(&subjects, self.charter.quorum());
        let round = self.book.open(now, ask.clone(), entries.clone(), whole, marks);
        let tags = self.tags.iter().map(|(witness, (_, tag))| (witness.clone(), tag.clone())).collect();
        self.out.push(Output::Send(Outgoing { round, ask, entries, tags, proofs, plans, to }));
    }
}

/// What is asked for: the fence stays in force while protection is being taken off (I9).
fn state_of(plan: &Plan) -> Protection {
    match plan.protection {
        Protection::Observed => Protection::Observed,
        Protection::Protected | Protection::Retiring => Protection::Protected,
    }
}
