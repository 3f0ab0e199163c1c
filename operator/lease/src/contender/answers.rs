//! What witnesses' answers change.

use super::Contender;
use super::group::{Group, Held, Role, View};
use super::output::{Certified, ContenderEvent, Output, RoundId};
use super::release::ReleaseEvent;
use super::rounds::{Answer, Word};
use super::votes::LEAP;
use regent_core::ids::{Epoch, GroupKey, SiteName};
use regent_core::message::{Ask, Entry, Line, Refusal, Vote};
use regent_core::sign::Envelope;
use regent_core::time::Moment;
use std::time::Duration;

/// Waits are named in whole milliseconds: asked a little later, the answer is yes.
const AFTER_WAIT: Duration = Duration::from_millis(2);

/// A witness that is writing the group's vote has done so soon; each time that it hasn't,
/// it is given twice as long.
const AFTER_BUSY: Duration = Duration::from_millis(8);

/// A lapse is at one moment for all candidates. How long after the one whose turn is before its
/// own a candidate asks then: time in which the better one acquires undisturbed.
const PER_RANK: Duration = Duration::from_millis(50);

impl Contender {
    /// A witness answered. Everything in it is verified; what is not an answer of that
    /// witness to a request under way changes nothing.
    pub fn on_answer(&mut self, now: Moment, witness: &SiteName, answer: &Envelope) -> Vec<Output> {
        let Some(answer) = self.book.answer(&self.charter, witness, answer) else {
            return Vec::new();
        };
        self.heard.insert(witness.clone(), now);
        if self.tags.get(witness).is_none_or(|(round, _)| *round <= answer.round) {
            self.tags.insert(witness.clone(), (answer.round, answer.tag.clone()));
        }
        for word in &answer.words {
            self.hear(now, witness, &answer, word);
        }
        self.take_certificate(now, answer.round, &answer.certified, answer.sent);
        for word in &answer.words {
            self.react(now, &word.entry.group);
        }
        self.hear_release(now, witness, &answer);
        self.flush(now)
    }

    /// Notes a witness's word on one group.
    fn hear(&mut self, now: Moment, witness: &SiteName, answer: &Answer, word: &Word) {
        let site = self.site.clone();
        let Some(group) = self.groups.get_mut(&word.entry.group) else {
            return;
        };
        let line = match answer.ask {
            Ask::Query { line } => Some(line),
            _ => None,
        };
        let binding = line.is_none();
        let refusal = word.exception.as_ref().map(|e| e.reason);
        let granted = binding && refusal.is_none();
        let vote = if granted { Some(Vote { site: site.clone(), epoch: word.entry.epoch }) } else { word.vote.clone() };
        if let Some(vote) = vote {
            group.votes.note(witness, answer.round, vote);
        }
        note_plan(group, now, witness, answer, refusal);
        let wait = match &word.exception {
            None => Some(Duration::ZERO),
            Some(e) => e.wait_ms.map(|ms| Duration::from_millis(ms) + AFTER_WAIT),
        };
        if group.views.get(witness).is_none_or(|v| v.round <= answer.round) {
            let view = View {
                round: answer.round,
                epoch: word.entry.epoch,
                at: now,
                asked: answer.sent,
                line,
                refusal,
                braked: word.braked.map(|for_| now.after(for_)),
                // Counted from when it was asked: asked again then, it is asked as late as it said.
                ready: wait.map(|w| answer.sent.after(w)),
            };
            group.views.insert(witness.clone(), view);
        }
        match &mut group.role {
            Role::Candidate { .. } => group.note_retired(&site, witness),
            Role::Attempting { again, busy, .. } if binding && refusal == Some(Refusal::Busy) => {
                again.get_or_insert(now.after(AFTER_BUSY * 2u32.saturating_pow(*busy)));
                *busy = busy.saturating_add(1);
            }
            // The others' word came when the q-th had begun the attempt.
            Role::Attempting { yes, .. } if !binding && refusal.is_none() => {
                yes.insert(witness.clone());
            }
            _ => {}
        }
        self.climb(now, witness, answer, word, granted);
    }

    /// Brings a witness that lags behind our term nearer, 16 terms at a time (L4.5).
    fn climb(&mut self, now: Moment, witness: &SiteName, answer: &Answer, word: &Word, granted: bool) {
        let Some(group) = self.groups.get(&word.entry.group) else {
            return;
        };
        let Some(goal) = group.asked() else {
            return;
        };
        let leapt = word.exception.as_ref().is_some_and(|e| e.reason == Refusal::TermLeap);
        // A witness that calls a climbing step a leap lies: no second answer to that.
        let first = leapt && word.entry.epoch == goal;
        let further = granted && word.entry.epoch < goal;
        if !first && !further {
            return;
        }
        let vote = group.votes.of(witness).map_or(0, |v| v.epoch.term);
        let epoch = Epoch { term: goal.term.min(vote.saturating_add(LEAP)), site: self.number };
        if epoch < goal && (first || epoch > word.entry.epoch) {
            let entry = Entry { epoch, ..word.entry.clone() };
            self.send_climb(now, answer.ask.clone(), entry, witness.clone());
        } else if further {
            self.renew_now = true;
        }
    }

