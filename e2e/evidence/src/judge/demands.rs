//! What a scenario demands to have happened at all.

use super::story::{Fault, Story};
use super::timings::moment_at_new;
use crate::event::{Event, Kind};
use crate::scenario::Scenario;
use std::collections::BTreeSet;

const SECOND_NS: u64 = 1_000_000_000;
/// A pod that pauses longer than this has paused; a busy machine may make it miss some lines.
const PAUSE_NS: u64 = 2 * SECOND_NS;
/// Recording goes on for 5 s; reading the clock and stopping the client take some of it.
const RECORDED_AFTER_NS: u64 = 4_500_000_000;
/// The client asks at least so often, on average.
const REQUESTS_PER_SECOND: f64 = 20.0;

/// Reasons: something that the scenario demands did not happen, or something else did.
pub fn unmet(story: &Story) -> Vec<String> {
    let Some(scenario) = story.scenario else {
        return vec![
            "it is not known which scenario this is: name it with --scenario, in the fault's detail.scenario, or by the directory's name".to_owned(),
        ];
    };
    let mut reasons = faults(story, scenario);
    if story.faults.is_empty() {
        return reasons;
    }
    let changed = story.faults.iter().filter(|f| f.change.is_some()).count();
    if changed != scenario.changes() && scenario.changes() > 0 {
        reasons.push(format!("{scenario} demands {} changes of holder, and {changed} happened", scenario.changes()));
    }
    for fault in &story.faults {
        match scenario {
            Scenario::Cut | Scenario::Crash | Scenario::Planned | Scenario::Failback => {
                reasons.extend(taken_over(story, fault));
            }
            Scenario::Blip => reasons.extend(only_paused(story, fault)),
            Scenario::Steady => reasons.extend(undisturbed(story, fault)),
            Scenario::Held => reasons.extend(held(story, fault)),
        }
        if fault.event.event == Kind::Cut && scenario.stops() {
            reasons.extend(missing_on_nodes(story, fault, Kind::Frozen));
        }
    }
    if scenario == Scenario::Failback {
        reasons.extend(back_home(story));
    }
    reasons.extend(recording(story));
    reasons
}

/// Reasons: the fault that makes the scenario is not in the events.
fn faults(story: &Story, scenario: Scenario) -> Vec<String> {
    let needed: &[Kind] = match scenario {
        Scenario::Cut | Scenario::Blip => &[Kind::Cut],
        Scenario::Crash => &[Kind::Crash],
        Scenario::Planned => &[Kind::Takeover],
        Scenario::Failback => &[Kind::Failback],
        Scenario::Steady => &[Kind::Kill, Kind::Cut, Kind::Crash],
        Scenario::Held => &[Kind::Cut, Kind::Crash],
    };
    let has = |kind: &Kind| story.faults.iter().any(|f| f.event.event == *kind);
    let any_will_do = matches!(scenario, Scenario::Steady | Scenario::Held);
    if any_will_do && needed.iter().any(has) {
        return Vec::new();
    }
    let missing = needed
        .iter()
        .filter(|kind| !has(kind))
        .map(|kind| format!("no {} event by rig or demo concerns {} where it ran", kind.word(), story.group));
    missing.collect()
}

/// Reasons: a change of holder that lacks a step, has one out of order, or left no trace in what
/// the new site's pods wrote and what the client got.
fn taken_over(story: &Story, fault: &Fault) -> Vec<String> {
    let mut reasons = Vec::new();
    let kind = fault.event.event.word();
    let Some(certificate) = fault.change else {
        reasons.push(format!("no other site got a certificate after the {kind}: nobody took over"));
        return reasons;
    };
    let site = &certificate.site;
    let unplanned = matches!(fault.event.event, Kind::Cut | Kind::Crash);
    let eligible = moment_at_new(story, fault, Kind::Eligible);
    match eligible {
        None if unplanned => reasons.push(format!("no eligible event names {site} after the {kind}")),
        Some(e) if e.boot_ns > certificate.boot_ns => reasons.push(format!(
            "{site} got its certificate at {}, before it was eligible at {}",
            story.moment(certificate.boot_ns),
            story.moment(e.boot_ns)
        )),
        _ => {}
    }
    for kind in [Kind::GateOpened, Kind::FirstStarted, Kind::AllReady] {
        let word = kind.word();
        match moment_at_new(story, fault, kind) {
            None => reasons.push(format!("no {word} event names {site}")),
            Some(e) if e.boot_ns < certificate.boot_ns => reasons.push(format!(
                "{word} at {site} ({}) comes before its certificate ({})",
                story.moment(e.boot_ns),
                story.moment(certificate.boot_ns)
            )),
            Some(_) => {}
        }
    }
    reasons.extend(ran_at(story, certificate, fault.until_ns));
    reasons
}

