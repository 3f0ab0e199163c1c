//! Schedules of each kind: fewer where signatures are real, for they cost most of the time.
//! `make soak` runs many more of the same.

#![allow(clippy::unwrap_used)] // A helper that fails fails its test.

use regent_sim::{Kind, Trace, run, sign_quickly};

/// The first that violates something is named.
fn hold(kind: Kind, count: u64) {
    let count = if cfg!(feature = "hashed") { count } else { count / 6 };
    let failed = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2)
            .map(|part| {
                scope.spawn(move || {
                    sign_quickly();
                    (0..count)
                        .filter(|seed| seed % 2 == part)
                        .find_map(|seed| run(kind, seed, Trace::off()).violation.map(|why| (seed, why)))
                })
            })
            .collect();
        workers.into_iter().filter_map(|w| w.join().unwrap()).min()
    });
    if let Some((seed, why)) = failed {
        panic!("{kind:?} {seed}: {why}; again with: cargo run -p regent-sim -- --kind {kind:?} --seed {seed} --trace");
    }
}

#[test]
fn under_any_schedule_of_faults_no_two_sites_run_a_group_and_a_holder_is_found_again() {
    hold(Kind::Any, 80);
}

#[test]
fn without_a_cut_nothing_is_taken_over_though_a_third_of_all_messages_is_lost() {
    hold(Kind::Lossy, 12);
}

#[test]
fn a_site_that_is_cut_off_stops_and_the_best_standby_that_lives_takes_over() {
    hold(Kind::Cut, 12);
}

#[test]
fn a_planned_move_and_its_way_back_wait_for_no_lease() {
    hold(Kind::Planned, 12);
}

#[test]
fn a_group_is_never_stopped_while_observed_and_fails_over_once_protected() {
    hold(Kind::Adopted, 12);
}

#[test]
fn a_holder_that_the_plan_drops_keeps_its_lease_until_it_gives_the_group_away_or_lapses() {
    hold(Kind::Dropped, 18);
}

#[test]
fn a_standby_that_is_not_ready_lets_a_ready_one_go_first() {
    hold(Kind::Unready, 12);
}

#[test]
fn whatever_home_wants_meanwhile_and_whoever_is_ready_there_is_one_holder_at_most_and_one_at_last() {
    hold(Kind::Shifting, 40);
}

#[test]
fn a_seed_gives_the_same_trace_again_also_when_signatures_are_real() {
    let trace = || run(Kind::Cut, 1, Trace::on(false)).trace.digest();
    let real = trace();
    sign_quickly();
    assert_eq!(trace(), real);
    assert_eq!(trace(), real);
    assert_ne!(run(Kind::Cut, 2, Trace::on(false)).trace.digest(), real);
}
