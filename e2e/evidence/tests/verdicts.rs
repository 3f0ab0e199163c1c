//! The judge in both directions: recordings that must pass, and for each rule one that must fail
//! for exactly that reason.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use regent_evidence::{Report, Scenario};
use serde_json::{Value, json};

/// The reasons of a recording that was spoilt in one way; all of them must speak of `about`.
#[track_caller]
fn fails_for(made: &Recording, about: &[&str]) -> Report {
    let report = made.judge();
    assert!(!report.passed(), "it passed, although {about:?}");
    for reason in &report.reasons {
        let told = about.iter().any(|word| reason.contains(word));
        assert!(told, "another reason than {about:?}: {reason}\nall: {:#?}", report.reasons);
    }
    for word in about {
        let told = report.reasons.iter().any(|reason| reason.contains(word));
        assert!(told, "no reason tells {word:?}: {:#?}", report.reasons);
    }
    report
}

#[track_caller]
fn passes(made: &Recording) -> Report {
    let report = made.judge();
    assert!(report.passed(), "{:#?}", report.reasons);
    report
}

fn line_of<'a>(made: &'a mut Recording, file: &str, at: i64) -> &'a mut Value {
    let lines = made.journal.get_mut(file).unwrap();
    lines.iter_mut().find(|l| l["boot_ns"] == ns(at)).unwrap()
}

#[test]
fn each_scenario_passes_as_it_should_be() {
    for made in [cut(), crash(), blip(), planned(), failback(), steady(), held()] {
        let report = passes(&made);
        assert_eq!(report.scenario, Some(made.scenario));
        assert_eq!((report.overlap_exec_ms, report.overlap_net_ms), (0.0, 0.0));
        assert!(report.touched.is_empty());
    }
}

#[test]
fn the_intervals_of_a_cut_are_those_of_its_events() {
    let report = passes(&cut());
    let t = report.timings_ms;
    assert_eq!(t.cut_to_lease_end_max, Some(5_000.0));
    assert_eq!(t.stopped_before_lease_end_min, Some(60.0));
    assert_eq!(t.eligible_to_certificate, Some(30.0));
    assert_eq!(t.certificate_to_first_started, Some(770.0));
    assert_eq!(t.certificate_to_all_ready, Some(1_370.0));
    assert_eq!(t.cut_to_all_ready, Some(11_000.0));
    // Asked in turn every 20 ms: Ireland's last answer began at -40, France's first at 10,900.
    assert_eq!(t.outage, Some(10_940.0));
    assert_eq!(report.epochs, ["1.1".parse().unwrap(), "2.2".parse().unwrap()]);
    assert_eq!(report.timeline.first().unwrap().event, "cut");
    assert_eq!(report.changes[0].to.as_deref(), Some("france"));
}

#[test]
fn a_failback_has_two_changes_and_reports_the_longer_outage() {
    let report = passes(&failback());
    let to: Vec<_> = report.changes.iter().map(|c| c.to.clone().unwrap()).collect();
    assert_eq!(to, ["france", "ireland"]);
    let outages: Vec<f64> = report.changes.iter().map(|c| c.timings_ms.outage.unwrap()).collect();
    assert_eq!(report.timings_ms.outage, outages.iter().copied().reduce(f64::max));
    assert_eq!(report.timings_ms.eligible_to_certificate, None);
}

#[test]
fn a_torn_last_line_is_no_reason() {
    let mut made = cut();
    let whole: String = made.journal["ireland-shop-a"].iter().map(|l| format!("{l}\n")).collect();
    made.raw.push(("journal/ireland-shop-a.jsonl", Some(whole + "{\"boot_ns\":12,\"si")));
    passes(&made);
}

#[test]
fn a_single_stray_line_is_an_overlap_and_a_broken_lease() {
    let mut made = cut();
    let mut stray = made.journal["ireland-shop-a"].last().unwrap().clone();
    stray["seq"] = (stray["seq"].as_u64().unwrap() + 1).into();
    stray["boot_ns"] = ns(12_345).into();
    made.journal.get_mut("ireland-shop-a").unwrap().push(stray);
    let about = [
        "journals show two sites running at once for 0.001 ms",
        "wrote 1 lines after its lease ended",
        "ireland wrote 1 lines without a certificate",
        "wrote under epoch 1.1 at +12.345 s, after epoch 2.2 had been written",
    ];
    let report = fails_for(&made, &about);
    assert_eq!(report.overlap_exec_ms, 0.001);
    assert!(report.timings_ms.stopped_before_lease_end_min.unwrap() < 0.0);
}

