//! One vote: what a witness promises, to whom, and when it may give a group to another
//! site (docs/protocol.md, L2 to L9, L12 and L14).
//!
//! The witness is a state machine without I/O. Its shell reads clocks and messages,
//! feeds them in, and carries out what comes back, in this order:
//!
//! ```text
//!   Submission --receive--> Receipt { persists } --(compare-and-swap each)--> conclude --> Grant, to be signed
//!                                                            | failed
//!                                                            +--> read the object again --> reload
//! ```
//!
//! Nothing is answered before what it rests on is written. While a group is being
//! written it is [`Refusal::Busy`](regent_core::message::Refusal::Busy) for everybody else;
//! other groups go on. A renewal writes nothing.
//!
//! **Why a failed write silences its group.** A write that failed may still arrive. If
//! the witness went on renewing the old holder meanwhile, a restart would find the new
//! vote and grant it at once (L7), while the old holder's promise still runs. So the
//! group is refused until its object was read again, and then written once more before
//! it is answered, which makes every write in flight fail its comparison.

mod decide;
mod explain;
mod group;
mod intake;
mod notice;
mod receive;
mod record;
mod recover;
mod release;
mod tag;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use regent_core::charter::{Charter, Pinned};
use regent_core::ids::{GroupKey, PartyName, SiteName};
use regent_core::time::Moment;

pub use explain::{Claimant, GroupView, InLine, PromiseView, WitnessView};
pub use notice::{StaleCause, WitnessEvent};
pub use receive::{
    Ignored, MAX_ENTRIES, MAX_GRANT_BYTES, MAX_GRANTS, MAX_PLANS, MAX_REQUEST_BYTES, MAX_SIGNATURES, MAX_TAG_BYTES,
    MAX_TAGS, Receipt, RequestError,
};
pub use record::{Record, Retired};
pub use recover::{GroupState, RecoverError, StateReport};
pub use tag::MacKey;

use group::{Brake, Group};
use notice::Notices;
use tag::Tags;

/// L4.5: how far above what it knows a witness lets a term be.
pub const MAX_TERM_LEAP: u64 = 16;
/// The most groups of one home that a witness holds.
pub const MAX_GROUPS_PER_HOME: usize = 10_000;
/// The span over which interlocks count (L14).
pub const INTERLOCK_SPAN: Duration = Duration::from_secs(3600);

/// How this start came about. It decides what the witness may not know any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The marker of installation was written just now: nothing was ever promised.
    First,
    /// An ordinary start, or one that took the lead, over what an earlier one persisted (L7, L9).
    Restarted,
    /// The state may be older than what was answered from it (L8).
    Stale,
}

/// What a witness is started with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which site this is.
    pub site: SiteName,
    /// The verified charter.
    pub charter: Charter,
    /// The kernel's boot identity: clock readings of another boot mean nothing.
    pub boot: [u8; 16],
    /// Authenticates the witness's tags to itself; the same key at each start, so that a
    /// tag from a later start than the persisted count gives a restored state away (L8).
    pub mac_key: MacKey,
    /// Count of starts (and of changes of lead), persisted and grown by one before this start.
    pub start: u64,
    /// When it started, or took the lead.
    pub started: Moment,
    /// How it started.
    pub how: Start,
    /// `None` where one process is the only witness of its site.
    pub lead: Option<LeadTerm>,
    /// The wall clock, in seconds since 1970, for the interlocks' history only (L14).
    pub wall_s: Option<u64>,
}

/// The lead among replicas, by a Kubernetes Lease (L9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeadTerm {
    /// T1: only requests received within this time of *sending* the last successful Lease
    /// update are answered; see [`Witness::confirm_lead`].
    pub answers_for: Duration,
    /// How long the Lease runs: the leader before may have answered until its end.
    pub lease: Duration,
}

