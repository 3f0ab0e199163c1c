//! The intervals, and what the client saw.

use super::fence::least_margin_ns;
use super::story::{Fault, Story};
use crate::event::{Event, Kind};
use crate::report::{Change, Moment, Timings, ms};

/// What followed from one fault, with its intervals.
pub fn change(story: &Story, fault: &Fault) -> Change {
    let fault_ns = fault.event.boot_ns;
    let to = fault.change.map(|c| c.site.as_str());
    let since = |from: u64, to: Option<&Event>| to.map(|e| ms(i128::from(e.boot_ns) - i128::from(from)));
    let certificate_ns = fault.change.map(|c| c.boot_ns);
    let at_new = |kind: Kind| moment_at_new(story, fault, kind);
    let eligible = at_new(Kind::Eligible);
    let since_certificate = |kind: Kind| certificate_ns.and_then(|at| since(at, at_new(kind)));
    let last_end = fault.lease_ends.iter().copied().max_by_key(|e| e.boot_ns);
    Change {
        fault: fault.event.event.word(),
        from: fault.from.map(str::to_owned),
        to: to.map(str::to_owned),
        epoch: fault.change.and_then(|c| c.epoch),
        timings_ms: Timings {
            cut_to_lease_end_max: since(fault_ns, last_end),
            stopped_before_lease_end_min: least_margin_ns(story, fault).map(ms),
            eligible_to_certificate: eligible.and_then(|e| since(e.boot_ns, fault.change)),
            certificate_to_first_started: since_certificate(Kind::FirstStarted),
            certificate_to_all_ready: since_certificate(Kind::AllReady),
            cut_to_all_ready: since(fault_ns, at_new(Kind::AllReady)),
            outage: outage_ns(story, fault_ns, fault.until_ns).map(|ns| ms(ns.into())),
        },
    }
}

/// The first event of `kind` about the site that took over after a fault.
pub fn moment_at_new<'a>(story: &Story<'a>, fault: &Fault<'a>, kind: Kind) -> Option<&'a Event> {
    let to = &fault.change?.site;
    story.first_at(kind, to, fault.event.boot_ns, fault.until_ns)
}

/// The client's longest time without an answer that ended after `from_ns` and began before
/// `until_ns`. The end of the recording ends one too. `None` without an answer before the fault.
pub fn outage_ns(story: &Story, from_ns: u64, until_ns: u64) -> Option<u64> {
    let client = &story.evidence.client;
    let mut answers: Vec<u64> = client.iter().filter(|l| l.is_ok()).map(|l| l.end_ns).collect();
    answers.sort_unstable();
    answers.first().filter(|first| **first <= from_ns)?;
    answers.extend(client.iter().map(|l| l.end_ns).max());
    let pairs = answers.iter().zip(answers.iter().skip(1));
    let gaps = pairs.filter(|(begin, end)| **end >= from_ns && **begin < until_ns);
    gaps.map(|(begin, end)| end - begin).max()
}

/// The labelled moments of a group, in order.
pub fn timeline(story: &Story) -> Vec<Moment> {
    let Some(zero) = story.faults.first().map(|f| i128::from(f.event.boot_ns)) else {
        return Vec::new();
    };
    let told = story.events.iter().filter(|e| {
        !matches!(e.event, Kind::Other(_) | Kind::Lapsed | Kind::Proven)
            && story.faults.first().is_some_and(|f| e.boot_ns >= f.event.boot_ns)
    });
    let moments = told.map(|e| Moment {
        at_ms: ms(i128::from(e.boot_ns) - zero),
        boot_ns: e.boot_ns,
        site: e.site.clone(),
        event: e.event.word(),
        node: e.node.clone(),
        epoch: e.epoch,
    });
    moments.collect()
}
