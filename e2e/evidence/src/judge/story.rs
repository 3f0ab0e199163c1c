//! One group's part of the evidence, put in order around its faults.

use crate::event::{Actor, Event, Kind};
use crate::load::Evidence;
use crate::records::JournalLine;
use crate::scenario::Scenario;
use std::collections::{BTreeMap, BTreeSet};

const SECOND_NS: u64 = 1_000_000_000;

/// A pod at a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pod<'a> {
    /// Site where it runs.
    pub site: &'a str,
    /// Its name.
    pub name: &'a str,
}

/// One fault and what followed until the next.
#[derive(Debug)]
pub struct Fault<'a> {
    /// The event itself.
    pub event: &'a Event,
    /// Where the next fault begins; `u64::MAX` for the last.
    pub until_ns: u64,
    /// The pods that wrote in the second before it.
    pub pods: BTreeSet<Pod<'a>>,
    /// The site where they ran.
    pub from: Option<&'a str>,
    /// The ends of leases at that site.
    pub lease_ends: Vec<&'a Event>,
    /// The first certificate at another site.
    pub change: Option<&'a Event>,
}

impl<'a> Fault<'a> {
    /// True for a moment that belongs to this fault.
    pub fn covers(&self, at_ns: u64) -> bool {
        (self.event.boot_ns..self.until_ns).contains(&at_ns)
    }

    /// The lease ends that name a pod, in order.
    pub fn ends_of<'f>(&'f self, pod: &'f Pod) -> impl Iterator<Item = &'a Event> + 'f {
        let ends = self.lease_ends.iter().copied();
        ends.filter(move |e| e.site == pod.site && e.pods().contains(&pod.name))
    }

    /// When the last of the old site's leases ended.
    pub fn last_lease_end_ns(&self) -> Option<u64> {
        self.lease_ends.iter().map(|e| e.boot_ns).max()
    }
}

/// One group's part of the evidence.
#[derive(Debug)]
pub struct Story<'a> {
    /// All of the evidence.
    pub evidence: &'a Evidence,
    /// The group, as HOME/NAME.
    pub group: &'a str,
    /// What was tried, if that is known.
    pub scenario: Option<Scenario>,
    /// Each pod's lines in order.
    pub pods: BTreeMap<Pod<'a>, Vec<&'a JournalLine>>,
    /// The group's events in order.
    pub events: Vec<&'a Event>,
    /// The faults in order.
    pub faults: Vec<Fault<'a>>,
}