#[test]
fn two_sites_sending_at_once_is_an_overlap_on_the_net() {
    let mut made = cut();
    for line in made.sink.get_mut("ireland").unwrap().iter_mut().rev().take(40) {
        let at = line["received_ns"].as_i64().unwrap();
        line["received_ns"] = (at + 7_000_000_000).into();
    }
    let report = fails_for(&made, &["sinks show two sites sending at once"]);
    assert!(report.overlap_net_ms > 500.0);
}

#[test]
fn one_millisecond_past_the_lease_is_too_late() {
    let mut made = cut();
    made.first("lease_end")["boot_ns"] = (ns(4_900) - 1).into();
    made.first("frozen")["boot_ns"] = (ns(4_900) - 2).into();
    let report = fails_for(&made, &["pod shop-a at ireland wrote 1 lines after its lease ended"]);
    assert!(report.timings_ms.stopped_before_lease_end_min.unwrap() <= 0.0);
}

#[test]
fn a_pod_that_is_in_no_lease_end_is_a_reason() {
    let mut made = cut();
    made.first("lease_end")["detail"] = json!({"pods": ["shop-b"]});
    fails_for(&made, &["pod shop-a at ireland wrote in the second before the cut at +0.000 s and is in no lease_end"]);
    let mut made = cut();
    made.drop_events("lease_end");
    fails_for(&made, &["is in no lease_end after it"]);
}

#[test]
fn a_lease_end_must_say_what_makes_it_evidence() {
    let mut made = cut();
    made.first("lease_end")["epoch"] = Value::Null;
    fails_for(&made, &["has no epoch"]);
    let mut made = cut();
    made.first("lease_end")["detail"] = json!({"pods": ["shop-a", "shop-x"]});
    fails_for(&made, &["names pod shop-x, which has no journal"]);
}

#[test]
fn a_certificate_before_an_older_leases_end_is_a_reason() {
    let mut made = cut();
    made.first("eligible")["boot_ns"] = ns(4_950).into();
    let certificate = made.events.iter_mut().rfind(|e| e["event"] == "certificate").unwrap();
    certificate["boot_ns"] = ns(4_980).into();
    fails_for(&made, &["france got its certificate of epoch 2.2 at +4.980 s, 20.000 ms before the lease"]);
}

#[test]
fn a_certificate_at_the_very_moment_of_an_older_leases_end_is_not_later_than_it() {
    let mut made = cut();
    let certificate = made.events.iter_mut().rfind(|e| e["event"] == "certificate").unwrap();
    certificate["boot_ns"] = ns(5_000).into();
    made.first("eligible")["boot_ns"] = ns(4_990).into();
    fails_for(&made, &["france got its certificate of epoch 2.2 at +5.000 s, 0.000 ms before the lease"]);
}

#[test]
fn a_lease_end_under_too_high_an_epoch_does_not_hide_behind_it() {
    let mut made = cut();
    made.first("lease_end")["epoch"] = "2.2".into();
    fails_for(&made, &["had epoch 2.2, which is not below 2.2 of france"]);
}

#[test]
fn epochs_that_fall_or_have_two_owners_are_reasons() {
    let mut made = cut();
    made.event(15_000, "france", "operator", "certificate", Some("2.1"), None);
    fails_for(&made, &["after france had 2.2: epochs must grow"]);
    let mut made = cut();
    made.event(15_000, "germany", "operator", "certificate", Some("2.2"), None);
    fails_for(&made, &["an epoch belongs to one site"]);
    let mut made = cut();
    made.event(15_000, "france", "operator", "certificate", None, None);
    fails_for(&made, &["has no epoch"]);
}

#[test]
fn a_program_that_is_told_an_old_epoch_is_a_reason() {
    let mut made = cut();
    line_of(&mut made, "france-shop-c", 10_420)["epoch"] = "1.1".into();
    fails_for(&made, &["pod shop-c at france wrote under epoch 1.1"]);
    let mut made = cut();
    line_of(&mut made, "france-shop-c", 12_420)["epoch"] = "2.1".into();
    fails_for(&made, &["after epoch 2.2 had been written"]);
}

#[test]
fn a_standby_that_runs_before_its_certificate_is_a_reason() {
    let mut made = cut();
    made.journal.remove("france-shop-d");
    made.sink.get_mut("france").unwrap().retain(|l| l["pod"] != "shop-d");
    made.run("france", "shop-d", 9_000, 16_500, "2.2");
    fails_for(&made, &["france wrote 13 lines without a certificate, the first at +9.000 s"]);
}

