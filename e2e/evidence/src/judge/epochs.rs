//! I2 and the hand-over: epochs only grow, and a new one begins after every older lease's end.

use super::story::Story;
use crate::epoch::Epoch;
use crate::event::{Event, Kind};
use std::collections::{BTreeMap, BTreeSet};

/// Every epoch of the evidence, lowest first.
pub fn seen(story: &Story) -> BTreeSet<Epoch> {
    let told =
        story.events.iter().filter(|e| e.group.is_some() && matches!(e.event, Kind::Certificate | Kind::LeaseEnd));
    let written = story.pods.values().flatten().filter_map(|l| l.epoch);
    told.filter_map(|e| e.epoch).chain(written).collect()
}

/// The first certificate of each epoch, in order of time.
fn first_certificates<'a>(story: &Story<'a>) -> Vec<(Epoch, &'a Event)> {
    let mut known = BTreeSet::new();
    let all = story.of(Kind::Certificate).filter_map(|e| Some((e.epoch?, e)));
    all.filter(|(epoch, _)| known.insert(*epoch)).collect()
}

/// Reasons: a certificate without epoch, an epoch that fell or that two sites held.
pub fn growth(story: &Story) -> Vec<String> {
    let mut reasons = Vec::new();
    let mut highest: Option<(Epoch, &str)> = None;
    for event in story.of(Kind::Certificate) {
        let when = story.moment(event.boot_ns);
        let Some(epoch) = event.epoch else {
            reasons.push(format!("the certificate of {} at {when} has no epoch", event.site));
            continue;
        };
        match highest {
            Some((top, site)) if epoch < top => reasons.push(format!(
                "{} got a certificate of epoch {epoch} at {when}, after {site} had {top}: epochs must grow",
                event.site
            )),
            Some((top, site)) if epoch == top && site != event.site => reasons.push(format!(
                "{} got a certificate of epoch {epoch} at {when}, which {site} had: an epoch belongs to one site",
                event.site
            )),
            _ => highest = Some((epoch, &event.site)),
        }
    }
    reasons.extend(fallen_lines(story));
    reasons
}

/// Reasons: journal lines under an epoch that is not above all that other sites wrote before, or
/// below what the same pod wrote before.
fn fallen_lines(story: &Story) -> Vec<String> {
    let mut lines: Vec<_> = story.pods.values().flatten().collect();
    lines.sort_by_key(|l| l.boot_ns);
    let mut of_pod: BTreeMap<(&str, &str), Epoch> = BTreeMap::new();
    let mut of_site: BTreeMap<&str, Epoch> = BTreeMap::new();
    let mut blamed = BTreeSet::new();
    let mut reasons = Vec::new();
    for line in lines {
        let Some(epoch) = line.epoch else { continue };
        let pod = (line.site.as_str(), line.pod.as_str());
        let own = of_pod.get(&pod).filter(|e| epoch < **e).copied();
        let others = of_site.iter().filter(|(site, e)| **site != line.site && epoch <= **e);
        let above = others.map(|(_, e)| *e).chain(own).max();
        if let Some(above) = above.filter(|_| blamed.insert(pod)) {
            reasons.push(format!(
                "pod {} at {} wrote under epoch {epoch} at {}, after epoch {above} had been written",
                line.pod,
                line.site,
                story.moment(line.boot_ns)
            ));
        }
        for top in [of_pod.entry(pod).or_insert(epoch), of_site.entry(&line.site).or_insert(epoch)] {
            *top = epoch.max(*top);
        }
    }
    reasons
}

/// Reasons: a new epoch's first certificate at another site that is not later than every lease's
/// end under lower epochs.
pub fn hand_over(story: &Story) -> Vec<String> {
    let mut reasons = Vec::new();
    for (epoch, certificate) in first_certificates(story) {
        let elsewhere = story.of(Kind::LeaseEnd).filter(|e| e.site != certificate.site);
        let lower = elsewhere.filter(|e| e.epoch.is_some_and(|e| e < epoch));
        if let Some(late) = lower.filter(|e| e.boot_ns >= certificate.boot_ns).max_by_key(|e| e.boot_ns) {
            reasons.push(format!(
                "{} got its certificate of epoch {epoch} at {}, {:.3} ms before the lease of {} ended at {}",
                certificate.site,
                story.moment(certificate.boot_ns),
                (late.boot_ns - certificate.boot_ns) as f64 / 1e6,
                late.node.as_deref().unwrap_or(&late.site),
                story.moment(late.boot_ns)
            ));
        }
    }
    reasons.extend(ended_too_high(story));
    reasons
}

/// Reasons: the lease under which a pod ran before a change ended under an epoch that is not
/// below the new one. Such a `lease_end` would escape the comparison in [`hand_over`].
fn ended_too_high(story: &Story) -> Vec<String> {
    let mut blamed = BTreeSet::new();
    let mut reasons = Vec::new();
    for fault in &story.faults {
        let Some((change, epoch)) = fault.change.and_then(|c| Some((c, c.epoch?))) else {
            continue;
        };
        for pod in &fault.pods {
            let Some(end) = fault.ends_of(pod).next() else { continue };
            let Some(ended) = end.epoch.filter(|e| *e >= epoch) else { continue };
            if blamed.insert((end.boot_ns, &end.node)) {
                reasons.push(format!(
                    "the lease that ended at {} on {} had epoch {ended}, which is not below {epoch} of {}",
                    story.moment(end.boot_ns),
                    end.node.as_deref().unwrap_or(&end.site),
                    change.site
                ));
            }
        }
    }
    reasons
}