impl<'a> Story<'a> {
    /// Puts the group's part of `evidence` in order.
    pub fn new(evidence: &'a Evidence, group: &'a str, scenario: Option<Scenario>) -> Story<'a> {
        let mut pods: BTreeMap<Pod<'a>, Vec<&JournalLine>> = BTreeMap::new();
        for line in evidence.journal.iter().filter(|l| l.group == group) {
            let pod = Pod { site: &line.site, name: &line.pod };
            pods.entry(pod).or_default().push(line);
        }
        let events = evidence.events.iter();
        let events = events.filter(|e| e.group.as_deref().is_none_or(|g| g == group));
        let mut story = Story { evidence, group, scenario, pods, events: events.collect(), faults: Vec::new() };
        story.faults = story.find_faults();
        story
    }

    /// The group's home: the first part of its name.
    pub fn home(&self) -> &'a str {
        self.group.split('/').next().unwrap_or(self.group)
    }

    /// The group's events of one kind, in order.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &'a Event> + '_ {
        self.events.iter().copied().filter(move |e| e.event == kind)
    }

    /// The first event of `kind` about `site` from `from_ns` on, before `until_ns`.
    pub fn first_at(&self, kind: Kind, site: &str, from_ns: u64, until_ns: u64) -> Option<&'a Event> {
        self.of(kind).find(|e| e.site == site && (from_ns..until_ns).contains(&e.boot_ns))
    }

    /// When `site` first got a certificate after `at_ns`; `u64::MAX` if never.
    pub fn next_certificate_ns(&self, site: &str, at_ns: u64) -> u64 {
        self.first_at(Kind::Certificate, site, at_ns.saturating_add(1), u64::MAX).map_or(u64::MAX, |e| e.boot_ns)
    }

    /// Every site at which the group wrote.
    pub fn sites(&self) -> BTreeSet<&'a str> {
        self.pods.keys().map(|p| p.site).collect()
    }

    /// All lines of the group at one site.
    pub fn lines_at<'s>(&'s self, site: &'s str) -> impl Iterator<Item = &'a JournalLine> + 's {
        let pods = self.pods.iter().filter(move |(pod, _)| pod.site == site);
        pods.flat_map(|(_, lines)| lines.iter().copied())
    }

    /// A moment as a sentence says it: seconds since the first fault.
    pub fn moment(&self, at_ns: u64) -> String {
        let zero = self.faults.first().map_or(0, |f| f.event.boot_ns);
        let ms = (i128::from(at_ns) - i128::from(zero)) / 1_000_000;
        let sign = if ms < 0 { '-' } else { '+' };
        format!("{sign}{}.{:03} s", ms.abs() / 1000, ms.abs() % 1000)
    }

    fn writers_before(&self, at_ns: u64) -> BTreeSet<Pod<'a>> {
        let second = at_ns.saturating_sub(SECOND_NS)..=at_ns;
        let wrote = |lines: &[&JournalLine]| lines.iter().any(|l| second.contains(&l.boot_ns));
        let pods = self.pods.iter().filter(|(_, lines)| wrote(lines));
        pods.map(|(pod, _)| *pod).collect()
    }

    /// The faults that concern the group. Only the rig and the demo cause faults: what Regent
    /// says of itself is judged, it doesn't set the clock. A cut or a crash concerns the group
    /// only at the site where it runs. What comes before the holder has changed is the same fault.
    fn find_faults(&self) -> Vec<Fault<'a>> {
        let mut faults: Vec<Fault<'a>> = Vec::new();
        for event in self.events.iter().copied().filter(|e| self.is_fault(e)) {
            let pods = self.writers_before(event.boot_ns);
            let from = pods.first().map(|p| p.site);
            let at_its_site = from.is_none_or(|from| from == event.site);
            if matches!(event.event, Kind::Cut | Kind::Crash) && !at_its_site {
                continue;
            }
            let changed = |before: &Fault| self.change_after(before, event.boot_ns).is_some();
            if faults.last().is_some_and(|before| !changed(before)) {
                continue;
            }
            faults.push(Fault { event, until_ns: u64::MAX, pods, from, lease_ends: Vec::new(), change: None });
        }
        let starts: Vec<u64> = faults.iter().map(|f| f.event.boot_ns).collect();
        for (index, fault) in faults.iter_mut().enumerate() {
            fault.until_ns = starts.get(index + 1).copied().unwrap_or(u64::MAX);
            fault.change = self.change_after(fault, fault.until_ns);
            let ends = self.of(Kind::LeaseEnd).filter(|e| Some(e.site.as_str()) == fault.from);
            fault.lease_ends = ends.filter(|e| fault.covers(e.boot_ns)).collect();
        }
        faults
    }

    fn is_fault(&self, event: &Event) -> bool {
        let by_hand = matches!(event.actor, Actor::Rig | Actor::Demo);
        let kind = match self.scenario {
            Some(Scenario::Steady) => {
                matches!(event.event, Kind::Kill | Kind::Cut | Kind::Crash)
            }
            _ => matches!(event.event, Kind::Cut | Kind::Crash | Kind::Takeover | Kind::Failback),
        };
        by_hand && kind
    }

    fn change_after(&self, fault: &Fault<'a>, until_ns: u64) -> Option<&'a Event> {
        let from = fault.from?;
        self.of(Kind::Certificate).find(|e| e.site != from && (fault.event.boot_ns..until_ns).contains(&e.boot_ns))
    }
}
