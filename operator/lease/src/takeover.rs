//! How far a change of holder is, and what comes next.
//!
//! ```text
//!   Pending --released by the contender, step by step--> Closed --> Retired --> Stopped --> Released
//!                                                     witnesses name the successor --> Certified
//!                                                        the successor runs the group --> Complete
//! ```
//!
//! The epoch that is to end is noted in the record before its release begins, so that
//! another replica takes up where one died. Everything is found anew from the record and
//! from what is known at each look, by whichever replica leads.

use regent_core::charter::Charter;
use regent_core::ids::{Epoch, GroupKey, SiteName};
use regent_core::plan::{Protection, VerifiedPlan};

use crate::contender::{GroupStatus, ReleaseStage, RoleName};

#[cfg(test)]
mod tests;

/// Why there is a takeover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The holder releases the group.
    Planned,
    /// A person lets a standby take over after a lapse.
    Approval,
    /// A standby took over after a lapse.
    Lapse,
}

/// How far it is, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Nobody has begun.
    Pending,
    /// Someone has to approve.
    AwaitingApproval,
    /// The list of nodes is closed (L12).
    Closed,
    /// The epoch is retired at a quorum.
    Retired,
    /// Every listed node has stopped the group.
    Stopped,
    /// The holder has released it, or its lease has lapsed.
    Released,
    /// The new holder has a certificate.
    Certified,
    /// The first container runs.
    Started,
    /// All pods are ready.
    Complete,
    /// It can't go on.
    Failed,
}

/// A takeover as its object records it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Why there is one.
    pub kind: Kind,
    /// The site that takes over.
    pub to: SiteName,
    /// Somebody has approved.
    pub approved: bool,
    /// How far it is.
    pub phase: Phase,
    /// The epoch that ends, once it is noted.
    pub ends: Option<Epoch>,
    /// The epoch under which the group runs then, once it is known.
    pub epoch: Option<Epoch>,
}

impl Record {
    /// Whether there is anything left to do.
    pub fn is_open(&self) -> bool {
        self.phase < Phase::Complete
    }

    /// Whether this takeover may have left the list of nodes closed, so that whoever gives it
    /// up must open it: no site counts on its nodes to have stopped before it is released.
    pub fn may_have_closed(&self) -> bool {
        self.kind == Kind::Planned && self.ends.is_some() && self.phase < Phase::Released
    }
}

/// What the site that takes over said last of the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// Of which epoch.
    pub epoch: Option<Epoch>,
    /// What runs there.
    pub runs: Runs,
    /// Why nothing would run there, in a word.
    pub nothing_ready: Option<String>,
    /// More about it, for people.
    pub message: String,
}

/// How much of a group runs at its holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runs {
    /// Nothing that is ready by its own probes.
    Nothing,
    /// Some pods.
    Part,
    /// All of it.
    All,
}

/// What is known when the next step is chosen.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The charter in force.
    pub charter: &'a Charter,
    /// This site.
    pub here: &'a SiteName,
    /// Which group.
    pub group: &'a GroupKey,
    /// The newest plan at this site.
    pub plan: Option<&'a VerifiedPlan>,
    /// The group as this replica sees it; none: no plan names this site, nor does it hold it.
    pub status: Option<&'a GroupStatus>,
    /// Home has the list of nodes closed on the way to `Protected`. It opens the list at the
    /// end of that way, which must not be in the middle of a release (L12).
    pub adopting: bool,
    /// This replica has carried the release of the epoch that ends to its end.
    pub released: bool,
    /// What the site that takes over said last.
    pub word: Option<&'a Word>,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Nothing.
    Stay,
    /// What it waits for.
    Waits(String),
    /// Note that this epoch is to end, then release it.
    Begin(Epoch),
    /// Release it: a replica that died had begun.
    GoOn(Epoch),
    /// Note that an approval is about the end of this epoch, and of no later one.
    About(Epoch),
    /// This phase, with the new holder's epoch where it is known.
    Reached(Phase, Option<Epoch>),
    /// It can't go on.
    Failed {
        /// In a word.
        reason: &'static str,
        /// What to do.
        message: String,
    },
}

