//! What a witness knows of one group, on disk and in memory.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::notice::{Notices, WitnessEvent};
use super::record::Retired;
use super::{INTERLOCK_SPAN, Record};
use regent_core::charter::Charter;
use regent_core::ids::{Epoch, GroupKey, SiteName};
use regent_core::message::Vote;
use regent_core::plan::VerifiedPlan;
use regent_core::sign::Digest;
use regent_core::time::Moment;

/// L3: the group is that site's until then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Promise {
    pub(super) site: SiteName,
    pub(super) until: Moment,
}

/// L4.7: when a claimant last asked, and for which epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) at: Moment,
    pub(super) epoch: Epoch,
    /// Not all that it would run is ready.
    pub(super) degraded: bool,
}

/// Certified changes of holder that still count (L14): until when each does, in the
/// order in which they were seen.
#[derive(Debug, Clone, Default)]
pub(super) struct Brake(VecDeque<Moment>);

impl Brake {
    /// Counts one more change until then. The span is the same for all, so the list
    /// stays in order.
    pub(super) fn count(&mut self, until: Moment) {
        let at = self.0.partition_point(|u| u.boot_ns <= until.boot_ns);
        self.0.insert(at, until);
    }

    pub(super) fn forget(&mut self, now: Moment) {
        while self.0.front().is_some_and(|u| u.passed_for_waiting(now)) {
            self.0.pop_front();
        }
    }

    /// Until when one more change would be one more than `limit`, if it would be now.
    pub(super) fn holds_until(&self, limit: u32, now: Moment) -> Option<Moment> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let at = self.0.len().checked_sub(limit)?;
        // A limit of none would never let go; the charter refuses it.
        let until = *self.0.get(at).or(self.0.back())?;
        (!until.passed_for_waiting(now)).then_some(until)
    }

    pub(super) fn counted(&self, now: Moment) -> usize {
        self.0.iter().filter(|u| !u.passed_for_waiting(now)).count()
    }
}

/// How far the record in memory is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disk {
    /// This start has written it, as it is.
    Written,
    /// It is as an earlier start left it: to be written before the first answer (L9).
    Unstamped,
    /// Never written: the group is new here.
    New,
    /// A write is under way.
    Pending {
        /// Whether the object exists for certain.
        existed: bool,
    },
    /// A write failed, and may still arrive.
    Unsettled {
        /// Whether the object exists for certain.
        existed: bool,
    },
}

/// One group.
#[derive(Debug)]
pub(super) struct Group {
    /// The record as it is, or as it will be once the write under way is done.
    pub(super) record: Record,
    /// The record's plan, verified.
    pub(super) plan: Option<VerifiedPlan>,
    pub(super) promise: Option<Promise>,
    /// The issue of the newest tag of ours that a certificate of the incumbent quoted
    /// (L2); when we learnt of the group or started, before there was one (L7).
    pub(super) proven_at: Moment,
    pub(super) line: BTreeMap<SiteName, Asked>,
    /// L12: since its retirement nobody but this site gets the group until then.
    pub(super) favoured: Option<Promise>,
    pub(super) brake: Brake,
    /// The vote whose lapse was reported.
    pub(super) reported: Option<Vote>,
    /// The number of the last write that is on disk for certain.
    pub(super) written: u64,
    /// Vote and retired epoch as this start has them on disk.
    settled: Option<(Option<Vote>, Option<Retired>)>,
    disk: Disk,
}

impl Group {
    /// A group of which the witness hears for the first time.
    pub(super) fn new(now: Moment) -> Self {
        Self {
            record: Record::default(),
            plan: None,
            promise: None,
            proven_at: now,
            line: BTreeMap::new(),
            favoured: None,
            brake: Brake::default(),
            reported: None,
            written: 0,
            settled: None,
            disk: Disk::New,
        }
    }