#[test]
fn an_answer_from_the_old_side_past_its_lease_is_a_reason() {
    let mut made = cut();
    let mut late = made.client.iter().find(|l| l["site"] == "ireland").unwrap().clone();
    late["start_ns"] = ns(5_400).into();
    late["end_ns"] = ns(5_401).into();
    late["outcome"] = "ok".into();
    made.client.push(late);
    fails_for(&made, &["ireland answered 1 requests without a certificate"]);
}

#[test]
fn journal_and_sink_must_agree() {
    let mut made = cut();
    made.sink.get_mut("ireland").unwrap()[0]["pod"] = "shop-z".into();
    fails_for(&made, &["has lines of pod shop-z, but journal/ireland-shop-z.jsonl has none"]);
    let mut made = cut();
    made.sink.get_mut("ireland").unwrap().retain(|l| l["group"] != GROUP);
    fails_for(&made, &["sink/ireland.jsonl is empty", "sink/ireland.jsonl has no line of ireland/shop"]);
    let mut made = cut();
    made.sink.get_mut("france").unwrap()[0]["site"] = "ireland".into();
    fails_for(
        &made,
        &[
            "a sink must stand in its own site's network",
            "has lines of pod shop-c, but journal/ireland-shop-c.jsonl has none",
        ],
    );
}

#[test]
fn a_journal_with_a_hole_or_a_jump_back_is_a_reason() {
    let mut made = cut();
    made.journal.get_mut("ireland-shop-a").unwrap().remove(20);
    fails_for(
        &made,
        &["goes from seq 20 to seq 22", "seq 21 of pod shop-a reached the sink of ireland and is not in its journal"],
    );
    let mut made = cut();
    line_of(&mut made, "ireland-shop-a", -1_000)["boot_ns"] = ns(-2_999).into();
    fails_for(&made, &["goes back in time"]);
    let mut made = cut();
    line_of(&mut made, "ireland-shop-a", -1_000)["pod"] = "shop-b".into();
    fails_for(&made, &["a journal belongs to one pod", "seq 41 of pod shop-a"]);
}

#[test]
fn a_takeover_that_lacks_a_step_is_a_reason() {
    for step in ["eligible", "gate_opened", "first_started", "all_ready"] {
        let mut made = cut();
        made.drop_events(step);
        fails_for(&made, &[step]);
    }
    let mut made = cut();
    made.drop_events("frozen");
    fails_for(&made, &["no frozen event followed there"]);
    let mut made = cut();
    made.first("first_started")["boot_ns"] = ns(9_000).into();
    fails_for(&made, &["first_started at france (+9.000 s) comes before its certificate (+9.630 s)"]);
    let mut made = cut();
    made.first("eligible")["boot_ns"] = ns(9_700).into();
    fails_for(&made, &["before it was eligible at +9.700 s"]);
}

#[test]
fn a_takeover_that_left_no_trace_is_a_reason() {
    let mut made = cut();
    made.events.retain(|e| e["event"] != "certificate" || e["site"] != "france");
    fails_for(&made, &["nobody took over", "1 changes of holder, and 0 happened", "france wrote", "france answered"]);
    let mut made = cut();
    made.journal.retain(|name, _| name.starts_with("ireland"));
    made.sink.remove("france");
    fails_for(&made, &["no pod wrote a line there", "no datagram reached its sink"]);
    let mut made = cut();
    made.client.iter_mut().filter(|l| l["site"] == "france").for_each(|l| l["outcome"] = "refused".into());
    fails_for(&made, &["it answered no client"]);
}

#[test]
fn a_blip_that_moved_or_killed_is_a_reason() {
    let mut made = blip();
    made.event(6_900, "ireland", "operator", "certificate", Some("2.1"), None);
    fails_for(&made, &["epoch 2.1 at +6.900 s: nobody was to take over"]);
    for (event, about) in [("heal", "no heal event"), ("thawed", "no thawed event"), ("frozen", "no frozen event")] {
        let mut made = blip();
        made.drop_events(event);
        fails_for(&made, &[about]);
    }
    let mut made = blip();
    let lines = made.journal.get_mut("ireland-shop-b").unwrap();
    lines.iter_mut().filter(|l| l["boot_ns"].as_i64() > Some(ns(6_000))).for_each(|l| l["uid"] = "new".into());
    fails_for(&made, &["pod shop-b at ireland was replaced"]);
    let mut made = blip();
    made.journal.get_mut("ireland-shop-b").unwrap().retain(|l| l["boot_ns"].as_i64() < Some(ns(6_000)));
    fails_for(&made, &["pod shop-b at ireland wrote nothing after it was thawed"]);
}

