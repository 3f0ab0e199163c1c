//! The old side stopped by itself: every pod that ran is in a `lease_end`, and silent after it.

use super::story::{Fault, Pod, Story};

/// Reasons: a pod that ran before a fault is in no `lease_end` of it.
pub fn coverage(story: &Story) -> Vec<String> {
    let mut reasons = Vec::new();
    for fault in &story.faults {
        let when = story.moment(fault.event.boot_ns);
        let kind = fault.event.event.word();
        let sites: Vec<&str> = story.sites().into_iter().filter(|s| fault.pods.iter().any(|p| p.site == *s)).collect();
        if sites.is_empty() {
            reasons.push(format!("no pod of {} wrote in the second before the {kind} at {when}", story.group));
        }
        if sites.len() > 1 {
            reasons.push(format!(
                "{} wrote at {} in the second before the {kind} at {when}: it must run at one site",
                story.group,
                sites.join(" and ")
            ));
        }
        for pod in fault.pods.iter().filter(|pod| fault.ends_of(pod).next().is_none()) {
            reasons.push(format!(
                "pod {} at {} wrote in the second before the {kind} at {when} and is in no lease_end after it",
                pod.name, pod.site
            ));
        }
    }
    reasons
}

/// Reasons: a pod wrote after its lease's end and before its own site's next certificate, or a
/// `lease_end` leaves out what makes it evidence.
pub fn silence(story: &Story) -> Vec<String> {
    let mut reasons = Vec::new();
    for end in story.faults.iter().flat_map(|f| &f.lease_ends) {
        let node = end.node.as_deref().unwrap_or("");
        let which = format!("the lease_end at {} of node {node:?} at {}", story.moment(end.boot_ns), end.site);
        for (missing, what) in
            [(end.node.is_none(), "node"), (end.epoch.is_none(), "epoch"), (end.pods().is_empty(), "detail.pods")]
        {
            if missing {
                reasons.push(format!("{which} has no {what}"));
            }
        }
        let granted = story.next_certificate_ns(&end.site, end.boot_ns);
        for name in end.pods() {
            let Some(lines) = story.pods.get(&Pod { site: &end.site, name }) else {
                reasons.push(format!("{which} names pod {name}, which has no journal"));
                continue;
            };
            let late = lines.iter().filter(|l| l.boot_ns > end.boot_ns && l.boot_ns < granted);
            let late: Vec<u64> = late.map(|l| l.boot_ns).collect();
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
