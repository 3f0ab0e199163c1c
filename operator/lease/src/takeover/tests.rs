use std::collections::BTreeMap;

use regent_core::fixture::Federation;
use regent_core::message::Vote;
use regent_core::plan::Trigger;

use super::*;
use crate::contender::Believed;

fn epoch(text: &str) -> Epoch {
    text.parse().unwrap()
}

fn record(kind: Kind, phase: Phase, ends: Option<&str>, runs: Option<&str>) -> Record {
    let to = "fr".parse().unwrap();
    Record { kind, to, approved: true, phase, ends: ends.map(epoch), epoch: runs.map(epoch) }
}

fn status(role: RoleName, certified: Option<&str>, holder: Option<(&str, &str)>) -> GroupStatus {
    let vote = holder.map(|(site, e)| Vote { site: site.parse().unwrap(), epoch: epoch(e) });
    GroupStatus {
        group: "ie/shop".parse().unwrap(),
        role,
        idle: None,
        held_back: None,
        epoch: None,
        certified: certified.map(epoch),
        left_ms: None,
        release: None,
        plan_version: 1,
        believed: vote.map(|vote| Believed { vote, kept: true, fresh: true }),
        witnesses: BTreeMap::new(),
    }
}

/// What is known at home of a Protected group whose plan names `fr` and `de`.
struct Known {
    charter: Charter,
    here: SiteName,
    plan: VerifiedPlan,
}

impl Known {
    fn new() -> Self {
        let federation = Federation::new();
        let signed = federation.plan(1, Protection::Protected, Trigger::Automatic);
        let plan = VerifiedPlan::open(&signed, &federation.charter).unwrap();
        Self { charter: federation.charter, here: "ie".parse().unwrap(), plan }
    }

    fn facts<'a>(&'a self, status: Option<&'a GroupStatus>) -> Facts<'a> {
        let group = &self.plan.plan().group;
        let Self { charter, here, plan } = self;
        Facts { charter, here, group, plan: Some(plan), status, adopting: false, released: false, word: None }
    }
}

fn reason(next: &Next) -> &'static str {
    match next {
        Next::Failed { reason, .. } => reason,
        _ => "",
    }
}

#[test]
fn a_planned_move_goes_through_every_step_of_the_release_and_waits_for_the_successor() {
    let known = Known::new();
    let holder = status(RoleName::Holder, Some("1.1"), Some(("ie", "1.1")));
    let next_of =
        |phase, ends, status: &GroupStatus| next(&record(Kind::Planned, phase, ends, None), &known.facts(Some(status)));
    assert_eq!(next_of(Phase::Pending, None, &holder), Next::Begin(epoch("1.1")));

    let mut releasing = GroupStatus { role: RoleName::Releasing, ..holder };
    let steps = [
        (ReleaseStage::ClosingList, Phase::Pending, Next::Stay),
        (ReleaseStage::Retiring, Phase::Pending, Next::Reached(Phase::Closed, None)),
        (ReleaseStage::Stopping, Phase::Closed, Next::Reached(Phase::Retired, None)),
        (ReleaseStage::Releasing, Phase::Retired, Next::Reached(Phase::Stopped, None)),
        (ReleaseStage::Releasing, Phase::Stopped, Next::Stay),
        (ReleaseStage::Released, Phase::Stopped, Next::Reached(Phase::Released, None)),
    ];
    for (stage, phase, wanted) in steps {
        releasing.release = Some(stage);
        assert_eq!(next_of(phase, Some("1.1"), &releasing), wanted, "{stage:?} at {phase:?}");
    }

    let after = |holder| next_of(Phase::Released, Some("1.1"), &status(RoleName::Candidate, Some("1.1"), holder));
    assert_eq!(after(Some(("ie", "1.1"))), Next::Stay);
    assert_eq!(after(Some(("fr", "2.2"))), Next::Reached(Phase::Certified, Some(epoch("2.2"))));
    assert_eq!(reason(&after(Some(("de", "2.3")))), "WentElsewhere");
}

#[test]
fn a_move_that_could_not_end_well_is_refused_before_it_begins() {
    let known = Known::new();
    let holder = status(RoleName::Holder, Some("1.1"), Some(("ie", "1.1")));
    let pending = record(Kind::Planned, Phase::Pending, None, None);
    let to = |site: &str| Record { to: site.parse().unwrap(), ..pending.clone() };
    let facts = known.facts(Some(&holder));
    assert_eq!(reason(&next(&to("ie"), &facts)), "AlreadyThere");
    assert_eq!(reason(&next(&to("lu"), &facts)), "NotAStandby");
    assert_eq!(next(&pending, &Facts { adopting: true, ..facts }), Next::Stay, "the list is closed by another");
    let empty =
        Word { epoch: None, runs: Runs::Nothing, nothing_ready: Some("NameTaken".into()), message: String::new() };
    assert_eq!(reason(&next(&pending, &Facts { word: Some(&empty), ..facts })), "NotReady");
    let candidate = status(RoleName::Candidate, None, Some(("fr", "2.2")));
    let elsewhere = next(&pending, &known.facts(Some(&candidate)));
    assert!(matches!(elsewhere, Next::Failed { reason: "NotHolder", message } if message.contains("site fr does")));
    assert_eq!(reason(&next(&pending, &known.facts(None))), "UnknownGroup");
}