fn failed(reason: &'static str, message: String) -> Next {
    Next::Failed { reason, message }
}

/// Chooses the next step.
pub fn next(record: &Record, facts: &Facts<'_>) -> Next {
    let Some(status) = facts.status else { return without_plan(record, facts) };
    match (record.kind, record.ends) {
        _ if !record.is_open() => Next::Stay,
        (Kind::Planned, None) => begin(record, facts, status),
        (Kind::Planned, Some(ends)) => planned(record, ends, facts, status),
        (Kind::Approval, ends) if record.epoch.is_none() => approval(record, ends, facts, status),
        (Kind::Approval | Kind::Lapse, _) => runs_there(record, facts, status),
    }
}

/// Checks that the move can be made.
fn begin(record: &Record, facts: &Facts<'_>, status: &GroupStatus) -> Next {
    if facts.adopting {
        return Next::Stay;
    }
    if let Some((reason, message)) = obstacle(&record.to, facts, status) {
        return failed(reason, message);
    }
    status.certified.map_or(Next::Stay, Next::Begin)
}

/// Why a group can't be given to a site.
fn obstacle(to: &SiteName, facts: &Facts<'_>, status: &GroupStatus) -> Option<(&'static str, String)> {
    let Facts { here, group, .. } = facts;
    let Some(plan) = facts.plan else {
        return Some(("UnknownGroup", format!("this site has no plan of group {group}")));
    };
    if status.role != RoleName::Holder {
        let holder = status.holder().map_or_else(|| "nobody that is known".to_owned(), |v| format!("site {}", v.site));
        let message = format!("site {here} does not hold group {group}, {holder} does; make the Takeover there");
        return Some(("NotHolder", message));
    }
    if to == *here {
        return Some(("AlreadyThere", format!("group {group} is at site {here} already")));
    }
    if plan.plan().protection != Protection::Protected {
        let message = format!(
            "group {group} is not Protected, so no other site may hold it; run `kubectl regent protect {}`",
            group.name
        );
        return Some(("NotProtected", message));
    }
    if plan.rank(to).is_none() {
        let message = format!(
            "site {to} is neither home nor a standby of group {group} that has countersigned its plan; name one that is"
        );
        return Some(("NotAStandby", message));
    }
    if !plan.is_lawful(to, facts.charter) {
        let message = format!(
            "group {group} may not run at site {to}; add its country to spec.countries of the FailoverGroup, or name another standby"
        );
        return Some(("Unlawful", message));
    }
    let state = facts.word.and_then(|w| w.nothing_ready.as_ref())?;
    let message = format!(
        "site {to} has nothing ready for group {group} ({state}): see standbys in the status of its FailoverGroup; nobody would run it"
    );
    Some(("NotReady", message))
}

fn planned(record: &Record, ends: Epoch, facts: &Facts<'_>, status: &GroupStatus) -> Next {
    match (record.phase, status.release) {
        (phase, Some(stage)) => match reached(stage) {
            Some(to) if to > phase => Next::Reached(to, None),
            _ => Next::Stay,
        },
        (phase, None) if phase < Phase::Released => go_on(record, ends, facts, status),
        (Phase::Released, None) => certified(record, ends, status),
        (_, None) => runs_there(record, facts, status),
    }
}

/// The phase that follows from where the contender's release is.
fn reached(stage: ReleaseStage) -> Option<Phase> {
    match stage {
        ReleaseStage::ClosingList => None,
        ReleaseStage::Retiring => Some(Phase::Closed),
        ReleaseStage::Stopping => Some(Phase::Retired),
        ReleaseStage::Releasing => Some(Phase::Stopped),
        ReleaseStage::Released => Some(Phase::Released),
    }
}

