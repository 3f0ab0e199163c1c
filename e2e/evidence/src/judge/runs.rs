//! I1 by execution and by traffic: no two sites at once, and nobody without a certificate.

use super::story::Story;
use crate::records::SinkLine;
use crate::spans::{Spans, overlap};
use std::collections::{BTreeMap, BTreeSet};

/// Lines of a pod no further apart than this are one run: five periods of the journal.
const RUN_BOUND_NS: u64 = 250_000_000;
/// Executing one line takes at least this long.
const LINE_NS: u64 = 1_000;
const SECOND_NS: u64 = 1_000_000_000;

/// Where the group ran by its journals: each site's runs, all pods together.
pub fn executed(story: &Story) -> BTreeMap<String, Spans> {
    let mut sites: BTreeMap<String, Spans> = BTreeMap::new();
    for (pod, lines) in &story.pods {
        let run = Spans::of_moments(lines.iter().map(|l| l.boot_ns), RUN_BOUND_NS, LINE_NS);
        let site = sites.entry(pod.site.to_owned()).or_default();
        *site = site.union(&run);
    }
    sites
}

/// Where the group sent by what arrived: each site's stretches, all pods together.
pub fn arrived(story: &Story) -> BTreeMap<String, Spans> {
    let mut pods: BTreeMap<(&str, &str), Vec<u64>> = BTreeMap::new();
    for line in arrivals(story) {
        pods.entry((&line.site, &line.pod)).or_default().push(line.received_ns);
    }
    let mut sites: BTreeMap<String, Spans> = BTreeMap::new();
    for ((site, _), moments) in pods {
        let site = sites.entry(site.to_owned()).or_default();
        *site = site.union(&Spans::of_moments(moments, RUN_BOUND_NS, LINE_NS));
    }
    sites
}

fn arrivals<'a>(story: &Story<'a>) -> impl Iterator<Item = &'a SinkLine> {
    let group = story.group;
    let all = story.evidence.sinks.values().flatten();
    all.filter(move |l| l.group == group)
}

/// Nanoseconds during which at least two sites ran.
pub fn overlap_ns(sites: BTreeMap<String, Spans>) -> u64 {
    overlap(&sites.into_values().collect::<Vec<_>>()).total_ns()
}

/// Reasons: time in which two sites ran, or sent.
pub fn overlaps(executed_ns: u64, arrived_ns: u64) -> Vec<String> {
    let ms = |ns: u64| ns as f64 / 1e6;
    let mut reasons = Vec::new();
    if executed_ns > 0 {
        reasons.push(format!("the journals show two sites running at once for {:.3} ms", ms(executed_ns)));
    }
    if arrived_ns > 0 {
        reasons.push(format!("the sinks show two sites sending at once for {:.3} ms", ms(arrived_ns)));
    }
    reasons
}

/// The stretches in which a site had no right to run, from a second before the first fault on.
fn dark(story: &Story, site: &str) -> Vec<(u64, u64)> {
    let Some(first) = story.faults.first() else {
        return Vec::new();
    };
    let begin = first.event.boot_ns.saturating_sub(SECOND_NS);
    let mut stretches = Vec::new();
    if first.from != Some(site) {
        let granted = story.next_certificate_ns(site, begin.saturating_sub(1));
        stretches.push((begin.saturating_sub(1), granted));
    }
    for fault in story.faults.iter().filter(|f| f.from == Some(site)) {
        if let Some(end) = fault.last_lease_end_ns() {
            stretches.push((end, story.next_certificate_ns(site, end)));
        }
    }
    stretches
}

/// Reasons: a site wrote, or answered a client, while it held no certificate.
pub fn without_certificate(story: &Story) -> Vec<String> {
    let evidence = story.evidence;
    let asked: BTreeSet<&str> = evidence.client.iter().map(|l| l.site.as_str()).collect();
    let mut reasons = Vec::new();
    for site in story.sites().union(&asked) {
        for (after, until) in dark(story, site) {
            let inside = |at: &u64| *at > after && *at < until;
            let wrote: Vec<u64> = story.lines_at(site).map(|l| l.boot_ns).filter(inside).collect();
            if let Some(at) = wrote.iter().min() {
                reasons.push(format!(
                    "{site} wrote {} lines without a certificate, the first at {}",
                    wrote.len(),
                    story.moment(*at)
                ));
            }
            // A request that was sent in the dark and answered after it is an honest one: it waited.
            let answers = evidence.client.iter().filter(|l| l.site == *site && l.is_ok());
            let answers = answers.filter(|l| inside(&l.start_ns) && inside(&l.end_ns));
            let answers: Vec<u64> = answers.map(|l| l.start_ns).collect();
            if let Some(at) = answers.iter().min() {
                reasons.push(format!(
                    "{site} answered {} requests without a certificate, the first sent at {}",
                    answers.len(),
                    story.moment(*at)
                ));
            }
        }
    }
    reasons
}

/// Reasons: journals and sinks don't tell the same story, so one of them lost lines.
pub fn journal_against_sink(story: &Story) -> Vec<String> {
    let mut reasons = Vec::new();
    let mut arrived: BTreeMap<(&str, &str, &str), Vec<u64>> = BTreeMap::new();
    for line in arrivals(story) {
        arrived.entry((&line.site, &line.pod, &line.uid)).or_default().push(line.seq);
    }
    for site in story.sites() {
        if !arrived.keys().any(|(at, _, _)| *at == site) {
            reasons.push(format!("sink/{site}.jsonl has no line of {}, although its journals do", story.group));
        }
    }
    for ((site, name, uid), seqs) in arrived {
        let lines = story.pods.iter().find(|(p, _)| p.site == site && p.name == name);
        let Some((_, lines)) = lines else {
            reasons
                .push(format!("sink/{site}.jsonl has lines of pod {name}, but journal/{site}-{name}.jsonl has none"));
            continue;
        };
        let written: BTreeSet<u64> = lines.iter().filter(|l| l.uid == uid).map(|l| l.seq).collect();
        // What arrived after the journal was copied proves nothing against it.
        let range = written.first().copied()..=written.last().copied();
        let lost = seqs.into_iter().find(|s| written.is_empty() || range.contains(&Some(*s)) && !written.contains(s));
        if let Some(seq) = lost {
            reasons.push(format!("seq {seq} of pod {name} reached the sink of {site} and is not in its journal"));
        }
    }
    reasons
}