#[test]
fn a_pod_that_goes_on_without_its_own_sites_certificate_is_a_reason() {
    let mut made = blip();
    made.events.retain(|e| e["event"] != "certificate" || e["boot_ns"] != ns(6_050));
    fails_for(&made, &["lines after its lease ended", "lines without a certificate", "requests without a certificate"]);
}

#[test]
fn a_failback_that_does_not_come_home_is_a_reason() {
    let mut made = failback();
    made.drop_events("failback");
    fails_for(&made, &["no failback event", "2 changes of holder, and 1 happened", "the failback led to france"]);
    let made = Recording { scenario: Scenario::Failback, ..planned() };
    fails_for(&made, &["no failback event", "2 changes of holder, and 1 happened", "the failback led to france"]);
}

#[test]
fn a_lease_end_of_a_node_without_pods_is_fine_and_one_without_the_field_is_not() {
    let mut made = cut();
    made.lease_end(4_970, "ireland", "ireland-3", "1.1", &[]);
    passes(&made);
    made.events.last_mut().unwrap()["detail"] = json!({});
    fails_for(&made, &["node \"ireland-3\" at ireland has no detail.pods"]);
}

#[test]
fn a_new_holder_that_runs_past_its_own_lease_is_a_reason() {
    let mut made = cut();
    made.lease_end(14_000, "france", "france-1", "2.2", &["shop-c"]);
    fails_for(&made, &["pod shop-c at france wrote 50 lines after its lease ended at +14.000 s"]);
    made.event(14_001, "france", "operator", "certificate", Some("2.2"), None);
    passes(&made);
}

#[test]
fn a_request_that_waited_through_the_pause_is_an_honest_answer() {
    let mut made = blip();
    let waited = json!({"start_ns": ns(6_010), "end_ns": ns(6_095), "outcome": "ok", "site": "ireland"});
    made.client.push(waited);
    passes(&made);
}

#[test]
fn a_pod_made_anew_under_its_name_begins_a_journal_of_its_own() {
    let mut made = crash();
    let renew = |lines: &mut Vec<Value>, time: &str| {
        let since = lines.iter().position(|l| l[time].as_i64() >= Some(ns(12_000))).unwrap();
        for (index, line) in lines.iter_mut().enumerate().skip(since) {
            line["uid"] = "uid-new".into();
            line["seq"] = (index - since + 1).into();
        }
    };
    renew(made.journal.get_mut("france-shop-c").unwrap(), "boot_ns");
    made.sink.get_mut("france").unwrap().retain(|l| l["pod"] == "shop-c");
    renew(made.sink.get_mut("france").unwrap(), "received_ns");
    passes(&made);
}

#[test]
fn a_failback_may_follow_a_cut_that_was_healed() {
    let mut made = cut();
    made.scenario = Scenario::Failback;
    made.event(14_000, "ireland", "rig", "heal", None, None);
    made.fault(16_000, "france", "failback");
    for file in ["france-shop-c", "france-shop-d"] {
        made.journal.get_mut(file).unwrap().retain(|l| l["boot_ns"].as_i64() < Some(ns(16_200)));
    }
    made.sink.get_mut("france").unwrap().retain(|l| l["received_ns"].as_i64() < Some(ns(16_201)));
    hand_over(&mut made, 16_000, ("france", "2.2"), ("ireland", "3.1"), ["shop-c", "shop-d"]);
    made.run("ireland", "shop-a", 16_910, 23_000, "3.1");
    made.client.clear();
    made.ask(23_000, &[("ireland", -3_000, -10), ("france", 10_900, 16_190), ("ireland", 17_300, 30_000)]);
    let report = passes(&made);
    assert_eq!(report.changes.iter().map(|c| c.fault.as_str()).collect::<Vec<_>>(), ["cut", "failback"]);
}