#[test]
fn a_replica_goes_on_where_another_died_unless_the_epoch_is_not_held_any_more() {
    let known = Known::new();
    let begun = |phase| record(Kind::Planned, phase, Some("1.1"), None);
    let holder = status(RoleName::Holder, Some("1.1"), Some(("ie", "1.1")));
    assert_eq!(next(&begun(Phase::Pending), &known.facts(Some(&holder))), Next::GoOn(epoch("1.1")));
    let raised = status(RoleName::Holder, Some("3.1"), Some(("ie", "3.1")));
    assert_eq!(reason(&next(&begun(Phase::Pending), &known.facts(Some(&raised)))), "Replaced");
    // What was retired can't be kept, whatever this replica holds.
    assert_eq!(next(&begun(Phase::Retired), &known.facts(Some(&raised))), Next::GoOn(epoch("1.1")));
    let done = Facts { released: true, ..known.facts(Some(&raised)) };
    assert_eq!(next(&begun(Phase::Stopped), &done), Next::Reached(Phase::Released, None));
    // Whoever gives it up opens the list that it may have closed.
    assert!(begun(Phase::Pending).may_have_closed() && begun(Phase::Stopped).may_have_closed());
    assert!(!begun(Phase::Released).may_have_closed());
    assert!(!record(Kind::Planned, Phase::Pending, None, None).may_have_closed());
}

#[test]
fn a_takeover_is_complete_only_when_the_new_holder_says_so_of_this_epoch() {
    let known = Known::new();
    let gone = status(RoleName::Candidate, Some("1.1"), Some(("fr", "3.2")));
    let next_of = |runs, said: &str, phase| {
        let message = "1 of 3 pods are ready: pod a".to_owned();
        let word = Word { epoch: Some(epoch(said)), runs, nothing_ready: None, message };
        let taken = record(Kind::Lapse, phase, Some("1.1"), Some("3.2"));
        next(&taken, &Facts { word: Some(&word), ..known.facts(Some(&gone)) })
    };
    assert_eq!(next_of(Runs::All, "3.2", Phase::Certified), Next::Reached(Phase::Complete, None));
    assert_eq!(next_of(Runs::Part, "3.2", Phase::Certified), Next::Reached(Phase::Started, None));
    let waits = |next| matches!(next, Next::Waits(message) if message.starts_with("1 of 3 pods are ready"));
    assert!(waits(next_of(Runs::Part, "3.2", Phase::Started)));
    assert!(waits(next_of(Runs::Nothing, "3.2", Phase::Certified)));
    assert!(matches!(next_of(Runs::All, "1.2", Phase::Certified), Next::Waits(_)), "an older run of it");

    let lapsed = record(Kind::Lapse, Phase::Certified, Some("1.1"), Some("3.2"));
    assert!(matches!(next(&lapsed, &known.facts(Some(&gone))), Next::Waits(_)));
    let overtaken = status(RoleName::Candidate, None, Some(("de", "4.3")));
    assert_eq!(reason(&next(&lapsed, &known.facts(Some(&overtaken)))), "Overtaken");
}

#[test]
fn a_site_that_its_plan_left_out_meanwhile_goes_by_the_successor_s_word_alone() {
    let known = Known::new();
    let word = |e: &str| Word { epoch: Some(epoch(e)), runs: Runs::All, nothing_ready: None, message: String::new() };
    let next_of = |phase, runs, word: &Word| {
        next(&record(Kind::Planned, phase, Some("2.1"), runs), &Facts { word: Some(word), ..known.facts(None) })
    };
    assert_eq!(next_of(Phase::Released, None, &word("1.2")), Next::Stay);
    assert_eq!(next_of(Phase::Released, None, &word("3.2")), Next::Reached(Phase::Certified, Some(epoch("3.2"))));
    assert_eq!(next_of(Phase::Certified, Some("3.2"), &word("3.2")), Next::Reached(Phase::Complete, None));
}

#[test]
fn an_approval_ends_the_epoch_that_it_was_made_in_and_no_later_one() {
    let known = Known { here: "fr".parse().unwrap(), ..Known::new() };
    let next_of = |ends, certified: Option<&str>, holder| {
        let role = if certified.is_some() { RoleName::Holder } else { RoleName::Candidate };
        let status = status(role, certified, holder);
        next(&record(Kind::Approval, Phase::Pending, ends, None), &known.facts(Some(&status)))
    };
    assert_eq!(next_of(None, None, None), Next::Stay);
    assert_eq!(next_of(None, None, Some(("ie", "3.1"))), Next::About(epoch("3.1")));
    assert_eq!(next_of(Some("3.1"), None, Some(("ie", "3.1"))), Next::Stay);
    assert_eq!(next_of(Some("3.1"), None, Some(("fr", "4.2"))), Next::Stay);
    let took = Next::Reached(Phase::Certified, Some(epoch("4.2")));
    assert_eq!(next_of(Some("3.1"), Some("4.2"), Some(("fr", "4.2"))), took);
    let outdated = next_of(Some("3.1"), None, Some(("de", "4.3")));
    assert!(
        matches!(outdated, Next::Failed { reason: "Outdated", message } if message.contains("de") && message.contains("4.3"))
    );
}
