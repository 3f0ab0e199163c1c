//! Groups of one holder don't hurt each other: a certificate's proof is per group (L2, L5).

use super::*;

const T0: u64 = 100_000;

/// fr is home of fr/shop (standby de), and holds ie/bank since ie was cut off.
fn two_groups(w_ms: u64, latency: u64) -> (Script, Plan, Plan) {
    let mut script = Script::new(T0);
    script.latency = latency;
    let bank = plan("ie/bank", 1, w_ms);
    let shop = Plan { standbys: vec![site("de")], ..plan("fr/shop", 1, w_ms) };
    script.join("ie", 0, std::slice::from_ref(&bank));
    script.run_until(T0 + 3_000);
    script.join("fr", 0, &[bank.clone(), shop.clone()]);
    script.run_until(T0 + 10_000);
    script.isolate("ie");
    script.run_until(T0 + 35_000);
    for held in ["ie/bank", "fr/shop"] {
        assert_eq!(script.role(("fr", 0), held), Some(RoleName::Holder));
    }
    (script, bank, shop)
}

/// What became of fr/shop: when witnesses saw it lapse, certificates elsewhere, and times
/// without one at fr.
#[derive(Debug, Default, PartialEq, Eq)]
struct Harm {
    lapsed: Vec<u64>,
    taken: Vec<Epoch>,
    gaps: Vec<(u64, u64)>,
}

fn lapses_since(script: &Script, from: u64) -> Vec<u64> {
    let lapsed = VOTERS.iter().flat_map(|v| script.voters[v].lapsed.iter());
    lapsed.filter(|(at, g)| *at > from && g == &group("fr/shop")).map(|(at, _)| *at).collect()
}

/// The owner of ie/bank narrows where it may run, so that fr is refused that group from the
/// moment at which it lapses. With a `taker` de waits for fr/shop.
fn narrowed(w_ms: u64, latency: u64, taker: bool, jitter: Option<u64>) -> Harm {
    let (mut script, bank, shop) = two_groups(w_ms, latency);
    if taker {
        script.join("de", 0, std::slice::from_ref(&shop));
        script.run_until(T0 + 40_000);
    }
    let from = script.now;
    script.jitter(jitter);
    script.cut.clear();
    let narrow = Plan { version: 2, countries: vec!["IE".into(), "DE".into()], ..bank };
    script.join("ie", 0, std::slice::from_ref(&narrow));
    script.run_until(from + 1_000);
    if taker {
        // Home has registered that and is gone again: nobody else is ready for ie/bank.
        script.isolate("ie");
    }
    let inputs = script.inputs("fr", &[narrow, shop], false);
    script.run_contender(("fr", 0), |c, now| {
        c.set_plans(inputs);
        c.tick(at_ms(now))
    });
    script.run_until(from + 40_000);
    assert_eq!(script.violations().first(), None);
    let taken = script.certs.iter().filter(|c| c.group == group("fr/shop") && c.site == "de");
    Harm {
        lapsed: lapses_since(&script, from),
        taken: taken.map(|c| c.epoch).collect(),
        gaps: script.gaps("fr", "fr/shop", from, from + 40_000),
    }
}

#[test]
fn a_group_that_is_refused_makes_no_other_group_of_its_holder_lapse() {
    for (w_ms, latency) in [(0, 5), (3_000, 5), (5_000, 40)] {
        let harm = narrowed(w_ms, latency, false, None);
        assert_eq!(harm.lapsed, Vec::<u64>::new(), "W = {w_ms} ms, {latency} ms of latency");
    }
}

#[test]
fn nor_is_one_paused_or_taken_over_while_its_standby_lives() {
    assert_eq!(narrowed(0, 5, true, None), Harm::default());
}

/// Up to 40 ms of jitter, one message in 100 lost.
#[test]
fn nor_in_a_network_with_a_little_jitter() {
    for seed in 0..40 {
        assert_eq!(narrowed(0, 5, true, Some(seed)), Harm::default(), "network {seed}");
    }
}

/// A home that leaves fr out of its next version, of which fr has not heard.
#[test]
fn one_home_s_plan_ends_no_lease_of_another_home_s_group() {
    let (mut script, bank, _) = two_groups(0, 5);
    let from = script.now;
    script.cut.clear();
    script.join("ie", 0, &[Plan { version: 2, standbys: vec![site("de")], ..bank }]);
    script.run_until(from + 30_000);
    assert_eq!(lapses_since(&script, from), Vec::<u64>::new());
}
