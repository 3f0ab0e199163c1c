//! Whatever the moment: a line where none may be is never a pass, and noise within the rules is
//! never a fail.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use proptest::prelude::*;
use regent_evidence::Scenario;
use serde_json::Value;

fn scenarios() -> impl Strategy<Value = Recording> {
    let all = vec![cut(), crash(), blip(), planned(), failback(), steady(), held()];
    proptest::sample::select(all)
}

/// Adds one line of a pod at `at_us` microseconds from the fault, in its place and numbered.
fn stray(made: &mut Recording, file: &str, at_us: i64) {
    let lines = made.journal.get_mut(file).unwrap();
    let mut line = lines[0].clone();
    line["boot_ns"] = (ns(0) + at_us * 1_000).into();
    line["epoch"] = Value::Null;
    lines.push(line);
    lines.sort_by_key(|l| l["boot_ns"].as_i64());
    for (index, line) in lines.iter_mut().enumerate() {
        line["seq"] = (index + 1).into();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_line_of_the_old_side_past_its_lease_is_ever_a_pass(at_us in 4_960_001..16_500_000i64) {
        for mut made in [cut(), crash()] {
            stray(&mut made, "ireland-shop-a", at_us);
            prop_assert!(!made.judge().passed());
        }
    }

    #[test]
    fn no_line_of_a_standby_before_its_certificate_is_ever_a_pass(at_us in -1_000_000..9_630_000i64) {
        let mut made = cut();
        stray(&mut made, "france-shop-c", at_us);
        prop_assert!(!made.judge().passed());
    }

    #[test]
    fn no_line_within_a_blips_pause_is_ever_a_pass(at_us in 5_000_001..6_050_000i64) {
        let mut made = blip();
        stray(&mut made, "ireland-shop-b", at_us);
        prop_assert!(!made.judge().passed());
    }

    #[test]
    fn any_missing_event_of_a_takeover_is_never_a_pass(index in 0..8usize) {
        let named = ["cut", "lease_end", "frozen", "eligible", "certificate", "gate_opened", "first_started", "all_ready"];
        let mut made = cut();
        made.drop_events(named[index]);
        prop_assert!(!made.judge().passed());
    }

    #[test]
    fn noise_within_the_rules_is_never_a_fail(
        made in scenarios(), jitter_us in proptest::collection::vec(0..4_000i64, 64), lost in 2..50usize
    ) {
        let mut made = made;
        // Lines come a little late, and here and there a datagram is lost.
        for lines in made.journal.values_mut() {
            for (line, late) in lines.iter_mut().zip(jitter_us.iter().cycle()) {
                line["boot_ns"] = (line["boot_ns"].as_i64().unwrap() + late * 1_000).into();
            }
        }
        for lines in made.sink.values_mut() {
            let mut number = 0;
            lines.retain(|_| { number += 1; number % lost != 0 });
        }
        let report = made.judge();
        prop_assert!(report.passed(), "{:?}", report.reasons);
        prop_assert_eq!((report.overlap_exec_ms, report.overlap_net_ms), (0.0, 0.0));
    }

    #[test]
    fn a_recording_passes_as_no_other_scenario_than_those_that_demand_less(made in scenarios()) {
        let passing: Vec<Scenario> = regent_evidence::scenario::ALL.into_iter().filter(|scenario| {
            Recording { scenario: *scenario, ..made.clone() }.judge().passed()
        }).collect();
        prop_assert_eq!(passing, [made.scenario]);
    }
}
