//! The old side stopped by itself: every pod that ran is in a `lease_end`, and silent after it.

use super::story::{Fault, Pod, Story};
use crate::event::Kind;
use std::collections::BTreeSet;

/// Reasons: before a fault the group ran nowhere, or at more than one site.
pub fn ran_before(story: &Story) -> Vec<String> {
    let mut reasons = Vec::new();
    for fault in &story.faults {
        let before = format!("in the second before {}", name_of(story, fault));
        let sites: BTreeSet<&str> = fault.pods.iter().map(|p| p.site).collect();
        if sites.is_empty() {
            reasons.push(format!("no pod of {} wrote {before}", story.group));
        }
        if sites.len() > 1 {
            let sites: Vec<&str> = sites.into_iter().collect();
            let sites = sites.join(" and ");
            reasons.push(format!("{} wrote at {sites} {before}: it must run at one site", story.group));
        }
    }
    reasons
}

fn name_of(story: &Story, fault: &Fault) -> String {
    format!("the {} at {}", fault.event.event.word(), story.moment(fault.event.boot_ns))
}

/// Reasons: a pod that ran before a fault is in no `lease_end` of it, or a `lease_end` leaves out
/// what makes it evidence.
pub fn coverage(story: &Story) -> Vec<String> {
    let mut reasons = Vec::new();
    for fault in &story.faults {
        for pod in fault.pods.iter().filter(|pod| fault.ends_of(pod).next().is_none()) {
            reasons.push(format!(
                "pod {} at {} wrote in the second before {} and is in no lease_end after it",
                pod.name,
                pod.site,
                name_of(story, fault)
            ));
        }
        for end in &fault.lease_ends {
            let node = end.node.as_deref().unwrap_or("");
            let which = format!("the lease_end at {} of node {node:?} at {}", story.moment(end.boot_ns), end.site);
            let needed =
                [(end.node.is_some(), "node"), (end.epoch.is_some(), "epoch"), (end.names_pods(), "detail.pods")];
            let missing = needed.iter().filter(|(there, _)| !there);
            reasons.extend(missing.map(|(_, what)| format!("{which} has no {what}")));
            let unknown =
                end.pods().into_iter().filter(|name| !story.pods.contains_key(&Pod { site: &end.site, name }));
            reasons.extend(unknown.map(|name| format!("{which} names pod {name}, which has no journal")));
        }
    }
    reasons
}

/// Reasons: a pod wrote after its lease's end, wherever that was, and before its own site's next
/// certificate.
pub fn silence(story: &Story) -> Vec<String> {
    let Some(first) = story.faults.first() else {
        return Vec::new();
    };
    let mut reasons = Vec::new();
    for end in story.of(Kind::LeaseEnd).filter(|e| e.boot_ns >= first.event.boot_ns) {
        let granted = story.next_certificate_ns(&end.site, end.boot_ns);
        for name in end.pods() {
            let lines = story.pods.get(&Pod { site: &end.site, name }).into_iter().flatten();
            let late = lines.map(|l| l.boot_ns).filter(|at| *at > end.boot_ns && *at < granted);
            let late: Vec<u64> = late.collect();
            if let (Some(first), Some(last)) = (late.first(), late.last()) {
                reasons.push(format!(
                    "pod {name} at {} wrote {} lines after its lease ended at {}, the last {:.3} ms after it (first at {})",
                    end.site,
                    late.len(),
                    story.moment(end.boot_ns),
                    (last - end.boot_ns) as f64 / 1e6,
                    story.moment(*first)
                ));
            }
        }
    }
    reasons
}

/// How long before (positive) or after (negative) its lease's end each pod of a fault wrote its
/// last line; the least of them, in nanoseconds.
pub fn least_margin_ns(story: &Story, fault: &Fault) -> Option<i128> {
    let mut least = None;
    for end in &fault.lease_ends {
        let granted = story.next_certificate_ns(&end.site, end.boot_ns);
        for name in end.pods() {
            let lines = story.pods.get(&Pod { site: &end.site, name });
            let last = lines.and_then(|lines| lines.iter().rfind(|l| l.boot_ns < granted));
            let margin = last.map(|l| i128::from(end.boot_ns) - i128::from(l.boot_ns));
            least = match (least, margin) {
                (Some(a), Some(b)) => Some(std::cmp::min::<i128>(a, b)),
                (a, b) => a.or(b),
            };
        }
    }
    least
}