    /// A group as it was persisted, and until when each change of holder in it counts for its
    /// party.
    pub(super) fn of_record(
        key: &GroupKey,
        mut record: Record,
        charter: &Charter,
        now: Moment,
        wall_s: Option<u64>,
        notices: &mut Notices,
    ) -> (Self, Vec<Moment>) {
        if let Some(vote) = record.vote.clone() {
            let certified = record.certified.get_or_insert_with(|| vote.clone());
            // Certificates are persisted with the next change only: a vote that outlived its
            // start unrecorded counts as a change, for at worst it brakes an hour too much.
            if vote.epoch > certified.epoch {
                if vote.site != certified.site {
                    record.changes_s.push(record.written_s.unwrap_or(0));
                }
                record.certified = Some(vote);
            }
        }
        let plan = verified(key, &record, charter, now, notices);
        let (changes_s, until) = changes_that_count(&record.changes_s, now, wall_s);
        record.changes_s = changes_s;
        let mut group = Self { written: record.writes, record, plan, disk: Disk::Unstamped, ..Self::new(now) };
        until.iter().for_each(|u| group.brake.count(*u));
        (group, until.into_iter().skip(1).collect())
    }

    /// The same group after its object was read again. What is only in memory stays.
    pub(super) fn reloaded(
        self,
        key: &GroupKey,
        mut record: Record,
        charter: &Charter,
        now: Moment,
        notices: &mut Notices,
    ) -> Self {
        let plan = verified(key, &record, charter, now, notices);
        let epoch = |vote: &Option<Vote>| vote.as_ref().map(|v| v.epoch);
        if epoch(&self.record.certified) > epoch(&record.certified) {
            record.certified = self.record.certified;
        }
        record.changes_s = self.record.changes_s;
        Self { written: record.writes, record, plan, settled: None, disk: Disk::Unstamped, ..self }
    }

    /// The highest epoch that is known here: our vote, or a certificate that was shown. Others
    /// voted for that one; a vote of ours below it has lost.
    pub(super) fn highest(&self) -> Option<&Vote> {
        let (vote, certified) = (self.record.vote.as_ref(), self.record.certified.as_ref());
        match (vote, certified) {
            (Some(vote), Some(certified)) if certified.epoch > vote.epoch => Some(certified),
            (vote, certified) => vote.or(certified),
        }
    }

    /// Whose group this is: by our own vote or by a certificate of a higher epoch, and
    /// home's before there was any: a new group's first vote is home's (L4.6).
    pub(super) fn incumbent<'a>(&'a self, key: &'a GroupKey) -> &'a SiteName {
        self.highest().map_or(&key.home, |known| &known.site)
    }

    /// Whether nobody ever held it, for all this witness knows. Its first vote is home's
    /// (L4.6). Where a certificate was shown this witness only missed the beginning.
    pub(super) fn is_new(&self) -> bool {
        self.record.vote.is_none() && self.record.certified.is_none()
    }

    /// When L5 becomes true: `D + W + 2P` after the newest proof.
    pub(super) fn lapses_at(&self, charter: &Charter) -> Moment {
        let w = self.plan.as_ref().map_or(Duration::ZERO, |p| p.plan().takeover_after());
        let d = charter.lease_duration();
        self.proven_at.after(d.saturating_add(w).saturating_add(charter.renewal_period() * 2))
    }

    /// Whether the incumbent's epoch is retired (L12).
    pub(super) fn is_retired(&self) -> bool {
        match (self.highest(), &self.record.retired) {
            (Some(known), Some(retired)) => known.epoch <= retired.epoch,
            _ => false,
        }
    }

    /// Whether the site is the incumbent by vote or certificate and still proven: it holds the
    /// group, and no plan takes that from it.
    pub(super) fn is_proven(&self, site: &SiteName, charter: &Charter, now: Moment) -> bool {
        let voted = self.highest().is_some_and(|known| &known.site == site);
        voted && !self.is_retired() && !self.lapses_at(charter).passed_for_waiting(now)
    }

    /// Whether an epoch can't be granted any more, whoever asks (L4.4).
    pub(super) fn retires(&self, epoch: Epoch) -> bool {
        self.record.retired.as_ref().is_some_and(|r| epoch <= r.epoch)
    }

    /// The highest term that L4.5 lets through.
    pub(super) fn highest_term(&self) -> u64 {
        self.highest().map_or(0, |known| known.epoch.term).saturating_add(super::MAX_TERM_LEAP)
    }

