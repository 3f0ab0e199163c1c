//! How far a takeover is, and what is written of it: functions of what is known.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use regent_api::condition::{self, Truth};
use regent_api::group::{StandbyState, StandbyStatus};
use regent_api::takeover::{COMPLETE, Phase, Step};
use regent_api::{Takeover, TakeoverStatus};
use regent_core::ids::{Epoch, SiteName};
use regent_core::message::Vote;
use regent_lease::contender::ReleaseStage;
use regent_shell::clock;

/// What comes next for a takeover.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing.
    Stay,
    /// What it waits for.
    Waits(String),
    /// This phase, with the new holder's epoch where it is known.
    Reached(Phase, Option<String>),
    /// It can't go on.
    Failed { reason: &'static str, message: String },
}

/// The wall clock: takeovers are read by people.
pub(super) fn now() -> Timestamp {
    Timestamp::from_nanosecond(i128::from(clock::realtime_ns())).unwrap_or_default()
}

/// What comes next for an approval.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Approval {
    Wait,
    /// It is about the end of this epoch, and of no later one.
    About(Epoch),
    /// This site has acquired the group.
    Took(Epoch),
    Outdated(String),
}

/// An approval lets a standby end one epoch: the one that was in force when it was made.
/// Left lying around, it must not let the group move at some later lapse.
pub(super) fn approval(
    takeover: &Takeover,
    site: &SiteName,
    certified: Option<Epoch>,
    known: Option<&Vote>,
) -> Approval {
    let Some(ends) = takeover.status.as_ref().and_then(|s| s.old_epoch.as_ref()?.parse().ok()) else {
        return known.map_or(Approval::Wait, |vote| Approval::About(vote.epoch));
    };
    match (certified.filter(|epoch| *epoch > ends && takeover.spec.approve), known) {
        (Some(epoch), _) => Approval::Took(epoch),
        (None, Some(vote)) if vote.epoch > ends && &vote.site != site => Approval::Outdated(format!(
            "it was about epoch {ends}, and site {} holds the group under epoch {} by now; make another Takeover",
            vote.site, vote.epoch
        )),
        _ => Approval::Wait,
    }
}

/// The phase that a takeover has reached by where the core's release is.
pub(super) fn reached(release: ReleaseStage) -> Phase {
    match release {
        ReleaseStage::ClosingList => Phase::Pending,
        ReleaseStage::Retiring => Phase::Closed,
        ReleaseStage::Stopping => Phase::Retired,
        ReleaseStage::Releasing => Phase::Stopped,
        ReleaseStage::Released => Phase::Released,
    }
}

/// What the new holder's own word on its pods makes of a takeover that has its certificate. A
/// word about an older epoch says nothing.
pub(super) fn started(phase: Phase, epoch: Option<Epoch>, said: Option<&StandbyStatus>) -> Next {
    let of_epoch = |s: &&StandbyStatus| s.epoch.as_ref().and_then(|e| e.parse::<Epoch>().ok()) >= epoch;
    let Some(said) = said.filter(of_epoch) else {
        return Next::Waits("the new holder has not said yet how it runs".into());
    };
    let message = said.message.clone().unwrap_or_default();
    match said.state {
        StandbyState::Holding => Next::Reached(Phase::Complete, None),
        StandbyState::Starting if said.armed_pods > 0 && phase == Phase::Certified => {
            Next::Reached(Phase::Started, None)
        }
        _ => Next::Waits(message),
    }
}

/// Says what a takeover waits for, where that is news.
pub(super) fn wait(status: &mut TakeoverStatus, message: &str) {
    let reason = format!("{:?}", status.phase);
    condition::set(&mut status.conditions, COMPLETE, Truth::False, &reason, message, None, now());
}