/// The contender knows of no release, but the record says that one was begun.
fn go_on(record: &Record, ends: Epoch, facts: &Facts<'_>, status: &GroupStatus) -> Next {
    // Done between two looks: a candidate again, whose witnesses have the epoch retired.
    if facts.released {
        return Next::Reached(Phase::Released, None);
    }
    if record.phase == Phase::Pending && status.role == RoleName::Holder && status.certified != Some(ends) {
        let message = format!("epoch {ends} was replaced before its release began; make another Takeover");
        return failed("Replaced", message);
    }
    Next::GoOn(ends)
}

/// Whether the successor has acquired the group.
fn certified(record: &Record, ends: Epoch, status: &GroupStatus) -> Next {
    match status.holder().filter(|vote| vote.epoch > ends) {
        Some(vote) if vote.site == record.to => Next::Reached(Phase::Certified, Some(vote.epoch)),
        Some(vote) => {
            let message =
                format!("site {} has acquired the group, not {}; see its FailoverGroup", vote.site, record.to);
            failed("WentElsewhere", message)
        }
        None => Next::Stay,
    }
}

/// How the new holder runs the group, as its own site says: complete is what is ready by its
/// own probes.
fn runs_there(record: &Record, facts: &Facts<'_>, status: &GroupStatus) -> Next {
    let later = status.holder().filter(|v| v.site != record.to && Some(v.epoch) > record.epoch);
    if let Some(vote) = later {
        let message = format!("site {} has acquired the group under epoch {} since", vote.site, vote.epoch);
        return failed("Overtaken", message);
    }
    started(record, facts.word)
}

/// What the new holder's own word on its pods makes of a takeover that has its certificate. A
/// word about an older epoch says nothing.
fn started(record: &Record, word: Option<&Word>) -> Next {
    let Some(word) = word.filter(|w| w.epoch >= record.epoch) else {
        return Next::Waits("the new holder has not said yet how it runs".into());
    };
    match word.runs {
        Runs::All => Next::Reached(Phase::Complete, None),
        Runs::Part if record.phase == Phase::Certified => Next::Reached(Phase::Started, None),
        Runs::Part | Runs::Nothing => Next::Waits(word.message.clone()),
    }
}

/// At a site that is in the group's plan no more: the plan that left it out took effect when
/// the group was elsewhere, and the successor's word alone is left.
fn without_plan(record: &Record, facts: &Facts<'_>) -> Next {
    let said = facts.word.and_then(|w| w.epoch);
    match record.phase {
        Phase::Released if said > record.ends => Next::Reached(Phase::Certified, said),
        Phase::Released => Next::Stay,
        Phase::Certified | Phase::Started => started(record, facts.word),
        Phase::Complete | Phase::Failed => Next::Stay,
        _ => {
            let group = facts.group;
            let message = format!("no plan of group {group} names this site; make the Takeover at the holder's site");
            failed("UnknownGroup", message)
        }
    }
}

/// An approval lets a standby end one epoch: the one that was in force when it was made.
/// Left lying around, it must not let the group move at some later lapse.
fn approval(record: &Record, ends: Option<Epoch>, facts: &Facts<'_>, status: &GroupStatus) -> Next {
    let Some(ends) = ends else { return status.holder().map_or(Next::Stay, |vote| Next::About(vote.epoch)) };
    let took = status.certified.filter(|epoch| status.role == RoleName::Holder && *epoch > ends && record.approved);
    match (took, status.holder()) {
        (Some(epoch), _) => Next::Reached(Phase::Certified, Some(epoch)),
        (None, Some(vote)) if vote.epoch > ends && &vote.site != facts.here => {
            let message = format!(
                "it was about epoch {ends}, and site {} holds the group under epoch {} by now; make another Takeover",
                vote.site, vote.epoch
            );
            failed("Outdated", message)
        }
        _ => Next::Stay,
    }
}
