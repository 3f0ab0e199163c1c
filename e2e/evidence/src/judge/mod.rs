//! The judge: evidence in, report out. It reads nothing else and asks nobody.

mod demands;
mod epochs;
mod fence;
mod runs;
pub mod story;
pub(crate) mod timings;
mod touched;

use crate::load::Evidence;
use crate::report::{Report, Verdict, ms};
use crate::scenario::Scenario;
use std::collections::BTreeSet;
use story::Story;

pub(crate) use runs::executed;
pub(crate) use touched::INFRASTRUCTURE_NAMESPACES;

/// Judges `groups`, or every group of the evidence when there are none. The scenario is
/// `scenario`, or what the evidence says.
pub fn judge(evidence: &Evidence, scenario: Option<Scenario>, groups: &[String]) -> Report {
    let scenario = scenario.or_else(|| scenario_of(evidence));
    let groups = match groups {
        [] => groups_of(evidence),
        named => named.to_vec(),
    };
    let mut reports = groups.iter().map(|group| judge_group(evidence, scenario, group));
    match (reports.next(), reports.next()) {
        (None, _) => judge_group(evidence, scenario, ""),
        (Some(only), None) => only,
        (Some(first), Some(second)) => Report::over(scenario, [first, second].into_iter().chain(reports).collect()),
    }
}

/// What the evidence says of its scenario: a fault's `detail.scenario`, else the first word of
/// the directory's name.
pub fn scenario_of(evidence: &Evidence) -> Option<Scenario> {
    let mut details = evidence.events.iter().filter_map(|e| e.detail.get("scenario")?.as_str());
    if let Some(scenario) = details.find_map(|word| word.parse().ok()) {
        return Some(scenario);
    }
    let dir = evidence.dir.canonicalize().ok()?;
    let name = dir.file_name()?.to_str()?.split(['-', '.', '_']).next()?;
    name.parse().ok()
}

/// Every group that wrote a journal or that a fault names.
pub fn groups_of(evidence: &Evidence) -> Vec<String> {
    let wrote = evidence.journal.iter().map(|l| l.group.as_str());
    let named = evidence.events.iter().filter(|e| {
        use crate::event::Kind;
        matches!(e.event, Kind::Cut | Kind::Crash | Kind::Takeover | Kind::Failback)
    });
    let named = named.filter_map(|e| e.group.as_deref());
    let all: BTreeSet<&str> = wrote.chain(named).collect();
    all.into_iter().map(str::to_owned).collect()
}

fn judge_group(evidence: &Evidence, scenario: Option<Scenario>, group: &str) -> Report {
    let story = Story::new(evidence, group, scenario);
    let executed_ns = runs::overlap_ns(runs::executed(&story));
    let arrived_ns = runs::overlap_ns(runs::arrived(&story));
    let (touched, touched_reasons) = touched::touched(&story);

    let mut reasons = evidence.problems.clone();
    if story.pods.is_empty() {
        reasons.push(format!("no journal has a line of group {group:?}"));
    }
    reasons.extend(demands::unmet(&story));
    reasons.extend(runs::overlaps(executed_ns, arrived_ns));
    reasons.extend(fence::ran_before(&story));
    if scenario.is_none_or(Scenario::stops) {
        reasons.extend(fence::coverage(&story));
    }
    reasons.extend(fence::silence(&story));
    reasons.extend(runs::without_certificate(&story));
    reasons.extend(runs::journal_against_sink(&story));
    reasons.extend(epochs::growth(&story));
    reasons.extend(epochs::hand_over(&story));
    reasons.extend(touched_reasons);

    let changes: Vec<_> = story.faults.iter().map(|f| timings::change(&story, f)).collect();
    let mut timings_ms = changes.first().map(|c| c.timings_ms.clone()).unwrap_or_default();
    let outages = changes.iter().filter_map(|c| c.timings_ms.outage);
    timings_ms.outage = outages.reduce(f64::max);
    Report {
        scenario,
        group: group.to_owned(),
        result: if reasons.is_empty() { Verdict::Pass } else { Verdict::Fail },
        reasons,
        timings_ms,
        overlap_exec_ms: ms(executed_ns.into()),
        overlap_net_ms: ms(arrived_ns.into()),
        touched,
        epochs: epochs::seen(&story).into_iter().collect(),
        changes,
        timeline: timings::timeline(&story),
        groups: Vec::new(),
    }
}