pub(super) fn step(status: &mut TakeoverStatus, phase: Phase, site: &str, detail: Option<&str>) {
    status.phase = phase;
    let (event, site, detail) = (format!("{phase:?}"), Some(site.to_owned()), detail.map(str::to_owned));
    status.timeline.push(Step { event, at: Time(now()), site, detail });
    let done = phase == Phase::Complete;
    let message = if done { "the group has moved, and all of its pods are ready" } else { "the group is on its way" };
    condition::set(&mut status.conditions, COMPLETE, done.into(), &format!("{phase:?}"), message, None, now());
}

pub(super) fn fail(status: &mut TakeoverStatus, reason: &str, message: &str) {
    status.phase = Phase::Failed;
    condition::set(&mut status.conditions, COMPLETE, Truth::False, reason, message, None, now());
}

#[cfg(test)]
mod tests {
    use regent_api::{TakeoverSpec, TakeoverType};

    use super::*;

    fn epoch(text: &str) -> Epoch {
        text.parse().unwrap()
    }

    #[test]
    fn a_takeover_is_complete_only_when_the_new_holder_says_so_of_this_epoch() {
        let next = |state, armed_pods, said: &str, phase| {
            let (epoch_said, message) = (Some(said.to_owned()), Some("1 of 3 pods are ready: pod a".to_owned()));
            let entry = StandbyStatus { state, armed_pods, epoch: epoch_said, message, ..StandbyStatus::default() };
            started(phase, Some(epoch("3.2")), Some(&entry))
        };
        assert!(matches!(
            next(StandbyState::Holding, 3, "3.2", Phase::Certified),
            Next::Reached(Phase::Complete, None)
        ));
        assert!(matches!(
            next(StandbyState::Starting, 1, "3.2", Phase::Certified),
            Next::Reached(Phase::Started, None)
        ));
        let waits = |n| matches!(n, Next::Waits(message) if message.starts_with("1 of 3 pods are ready"));
        assert!(waits(next(StandbyState::Starting, 1, "3.2", Phase::Started)));
        assert!(waits(next(StandbyState::Starting, 0, "3.2", Phase::Certified)));
        assert!(
            matches!(next(StandbyState::Holding, 3, "1.2", Phase::Certified), Next::Waits(_)),
            "an older run of it"
        );
        assert!(matches!(started(Phase::Certified, Some(epoch("3.2")), None), Next::Waits(_)));
    }

    fn approving(old_epoch: Option<&str>) -> Takeover {
        let (group, to) = ("ireland/shop".into(), "france".into());
        let spec = TakeoverSpec { group, to, kind: TakeoverType::Approval, reason: None, approve: true };
        let mut takeover = Takeover::new("t", spec);
        takeover.status = Some(TakeoverStatus { old_epoch: old_epoch.map(str::to_owned), ..TakeoverStatus::default() });
        takeover
    }

    #[test]
    fn an_approval_ends_the_epoch_that_it_was_made_in_and_no_later_one() {
        let site: SiteName = "france".parse().unwrap();
        let vote = |site: &str, e: &str| Vote { site: site.parse().unwrap(), epoch: epoch(e) };
        let next = |old, certified: Option<&str>, known: Option<Vote>| {
            approval(&approving(old), &site, certified.map(epoch), known.as_ref())
        };
        assert_eq!(next(None, None, None), Approval::Wait);
        assert_eq!(next(None, None, Some(vote("ireland", "3.1"))), Approval::About(epoch("3.1")));
        assert_eq!(next(Some("3.1"), None, Some(vote("ireland", "3.1"))), Approval::Wait);
        assert_eq!(next(Some("3.1"), None, Some(vote("france", "4.2"))), Approval::Wait);
        assert_eq!(next(Some("3.1"), Some("4.2"), Some(vote("france", "4.2"))), Approval::Took(epoch("4.2")));
        let outdated = next(Some("3.1"), None, Some(vote("germany", "4.3")));
        assert!(matches!(outdated, Approval::Outdated(why) if why.contains("germany") && why.contains("4.3")));
    }
}
