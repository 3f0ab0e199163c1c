//! From `Observed` to `Protected`, one step after the other.
//!
//! ```text
//!   every pod has its gate -> the list of nodes closes -> every listed guard confirms
//!     -> the plan that says Protected is registered -> q witnesses hold it -> the list opens
//! ```
//!
//! What is asked of a guard or a witness twice does no harm, so the steps are found anew
//! from the facts at each look, by whichever replica leads.

/// What is known when the next step is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// The spec asks for Protected.
    pub wanted: bool,
    /// The spec can be followed.
    pub valid: bool,
    /// Standbys of the plan.
    pub standbys: usize,
    /// This site holds the group by a certificate that runs.
    pub holds: bool,
    /// Pods of the group without a gate.
    pub ungated: usize,
    /// The plan says Protected.
    pub planned: bool,
    /// q witnesses hold that plan at one time.
    pub registered: bool,
    /// The way to Protected has been gone to its end before.
    pub done: bool,
    /// The list was closed on the way to Protected, and has not been opened since.
    pub closed: bool,
}

/// The next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing to do.
    Rest,
    /// Wait for something.
    Wait(Reason),
    /// Close the list, have every listed guard confirm, then register the plan.
    Confirm,
    /// Open the list: it is done.
    Finish,
}

/// Why a group is not Protected: the reason of that condition, from which the next leader
/// learns whether the list was closed on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Nobody asks for it.
    Observed,
    /// The spec can't be followed.
    InvalidSpec,
    /// The plan has no standby.
    NoStandby,
    /// Home holds no certificate.
    NoCertificate,
    /// Pods run without a gate.
    PodsWithoutGate,
    /// Guards confirm: the list may be closed by us.
    Confirming,
    /// Witnesses take the plan: the list is closed by us.
    Registering,
    /// A guard has not confirmed.
    GuardSilent,
}

impl Reason {
    /// As the condition says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Observed => "Observed",
            Self::InvalidSpec => "InvalidSpec",
            Self::NoStandby => "NoStandby",
            Self::NoCertificate => "NoCertificate",
            Self::PodsWithoutGate => "PodsWithoutGate",
            Self::Confirming => "Confirming",
            Self::Registering => "Registering",
            Self::GuardSilent => "GuardSilent",
        }
    }

    /// Whether a closed list was closed on the way to Protected, if this is what was said last.
    pub fn may_have_closed(said: &str) -> bool {
        [Self::Confirming, Self::Registering].iter().any(|r| r.as_str() == said)
    }
}

/// Chooses the next step.
pub fn next(facts: &Facts) -> Step {
    match facts {
        Facts { planned: true, done: true, .. } => Step::Rest,
        Facts { planned: true, registered: true, .. } => Step::Finish,
        Facts { planned: true, .. } => Step::Wait(Reason::Registering),
        Facts { wanted: false, .. } => Step::Rest,
        Facts { valid: false, .. } => Step::Wait(Reason::InvalidSpec),
        Facts { standbys: 0, .. } => Step::Wait(Reason::NoStandby),
        Facts { holds: false, .. } => Step::Wait(Reason::NoCertificate),
        Facts { ungated: 1.., .. } => Step::Wait(Reason::PodsWithoutGate),
        Facts { .. } => Step::Confirm,
    }
}

/// Whether a list that was closed on the way must be opened although the end isn't
/// reached: what keeps a group back must not keep its new nodes closed.
pub fn must_open(facts: &Facts, step: Step) -> bool {
    facts.closed && !facts.planned && matches!(step, Step::Rest | Step::Wait(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: Facts = Facts {
        wanted: true,
        valid: true,
        standbys: 2,
        holds: true,
        ungated: 0,
        planned: false,
        registered: false,
        done: false,
        closed: false,
    };

    #[test]
    fn each_step_waits_for_the_one_before() {
        let cases = [
            (Facts { wanted: false, ..READY }, Step::Rest),
            (Facts { valid: false, ..READY }, Step::Wait(Reason::InvalidSpec)),
            (Facts { standbys: 0, ..READY }, Step::Wait(Reason::NoStandby)),
            (Facts { holds: false, ..READY }, Step::Wait(Reason::NoCertificate)),
            (Facts { ungated: 1, ..READY }, Step::Wait(Reason::PodsWithoutGate)),
            (READY, Step::Confirm),
            (Facts { planned: true, closed: true, ..READY }, Step::Wait(Reason::Registering)),
            (Facts { planned: true, registered: true, closed: true, ..READY }, Step::Finish),
            (Facts { planned: true, registered: true, done: true, ..READY }, Step::Rest),
        ];
        for (facts, step) in cases {
            assert_eq!(next(&facts), step, "{facts:?}");
        }
    }

    #[test]
    fn a_protected_group_never_goes_back_whatever_its_spec_says_now() {
        for wanted in [true, false] {
            for valid in [true, false] {
                let facts =
                    Facts { wanted, valid, standbys: 0, holds: false, planned: true, registered: true, ..READY };
                assert_eq!(next(&facts), Step::Finish);
            }
        }
    }

    #[test]
    fn a_list_that_was_closed_opens_again_when_the_way_is_barred() {
        let barred = Facts { ungated: 1, closed: true, ..READY };
        assert!(must_open(&barred, next(&barred)));
        let under_way = Facts { closed: true, ..READY };
        assert!(!must_open(&under_way, next(&under_way)));
        let registering = Facts { planned: true, closed: true, ..READY };
        assert!(!must_open(&registering, next(&registering)));
    }
}