#[test]
fn a_steady_group_that_paused_is_a_reason() {
    let mut made = steady();
    made.lease_end(1_000, "ireland", "ireland-1", "1.1", &["shop-a"]);
    made.event(1_500, "ireland", "operator", "certificate", Some("1.1"), None);
    let about = [
        "lease_end at ireland at +1.000 s: nothing was to be paused",
        "lines after its lease ended",
        "without a certificate",
    ];
    fails_for(&made, &about);
    let mut made = steady();
    let dropped = |l: &Value| (ns(3_000)..ns(5_500)).contains(&l["boot_ns"].as_i64().unwrap());
    let lines = made.journal.get_mut("ireland-shop-a").unwrap();
    lines.retain(|l| !dropped(l));
    for (index, line) in lines.iter_mut().enumerate() {
        line["seq"] = (index + 1).into();
    }
    let kept = lines.len();
    made.sink.get_mut("ireland").unwrap().truncate(kept);
    let mut silent = steady();
    let before = |time: &str, l: &Value| l[time].as_i64() < Some(ns(-1_500));
    silent.journal.get_mut("ireland-shop-a").unwrap().retain(|l| before("boot_ns", l));
    silent.sink.get_mut("ireland").unwrap().retain(|l| before("received_ns", l));
    fails_for(&silent, &["wrote in the second before the kill at +0.000 s", "requests without a certificate"]);
    fails_for(&made, &["pod shop-a at ireland wrote nothing for 2.550 s"]);
}

#[test]
fn a_held_group_that_ran_again_is_a_reason() {
    let mut made = held();
    made.event(9_000, "ireland", "guard", "thawed", Some("1.1"), Some("ireland-1"));
    fails_for(&made, &["it was to stand still"]);
    let mut made = held();
    made.event(9_000, "germany", "operator", "certificate", Some("2.3"), None);
    fails_for(&made, &["germany got a certificate of epoch 2.3"]);
}

#[test]
fn missing_evidence_is_never_a_pass() {
    let files = [
        ("events.jsonl", vec!["events.jsonl", "no cut event", "realtime_ns"]),
        ("client.jsonl", vec!["client.jsonl", "answered no client"]),
        ("journal", vec!["journal", "no pod", "no line", "cut event", "wrote", "\"\""]),
        ("sink", vec!["sink"]),
        ("audit", vec!["audit"]),
        ("audit/france.jsonl", vec!["audit/france.jsonl is"]),
    ];
    for (path, about) in files {
        for content in [None, Some(String::new())] {
            if content.is_some() && !path.ends_with(".jsonl") {
                continue;
            }
            let mut made = cut();
            made.raw.push((path, content));
            let report = made.judge();
            assert!(!report.passed(), "{path}");
            assert!(report.reasons.iter().any(|r| r.contains(about[0])), "{path}: {:#?}", report.reasons);
        }
    }
}

#[test]
fn an_empty_journal_beside_full_ones_is_a_reason() {
    let mut made = cut();
    made.journal.insert("france-shop-e".to_owned(), Vec::new());
    fails_for(&made, &["journal/france-shop-e.jsonl is empty"]);
}

#[test]
fn a_fault_that_only_regent_tells_of_is_none() {
    let mut made = cut();
    made.first("cut")["actor"] = "operator".into();
    fails_for(&made, &["no cut event by rig or demo"]);
}

#[test]
fn a_cut_of_another_site_is_not_this_groups_fault() {
    let mut made = cut();
    made.fault(-2_000, "germany", "cut");
    let report = passes(&made);
    assert_eq!(report.timings_ms.cut_to_all_ready, Some(11_000.0));
}

#[test]
fn a_client_that_asks_too_seldom_or_stops_too_early_is_no_witness() {
    let mut made = cut();
    let mut index = 0;
    made.client.retain(|_| {
        index += 1;
        index % 3 == 0
    });
    fails_for(&made, &["times a second: 20 are needed"]);
    let mut made = cut();
    made.client.retain(|l| l["end_ns"].as_i64() < Some(ns(14_000)));
    fails_for(&made, &["after the last all_ready: 5 s are needed"]);
}

#[test]
fn each_of_several_groups_is_judged_and_one_failure_fails_all() {
    let mut made = cut();
    let second = |text: &Value| {
        let text = text.to_string().replace("shop", "till").replace("uid-", "uid2-");
        serde_json::from_str::<Value>(&text).unwrap()
    };
    let events: Vec<Value> = made.events.iter().filter(|e| e["group"] == GROUP).map(second).collect();
    made.events.extend(events);
    for (name, lines) in made.journal.clone() {
        made.journal.insert(name.replace("shop", "till"), lines.iter().map(second).collect());
    }
    for lines in made.sink.values_mut() {
        let more: Vec<Value> = lines.iter().map(second).collect();
        lines.extend(more);
    }
    let report = passes(&made);
    assert_eq!(report.group, "ireland/shop ireland/till");
    assert_eq!(report.groups.len(), 2);
    made.events.retain(|e| e["event"] != "all_ready" || e["group"] != "ireland/till");
    let report = made.judge();
    assert_eq!(report.reasons, ["ireland/till: no all_ready event names france"]);
    assert!(report.groups[0].passed() && !report.groups[1].passed());
}