/// Why a witness can't start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The charter names others.
    #[error(
        "site {site} is not a witness of charter {charter} version {version}; add it to witnesses or don't run a witness here"
    )]
    NotAWitness {
        /// The site.
        site: SiteName,
        /// The charter's name.
        charter: String,
        /// Its version.
        version: u64,
    },
    /// A first start has no past.
    #[error(
        "witness {site}: {records} records exist although this is its first start; start it as restarted, or as stale if they were restored"
    )]
    NotFirst {
        /// The site.
        site: SiteName,
        /// How many records were found.
        records: usize,
    },
    /// The records were written under another charter. What was promised under that one may
    /// last longer, or count towards another quorum, than this one says (L17).
    #[error(
        "witness {site}: the record of group {group} was written under another charter than this one of version {version}; a charter can't be replaced yet, so give it back the one that it had"
    )]
    OtherCharter {
        /// The site.
        site: SiteName,
        /// Whose record.
        group: GroupKey,
        /// The version that it was started with.
        version: u64,
    },
    /// A record of a start that has not happened by this count.
    #[error(
        "witness {site}: the record of group {group} was written by start {found}, this is start {start}; its count of starts was set back, so start it as stale"
    )]
    LaterRecord {
        /// The site.
        site: SiteName,
        /// Whose record.
        group: GroupKey,
        /// The start that wrote it.
        found: u64,
        /// The present start.
        start: u64,
    },
}

/// The state machine of one witness.
#[derive(Debug)]
pub struct Witness {
    site: SiteName,
    charter: Pinned,
    start: u64,
    started: Moment,
    /// How many writes were on disk when it started, and the start of its last recovery (L8).
    found: u64,
    recovered: u64,
    /// Sites that had an answer of this witness shortly before it started.
    current: BTreeSet<SiteName>,
    waits_until: Option<Moment>,
    lead: Lead,
    /// Since when its state may be older than its answers (L8).
    stale_since: Option<Moment>,
    recovery: Option<recover::Recovery>,
    tags: Tags,
    groups: BTreeMap<GroupKey, Group>,
    /// Certified changes of holder of all groups of a party's sites (L14).
    parties: BTreeMap<PartyName, Brake>,
    /// The newest certificate that each site showed: what a recovering witness asks for (L8).
    shown: BTreeMap<SiteName, regent_core::message::Proof>,
    notices: Notices,
}

/// Whether this process may answer (L9).
#[derive(Debug)]
enum Lead {
    /// The only witness process of its site.
    Sole,
    /// Leads, and may answer what it receives until then.
    Until(Moment, Duration),
    /// Another start has written since.
    Lost,
}

impl Witness {
    /// A witness over what it persisted. With [`Config::lead`] it answers nothing until [`Self::confirm_lead`].
    pub fn new(config: Config, records: BTreeMap<GroupKey, Record>) -> Result<Self, StartError> {
        let Config { site, charter, start, started, how, .. } = config;
        if !charter.is_witness(&site) {
            let (charter, version) = (charter.name, charter.version);
            return Err(StartError::NotAWitness { site, charter, version });
        }
        if how == Start::First && !records.is_empty() {
            return Err(StartError::NotFirst { site, records: records.len() });
        }
        let later = records.iter().find(|(_, record)| record.start >= start && how != Start::Stale);
        if let Some((group, record)) = later {
            return Err(StartError::LaterRecord { site, group: group.clone(), found: record.start, start });
        }
        let charter = Pinned::from(charter);
        let others = |record: &Record| record.charter.is_some_and(|c| c != charter.digest());
        if let Some((group, _)) = records.iter().find(|(_, record)| others(record)) {
            let version = charter.version;
            return Err(StartError::OtherCharter { site, group: group.clone(), version });
        }
        let d = charter.lease_duration();
        let waits_until = match how {
            Start::First => None,
            Start::Restarted | Start::Stale => {
                let lease = config.lead.map_or(Duration::ZERO, |lead| lead.lease);
                Some(started.after(lease.saturating_add(d)))
            }
        };
        let lead = match config.lead {
            None => Lead::Sole,
            Some(term) => Lead::Until(Moment::default(), term.answers_for),
        };
        let tags = Tags::new(&config.mac_key, &site, start, config.boot);
        let mut witness = Self {
            site,
            charter,
            start,
            started,
            found: records.values().fold(0, |sum, record| sum.saturating_add(record.writes)),
            recovered: records.values().map(|record| record.recovered).max().unwrap_or(0),
            current: BTreeSet::new(),
            waits_until,
            lead,
            stale_since: (how == Start::Stale).then_some(started),
            recovery: None,
            tags,
            groups: BTreeMap::new(),
            parties: BTreeMap::new(),
            shown: BTreeMap::new(),
            notices: Notices::default(),
        };
        for (key, record) in records {
            witness.load(started, key, record, config.wall_s);
        }
        Ok(witness)
    }