/// Reasons: the site that took over wrote nothing, sent nothing, or answered nobody.
fn ran_at(story: &Story, certificate: &Event, until_ns: u64) -> Vec<String> {
    let site = &certificate.site;
    let after = |at: u64| at > certificate.boot_ns && at < until_ns;
    let evidence = story.evidence;
    let wrote = story.lines_at(site).any(|l| after(l.boot_ns));
    let mut arrivals = evidence.sinks.get(site).into_iter().flatten();
    let sent = arrivals.any(|l| l.group == story.group && after(l.received_ns));
    let mut answers = evidence.client.iter();
    let answered = answers.any(|l| l.is_ok() && l.site == *site && after(l.start_ns));
    let facts = [
        (wrote, "no pod wrote a line there"),
        (sent, "no datagram reached its sink"),
        (answered, "it answered no client"),
    ];
    let missing = facts.into_iter().filter(|(fact, _)| !fact);
    missing.map(|(_, what)| format!("{site} got the certificate, but after it {what}")).collect()
}

/// Reasons: on a node that ran pods when its lease ended, `kind` did not follow from the fault.
fn missing_on_nodes(story: &Story, fault: &Fault, kind: Kind) -> Vec<String> {
    let word = kind.word();
    let done: BTreeSet<_> = story
        .of(kind)
        .filter(|e| fault.covers(e.boot_ns) && Some(e.site.as_str()) == fault.from)
        .map(|e| e.node.as_deref())
        .collect();
    let nodes: BTreeSet<_> =
        fault.lease_ends.iter().filter(|e| !e.pods().is_empty()).map(|e| e.node.as_deref()).collect();
    let missing = nodes.difference(&done).map(|node| {
        format!("the lease ended on {}, and no {word} event followed there", node.unwrap_or("a node without name"))
    });
    missing.collect()
}

/// Reasons: a blip that was more than a pause, or less.
fn only_paused(story: &Story, fault: &Fault) -> Vec<String> {
    let mut reasons = missing_on_nodes(story, fault, Kind::Thawed);
    if story.of(Kind::Heal).all(|e| !fault.covers(e.boot_ns)) {
        reasons.push("no heal event follows the cut".to_owned());
    }
    reasons.extend(new_epochs(story, fault));
    let thawed = story.of(Kind::Thawed).filter(|e| fault.covers(e.boot_ns));
    let Some(thawed_ns) = thawed.map(|e| e.boot_ns).max() else {
        return reasons;
    };
    for pod in &fault.pods {
        let lines = story.pods.get(pod).into_iter().flatten();
        let uids: BTreeSet<&str> = lines.clone().map(|l| l.uid.as_str()).collect();
        if !lines.clone().any(|l| l.boot_ns > thawed_ns) {
            reasons.push(format!("pod {} at {} wrote nothing after it was thawed", pod.name, pod.site));
        }
        if uids.len() > 1 {
            reasons.push(format!("pod {} at {} was replaced: its uid changed", pod.name, pod.site));
        }
    }
    let mut answers = story.evidence.client.iter();
    if !answers.any(|l| l.is_ok() && Some(l.site.as_str()) == fault.from && l.start_ns > thawed_ns) {
        reasons.push("no client was answered after the thaw".to_owned());
    }
    reasons
}

