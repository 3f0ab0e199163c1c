//! One lying witness, and something else that goes wrong.

use super::*;

const T0: u64 = 100_000;

/// It names a vote that nobody gave.
const INVENTS: Liar = |_, submission, grant, _| {
    for entry in &submission.entries {
        grant.votes.insert(entry.group.clone(), vote("fr", "9.2"));
    }
};

/// It refuses everything.
const REFUSES: Liar = |_, submission, grant, _| {
    for entry in &submission.entries {
        let (group, reason) = (entry.group.clone(), Refusal::NoTrigger);
        grant.exceptions.push(Exception { group, reason, wait_ms: Some(1) });
    }
};

/// Home's operators restart, as in an upgrade. The times without a certificate there.
fn approval_restart(liar: Option<Liar>) -> Vec<(u64, u64)> {
    let mut script = Script::new(T0);
    let plans = [Plan { trigger: Trigger::Approval, ..plan("ie/shop", 1, 5_000) }];
    script.join("ie", 0, &plans);
    script.join("ie", 1, &plans);
    script.run_until(T0 + 10_000);
    script.voter("fr").liar = liar;
    script.run_until(T0 + 20_000);
    script.join("ie", 0, &plans);
    script.join("ie", 1, &plans);
    script.run_until(T0 + 60_000);
    assert_eq!(script.violations().first(), None);
    script.gaps("ie", "ie/shop", T0 + 2_000, T0 + 55_000)
}

/// `Approval` is about a takeover by a standby, not about the holder going on.
#[test]
fn one_lying_witness_keeps_no_holder_of_an_approval_group_from_going_on_after_a_restart() {
    assert_eq!(approval_restart(None), vec![]);
    assert_eq!(approval_restart(Some(INVENTS)), vec![]);
}

/// Home is lost; lu lies, or is silent; the best standby may lack its link to ch. How long
/// nobody had a certificate after that, in milliseconds.
fn takeover(liar: Option<Liar>, cut_link: bool) -> Option<u64> {
    let mut script = Script::held_at_home(T0);
    script.isolate("ie");
    if cut_link {
        script.cut_link("fr", "ch");
    }
    match liar {
        Some(liar) => script.voter("lu").liar = Some(liar),
        None => script.voter("lu").witness = None,
    }
    let cut = script.now;
    script.run_until(cut + 120_000);
    assert_eq!(script.violations().first(), None);
    script.certs.iter().find(|c| c.at > cut + 5_000).map(|c| c.at - cut)
}

#[test]
fn a_liar_that_refuses_and_a_cut_link_leave_somebody_who_takes_over() {
    for (liar, cut_link) in [(None, true), (Some(REFUSES), false), (Some(REFUSES), true)] {
        let taken = takeover(liar, cut_link);
        assert!(taken.is_some_and(|ms| ms < 41 * P_MS), "cut link: {cut_link}; {taken:?} ms");
    }
}