    /// What a witness's words mean for the group's role.
    fn react(&mut self, now: Moment, key: &GroupKey) {
        let (f, q) = (self.charter.faulty_witnesses as usize, self.charter.quorum());
        let (d, fresh) = (self.charter.lease_duration(), self.charter.renewal_period() * 2);
        let (site, number) = (self.site.clone(), self.number);
        let Some(group) = self.groups.get_mut(key) else {
            return;
        };
        match &group.role {
            Role::Candidate { .. } => {
                let line = group.line(&self.charter, &site);
                let yes = group.yes(now, fresh, line);
                if line != Line::Beside {
                    let rank = group.plan().rank(&site).unwrap_or_default();
                    group.note_yes(now, if yes.len() < q { yes.len() } else { 0 }, f, d, rank);
                }
                if yes.len() >= q && line != Line::Beside {
                    let epoch = group.target(f, (&site, number));
                    let again = Some(now.after(self.stagger));
                    group.role = Role::Attempting { epoch, since: now, raised: now, yes, again, busy: 0 };
                    self.out.push(Output::Event(ContenderEvent::EligibleLearnt { group: key.clone(), at: now }));
                } else {
                    let turn = group.turn(&self.charter, &site);
                    let behind = self.stagger + PER_RANK * u32::try_from(turn).unwrap_or(u32::MAX);
                    let ready = self.queried.and_then(|asked| group.qth_ready(now, q, asked));
                    let again = ready.map(|at| at.after(behind));
                    group.role = Role::Candidate { again };
                }
            }
            Role::Attempting { .. } | Role::Holder { .. } => self.pass_time(now, key),
            Role::Idle(_) | Role::Silent { .. } | Role::Releasing { .. } => {}
        }
    }

    /// Groups of a round that a quorum has granted now.
    fn take_certificate(&mut self, now: Moment, round: RoundId, certified: &[Entry], sent: Moment) {
        let until = sent.after(self.charter.usable_lease());
        if until.passed_for_stopping(now) {
            return;
        }
        let mut granted = Vec::new();
        for entry in certified {
            if self.hold(now, entry, sent, until) {
                granted.push(entry.clone());
            }
        }
        if granted.is_empty() {
            return;
        }
        if let Some((signed, entries)) = self.book.round(round) {
            self.out.push(Output::Certified(Certified { round_id: round, round: signed, entries, granted }));
        }
    }

    /// Takes a certificate for one group; whether it is of use.
    fn hold(&mut self, now: Moment, entry: &Entry, asked: Moment, until: Moment) -> bool {
        let Some(group) = self.groups.get_mut(&entry.group) else {
            return false;
        };
        if Some(entry.epoch) <= group.retired || Some(entry.epoch) < group.certified {
            return false;
        }
        let held = Held { epoch: entry.epoch, until };
        let regained = matches!(group.role, Role::Holder { told: true, .. });
        match &mut group.role {
            Role::Idle(_) => return false,
            Role::Releasing { release, .. } => return !release.is_final(),
            Role::Holder { epoch, held: old, told, .. } => {
                let until = if old.epoch == held.epoch { old.until.max(until) } else { until };
                *old = Held { until, ..held };
                *epoch = entry.epoch.max(*epoch);
                *told = false;
            }
            Role::Candidate { .. } | Role::Attempting { .. } | Role::Silent { .. } => {
                group.role = Role::Holder { epoch: entry.epoch, held, raised: None, told: false };
            }
        }
        group.left_out.clear();
        if regained || group.certified < Some(entry.epoch) {
            group.certified = Some(entry.epoch);
            let (group, epoch) = (entry.group.clone(), entry.epoch);
            self.out.push(Output::Event(ContenderEvent::Certificate { group, epoch, asked, at: now }));
        }
        true
    }

    /// An acknowledged retirement or release.
    fn hear_release(&mut self, now: Moment, witness: &SiteName, answer: &Answer) {
        if answer.refused.is_some() {
            return;
        }
        let quorum = self.charter.quorum();
        let (key, epoch, event) = match &answer.ask {
            Ask::Retire { group, epoch, .. } => {
                let run_out = now.after(self.charter.lease_duration());
                (group, epoch, ReleaseEvent::Retired { witness: witness.clone(), run_out, quorum })
            }
            Ask::Release { group, epoch } => (group, epoch, ReleaseEvent::Dropped { witness: witness.clone(), quorum }),
            Ask::Grant | Ask::Query { .. } => return,
        };
        let current = self.groups.get(key).and_then(Group::release).is_some_and(|r| r.epoch == *epoch);
        if current {
            // A late answer to an earlier phase changes nothing and is no error of anybody's.
            let _ = self.step_release(now, key, event);
        }
    }
}

/// Which plan the witness holds: what it says of it, or that it refuses for lack of one.
fn note_plan(group: &mut Group, now: Moment, witness: &SiteName, answer: &Answer, refusal: Option<Refusal>) {
    let key = &group.plan().group;
    if let Some(version) = answer.holds.get(key) {
        if *version >= group.mark.version {
            if let Some(mark) = answer.plans.get(key) {
                let seen = group.seen.entry(witness.clone()).or_insert(*mark);
                *seen = (*seen).max(*mark);
            }
        } else {
            group.seen.remove(witness);
        }
        group.note_holds(now, witness, *version, answer.start, answer.sent);
    } else if refusal == Some(Refusal::UnknownGroup) {
        group.seen.remove(witness);
        group.holds.remove(witness);
    }
}