    /// Takes a record as the truth about a group. Its incumbent counts as proven now (L7).
    fn load(&mut self, now: Moment, key: GroupKey, record: Record, wall_s: Option<u64>) {
        let (group, changes) = Group::of_record(&key, record, &self.charter, now, wall_s, &mut self.notices);
        if let Some(party) = self.charter.site(&key.home).map(|s| s.party.clone()) {
            let brake = self.parties.entry(party).or_default();
            changes.into_iter().for_each(|until| brake.count(until));
        }
        self.groups.insert(key, group);
    }

    /// L9: the lead's Lease was updated by a request that was *sent* at `sent`.
    pub fn confirm_lead(&mut self, sent: Moment) {
        if let Lead::Until(until, t1) = &mut self.lead {
            let confirmed = sent.after(*t1);
            *until = until.max(confirmed);
        }
    }

    /// Whether a request that is received `now` may be answered (L9).
    pub fn leads(&self, now: Moment) -> bool {
        match self.lead {
            Lead::Sole => true,
            Lead::Until(until, _) => !until.passed_for_stopping(now),
            Lead::Lost => false,
        }
    }

    /// What its object says of a group whose write failed, `None` if there is no object.
    /// Until this is called the group is refused.
    pub fn reload(&mut self, now: Moment, key: &GroupKey, record: Option<Record>) {
        let Some(group) = self.groups.get(key).filter(|g| !g.is_pending()) else {
            return;
        };
        match record {
            // Another process has the lead and this one did not notice.
            Some(record) if record.start > self.start => self.lead = Lead::Lost,
            Some(record) if record.writes < group.written => {
                self.turn_stale(now, StaleCause::SetBack(key.clone()));
            }
            Some(record) => {
                if let Some(group) = self.groups.remove(key) {
                    let fresh = group.reloaded(key, record, &self.charter, now, &mut self.notices);
                    self.groups.insert(key.clone(), fresh);
                }
            }
            None if group.was_persisted() => self.turn_stale(now, StaleCause::ObjectMissing(key.clone())),
            None => {
                self.groups.remove(key);
            }
        }
    }

    /// L8: says that the state may be older than what was answered from it, for example
    /// because an operator restored it.
    pub fn turn_stale(&mut self, now: Moment, cause: StaleCause) {
        if self.stale_since.is_none() {
            self.stale_since = Some(now);
            self.notices.push(now, WitnessEvent::Stale(cause));
        }
    }

    /// Which site this is.
    pub fn site(&self) -> &SiteName {
        &self.site
    }

    /// The groups whose last write failed: the shell reads their objects again and calls
    /// [`Self::reload`].
    pub fn unsettled(&self) -> BTreeSet<GroupKey> {
        self.groups.iter().filter(|(_, g)| g.is_unsettled()).map(|(k, _)| k.clone()).collect()
    }

    /// How many writes are on disk for certain, of all groups. None that a stale witness knows.
    fn writes(&self) -> u64 {
        let all = || self.groups.values().fold(0u64, |sum, group| sum.saturating_add(group.written));
        if self.is_stale() { 0 } else { all() }
    }

    fn is_stale(&self) -> bool {
        self.stale_since.is_some()
    }

    /// Whether it still waits after a start or a change of lead (L7, L9).
    fn waits(&self, now: Moment) -> Option<Moment> {
        self.waits_until.filter(|until| !until.passed_for_waiting(now))
    }
}