    /// A certificate for `holder` was shown. Returns until when a change of holder counts for its
    /// party: the first of a group within the span doesn't. One party's every site may be lost at
    /// once, and then each of its groups moves once; errors of our own move them again and again.
    pub(super) fn certify(&mut self, holder: Vote, now: Moment, wall_s: Option<u64>) -> Option<Moment> {
        let before = self.record.certified.as_ref();
        if before.is_some_and(|c| c.epoch >= holder.epoch) {
            return None;
        }
        let changed = before.is_some_and(|c| c.site != holder.site);
        self.record.certified = Some(holder);
        if !changed {
            return None;
        }
        let until = now.after(INTERLOCK_SPAN);
        self.brake.forget(now);
        let first = self.brake.counted(now) == 0;
        self.brake.count(until);
        let kept = self.brake.counted(now);
        self.record.changes_s.push(wall_s.unwrap_or(0));
        let surplus = self.record.changes_s.len().saturating_sub(kept);
        self.record.changes_s.drain(..surplus);
        (!first).then_some(until)
    }

    /// Marks a write of the record and returns what is to be written.
    pub(super) fn write(&mut self, start: u64, charter: Digest, wall_s: Option<u64>) -> Record {
        self.disk = Disk::Pending { existed: self.was_persisted() };
        self.record.start = start;
        self.record.writes = self.record.writes.saturating_add(1);
        self.record.charter = Some(charter);
        self.record.written_s = wall_s;
        self.record.plan = self.plan.as_ref().map(|p| p.envelope().clone()).or_else(|| self.record.plan.take());
        self.record.clone()
    }

    /// The end of the write with that number. Returns whether what was written is what
    /// the group still rests on: a recovery in between has replaced it.
    pub(super) fn settle(&mut self, writes: u64, written: bool) -> bool {
        if !self.is_pending() || self.record.writes != writes {
            return false;
        }
        let existed = self.was_persisted();
        self.disk = if written { Disk::Written } else { Disk::Unsettled { existed } };
        if written {
            self.written = writes;
            self.settled = Some((self.record.vote.clone(), self.record.retired.clone()));
        }
        written
    }

    pub(super) fn is_pending(&self) -> bool {
        matches!(self.disk, Disk::Pending { .. })
    }

    pub(super) fn is_unsettled(&self) -> bool {
        matches!(self.disk, Disk::Unsettled { .. })
    }

    /// Whether it must be refused to everybody for now.
    pub(super) fn is_busy(&self) -> bool {
        self.is_pending() || self.is_unsettled()
    }

    /// Whether exactly this vote can be promised whatever becomes of a write under way: it is on
    /// disk by this start, and what is being written changes neither it nor what is retired
    /// (a plan, for example). A write that lands late then gives nobody else a vote.
    pub(super) fn renews(&self, vote: &Vote) -> bool {
        let same = |(settled, retired): &(Option<Vote>, Option<Retired>)| {
            settled.as_ref() == Some(vote) && self.record.vote.as_ref() == Some(vote) && retired == &self.record.retired
        };
        self.settled.as_ref().is_some_and(same)
    }

    /// Whether this start has the record in its own name on disk (L9).
    pub(super) fn is_stamped(&self) -> bool {
        self.disk == Disk::Written
    }

    pub(super) fn was_persisted(&self) -> bool {
        match self.disk {
            Disk::Written | Disk::Unstamped => true,
            Disk::New => false,
            Disk::Pending { existed } | Disk::Unsettled { existed } => existed,
        }
    }
}

/// The plan of a record. One that does not verify is as good as none: nobody is granted
/// the group until home sends a plan that does.
fn verified(
    key: &GroupKey,
    record: &Record,
    charter: &Charter,
    now: Moment,
    notices: &mut Notices,
) -> Option<VerifiedPlan> {
    let error = match VerifiedPlan::open(record.plan.as_ref()?, charter) {
        Ok(plan) if &plan.plan().group == key => return Some(plan),
        Ok(plan) => format!("it is a plan of group {}", plan.plan().group),
        Err(error) => error.to_string(),
    };
    notices.push(now, WitnessEvent::BadPlan { group: key.clone(), error });
    None
}

/// The changes that are younger than an hour by the wall clock, and until when each
/// counts. One without a time, or from the future, counts as if it were now.
fn changes_that_count(changes_s: &[u64], now: Moment, wall_s: Option<u64>) -> (Vec<u64>, Vec<Moment>) {
    let span = INTERLOCK_SPAN.as_secs();
    let age = |s: u64| match wall_s {
        Some(wall) if s != 0 => wall.saturating_sub(s),
        _ => 0,
    };
    let young = changes_s.iter().copied().filter(|s| age(*s) < span);
    young.map(|s| (s, now.after(Duration::from_secs(span - age(s))))).unzip()
}