/// Reasons: a fault that must disturb nothing ended a lease, paused a pod or moved the group.
fn undisturbed(story: &Story, fault: &Fault) -> Vec<String> {
    let mut reasons = new_epochs(story, fault);
    for kind in [Kind::LeaseEnd, Kind::Frozen, Kind::Killed] {
        let word = kind.word();
        let told = story
            .of(kind)
            .find(|e| fault.covers(e.boot_ns) && e.group.is_some() && Some(e.site.as_str()) == fault.from);
        if let Some(e) = told {
            reasons.push(format!("{word} at {} at {}: nothing was to be paused", e.site, story.moment(e.boot_ns)));
        }
    }
    let client = &story.evidence.client;
    let end = client.iter().map(|l| l.end_ns).max().unwrap_or(0).min(fault.until_ns);
    for pod in &fault.pods {
        let lines = story.pods.get(pod).into_iter().flatten().map(|l| l.boot_ns);
        let near = lines.filter(|at| at.saturating_add(SECOND_NS) >= fault.event.boot_ns);
        let moments: Vec<u64> = near.take_while(|at| *at < end).chain([end]).collect();
        let pairs = moments.iter().zip(moments.iter().skip(1));
        let worst = pairs.map(|(a, b)| (b - a, *a)).max().unwrap_or((0, 0));
        if worst.0 > PAUSE_NS {
            reasons.push(format!(
                "pod {} at {} wrote nothing for {:.3} s from {} on",
                pod.name,
                pod.site,
                worst.0 as f64 / 1e9,
                story.moment(worst.1)
            ));
        }
    }
    reasons
}

/// Reasons: somebody took over, or went on, although nobody may.
fn held(story: &Story, fault: &Fault) -> Vec<String> {
    let mut reasons = new_epochs(story, fault);
    if let Some(e) = story.of(Kind::Thawed).find(|e| fault.covers(e.boot_ns)) {
        reasons.push(format!("{} thawed at {}: it was to stand still", e.site, story.moment(e.boot_ns)));
    }
    reasons
}

/// Reasons: a certificate of a new epoch, or at another site, where none is allowed.
fn new_epochs(story: &Story, fault: &Fault) -> Vec<String> {
    let before = story.of(Kind::Certificate).filter(|e| e.boot_ns < fault.event.boot_ns);
    let ended = fault.lease_ends.iter().filter_map(|e| e.epoch);
    let written = fault.pods.iter().filter_map(|pod| {
        let lines = story.pods.get(pod)?;
        lines.iter().rfind(|l| l.boot_ns <= fault.event.boot_ns)?.epoch
    });
    let old = before.filter_map(|e| e.epoch).chain(ended).chain(written).max();
    let new = story.of(Kind::Certificate).filter(|e| fault.covers(e.boot_ns));
    let new = new.filter(|e| e.epoch > old || Some(e.site.as_str()) != fault.from);
    let sentences = new.map(|e| {
        let epoch = e.epoch.map_or("unknown".to_owned(), |e| e.to_string());
        format!("{} got a certificate of epoch {epoch} at {}: nobody was to take over", e.site, story.moment(e.boot_ns))
    });
    sentences.collect()
}

/// Reasons: after a failback the group does not run where it began.
fn back_home(story: &Story) -> Vec<String> {
    let began = story.faults.first().and_then(|f| f.from);
    let ended = story.faults.last().and_then(|f| f.change).map(|c| c.site.as_str());
    match (began, ended) {
        (Some(began), Some(ended)) if began != ended => {
            vec![format!("the failback led to {ended}, and the group began at {began}")]
        }
        _ => Vec::new(),
    }
}

/// Reasons: the client did not ask often enough or not long enough to be a witness.
fn recording(story: &Story) -> Vec<String> {
    let mut reasons = Vec::new();
    let client = &story.evidence.client;
    let (Some(first), Some(fault)) = (client.first(), story.faults.first()) else {
        return reasons;
    };
    let end = client.iter().map(|l| l.end_ns).max().unwrap_or(0);
    if !client.iter().any(|l| l.is_ok() && l.end_ns <= fault.event.boot_ns) {
        reasons.push("no client was answered before the fault".to_owned());
    }
    let seconds = end.saturating_sub(first.start_ns) as f64 / 1e9;
    let rate = client.len() as f64 / seconds.max(1e-9);
    if rate < REQUESTS_PER_SECOND {
        reasons.push(format!("the client asked {rate:.1} times a second: 20 are needed to see an outage"));
    }
    let last = story
        .events
        .iter()
        .filter(|e| matches!(e.event, Kind::AllReady | Kind::Thawed))
        .filter(|e| e.boot_ns >= fault.event.boot_ns)
        .max_by_key(|e| e.boot_ns);
    if let Some(last) = last.filter(|e| e.boot_ns.saturating_add(RECORDED_AFTER_NS) > end) {
        reasons.push(format!(
            "the recording ends {:.1} s after the last {}: 5 s are needed",
            (end as f64 - last.boot_ns as f64) / 1e9,
            last.event.word()
        ));
    }
    reasons
}
