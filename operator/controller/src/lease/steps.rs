//! What is read from a `Takeover` object, and what is written into it.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use regent_api::condition::{self, Truth};
use regent_api::group::{StandbyState, StandbyStatus};
use regent_api::takeover::{COMPLETE, Phase, Step, TakeoverType};
use regent_api::{Takeover, TakeoverStatus};
use regent_core::ids::Epoch;
use regent_lease::takeover::{self, Kind, Record, Runs, Word};
use regent_shell::clock;

/// The wall clock: takeovers are read by people.
fn now() -> Timestamp {
    Timestamp::from_nanosecond(i128::from(clock::realtime_ns())).unwrap_or_default()
}

/// A takeover as its object records it; none if it names no site.
pub(super) fn read(takeover: &Takeover) -> Option<Record> {
    let (spec, status) = (&takeover.spec, takeover.status.as_ref());
    let epoch = |text: Option<&String>| text.and_then(|e| e.parse::<Epoch>().ok());
    Some(Record {
        kind: match spec.kind {
            TakeoverType::Planned => Kind::Planned,
            TakeoverType::Approval => Kind::Approval,
            TakeoverType::Lapse => Kind::Lapse,
        },
        to: spec.to.parse().ok()?,
        approved: spec.approve,
        phase: pure(status.map(|s| s.phase).unwrap_or_default()),
        ends: epoch(status.and_then(|s| s.old_epoch.as_ref())),
        epoch: epoch(status.and_then(|s| s.epoch.as_ref())),
    })
}

/// What a site said last of how a group runs, or would run, there.
pub(super) fn word(said: &StandbyStatus) -> Word {
    Word {
        epoch: said.epoch.as_ref().and_then(|e| e.parse().ok()),
        runs: match said.state {
            StandbyState::Holding => Runs::All,
            StandbyState::Starting if said.armed_pods > 0 => Runs::Part,
            _ => Runs::Nothing,
        },
        nothing_ready: match said.state {
            StandbyState::NameTaken | StandbyState::Blocked | StandbyState::Waiting => {
                Some(format!("{:?}", said.state))
            }
            _ => None,
        },
        message: said.message.clone().unwrap_or_default(),
    }
}

fn pure(phase: Phase) -> takeover::Phase {
    use takeover::Phase as P;
    match phase {
        Phase::Pending => P::Pending,
        Phase::AwaitingApproval => P::AwaitingApproval,
        Phase::Closed => P::Closed,
        Phase::Retired => P::Retired,
        Phase::Stopped => P::Stopped,
        Phase::Released => P::Released,
        Phase::Certified => P::Certified,
        Phase::Started => P::Started,
        Phase::Complete => P::Complete,
        Phase::Failed => P::Failed,
    }
}

fn written(phase: takeover::Phase) -> Phase {
    use takeover::Phase as P;
    match phase {
        P::Pending => Phase::Pending,
        P::AwaitingApproval => Phase::AwaitingApproval,
        P::Closed => Phase::Closed,
        P::Retired => Phase::Retired,
        P::Stopped => Phase::Stopped,
        P::Released => Phase::Released,
        P::Certified => Phase::Certified,
        P::Started => Phase::Started,
        P::Complete => Phase::Complete,
        P::Failed => Phase::Failed,
    }
}

/// Notes which epoch is to end, before its release begins.
pub(super) fn begin(status: &mut TakeoverStatus, ends: Epoch, site: &str) {
    status.from = Some(site.to_owned());
    status.old_epoch = Some(ends.to_string());
    status.timeline.push(Step { event: "Begun".into(), at: Time(now()), site: Some(site.to_owned()), detail: None });
}

/// Notes which epoch an approval is about.
pub(super) fn about(status: &mut TakeoverStatus, ends: Epoch, approved: bool) {
    status.old_epoch = Some(ends.to_string());
    if !approved {
        status.phase = Phase::AwaitingApproval;
    }
}

/// Says what a takeover waits for, where that is news.
pub(super) fn wait(status: &mut TakeoverStatus, message: &str) {
    let reason = format!("{:?}", status.phase);
    condition::set(&mut status.conditions, COMPLETE, Truth::False, &reason, message, None, now());
}

pub(super) fn reach(status: &mut TakeoverStatus, phase: takeover::Phase, epoch: Option<Epoch>, site: &str) {
    status.phase = written(phase);
    let (event, detail) = (format!("{phase:?}"), epoch.map(|e| e.to_string()));
    status.epoch = detail.clone().or(status.epoch.take());
    status.timeline.push(Step { event: event.clone(), at: Time(now()), site: Some(site.to_owned()), detail });
    let done = phase == takeover::Phase::Complete;
    let message = if done { "the group has moved, and all of its pods are ready" } else { "the group is on its way" };
    condition::set(&mut status.conditions, COMPLETE, done.into(), &event, message, None, now());
}

pub(super) fn fail(status: &mut TakeoverStatus, reason: &str, message: &str) {
    status.phase = Phase::Failed;
    condition::set(&mut status.conditions, COMPLETE, Truth::False, reason, message, None, now());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_standby_says_of_itself_is_read_as_what_runs_there_and_what_would() {
        use StandbyState as S;
        let table = [
            (S::Holding, 0, Runs::All, None),
            (S::Starting, 1, Runs::Part, None),
            (S::Starting, 0, Runs::Nothing, None),
            (S::Armed, 3, Runs::Nothing, None),
            (S::Preparing, 1, Runs::Nothing, None),
            (S::Blocked, 2, Runs::Nothing, Some("Blocked")),
            (S::Waiting, 0, Runs::Nothing, Some("Waiting")),
            (S::NameTaken, 0, Runs::Nothing, Some("NameTaken")),
        ];
        for (state, armed_pods, runs, nothing_ready) in table {
            let said = word(&StandbyStatus { state, armed_pods, ..StandbyStatus::default() });
            assert_eq!((said.runs, said.nothing_ready.as_deref()), (runs, nothing_ready), "{state:?}");
        }
    }

    #[test]
    fn a_phase_is_written_and_read_back_as_the_same() {
        for phase in [Phase::Pending, Phase::AwaitingApproval, Phase::Closed, Phase::Retired, Phase::Stopped] {
            assert_eq!(written(pure(phase)), phase);
        }
        for phase in [Phase::Released, Phase::Certified, Phase::Started, Phase::Complete, Phase::Failed] {
            assert_eq!(written(pure(phase)), phase);
        }
    }
}
