//! How held copies get from one revision of home's to the next, and what is held meanwhile.
//!
//! ```text
//!   next comes -> Deployments surge: as many pods of next are held beside those of good
//!              -> StatefulSets: one ordinal after the other, highest first, the others held
//!              -> all of next is held: it is the good one now, and the old pods go
//! ```
//!
//! Until then `good` stays held and ready, and is what a takeover starts. What of next can't be
//! held is said beside it, and takes nothing away: a set whose first renewed ordinal does not
//! reach its gate is put back.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use regent_api::group::StandbyState;
use serde_json::Value;

use crate::kind::{is_workload, replicas};
use crate::object::{object_of, text};
use crate::pods::{Live, Obstacle, Stand, Warnings, may_run, stand};
use crate::report::StandbyReport;
use crate::stamp::{made_from, template_of};

/// A revision as this site would hold it.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The bundle's digest.
    pub digest: &'a str,
    /// The derived copies, stamped.
    pub copies: &'a [Value],
}

impl<'a> Target<'a> {
    fn workloads(&self) -> impl Iterator<Item = &'a Value> + use<'a> {
        self.copies.iter().filter(|c| is_workload(text(c, "/kind")))
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        self.copies.iter().find(|c| object_of(c) == name)
    }
}

/// What is known when held copies are looked at.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The revision that was held whole last.
    pub good: Option<Target<'a>>,
    /// Home's newest.
    pub next: Target<'a>,
    /// The copies of workloads that live here, by `Kind NAMESPACE/NAME`.
    pub live: &'a BTreeMap<String, Live>,
    /// What the newest warning Events say.
    pub warnings: &'a Warnings,
}

impl<'a> Facts<'a> {
    /// The good revision, while copies are on their way from it to next.
    fn rolling(&self) -> Option<Target<'a>> {
        self.good.filter(|g| g.digest != self.next.digest)
    }
}

/// What a copy of a workload is to be like now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// As home's newest revision has it; old pods go when as many new ones are held.
    Surge,
    /// The same; old pods go.
    Flip,
    /// As the good revision has it: pods of a third one go first. The controller would make
    /// room by ending the oldest, which are the good one's.
    Good,
}

/// How a workload of next is to be applied. Revisions come one after the other: what is left of
/// one that was given up goes before the next one's pods are made.
pub fn how(facts: &Facts, workload: &Value) -> How {
    let (name, new) = (object_of(workload), template_of(workload));
    let pods = || facts.live.get(&name).into_iter().flat_map(|l| &l.pods);
    let held = |is_new: bool| {
        pods().filter(|p| (made_from(p) == new) == is_new && stand(p, None) == Stand::Held).count() as u64
    };
    let good = facts.rolling().and_then(|g| g.get(&name)).map(template_of);
    match good {
        Some(good) if pods().any(|p| ![good, new].contains(&made_from(p))) => How::Good,
        Some(_) => How::Surge,
        // The same revision, made by another version of Regent.
        None if held(false) >= wants(workload).max(1) && held(true) < wants(workload) => How::Surge,
        None => How::Flip,
    }
}

/// What to do, and what to say.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Verdict {
    /// What is held.
    pub report: StandbyReport,
    /// All of next is held: it is the good one from now on.
    pub arms: bool,
    /// Held pods of an older template to delete, so that their set makes them anew.
    pub renew: Vec<Pod>,
    /// Sets of which a renewed pod doesn't reach its gate: put back to the good revision.
    pub back: BTreeSet<String>,
}

/// The pods that a copy wants here: none while it is paused.
pub fn wants(copy: &Value) -> u64 {
    if copy.pointer("/spec/paused") == Some(&Value::Bool(true)) { 0 } else { replicas(copy) }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// One workload of next, with what of it is held.
struct Row<'a> {
    name: String,
    is_set: bool,
    wanted: usize,
    template: &'a str,
    /// The template of the good revision and what that wants, while copies are on their way
    /// from it; nothing of a workload that it lacks.
    before: Option<(&'a str, usize)>,
    live: Option<&'a Live>,
}

impl<'a> Row<'a> {
    fn of(workload: &'a Value, facts: &Facts<'a>) -> Self {
        let name = object_of(workload);
        let of_good = |w: &'a Value| (template_of(w), usize::try_from(wants(w)).unwrap_or(usize::MAX));
        let before = facts.rolling().map(|g| g.get(&name).map_or(("", 0), of_good));
        Self {
            is_set: text(workload, "/kind") == "StatefulSet",
            wanted: usize::try_from(wants(workload)).unwrap_or(usize::MAX),
            template: template_of(workload),
            before,
            live: facts.live.get(&name),
            name,
        }
    }

    fn held(&self, template: &str) -> usize {
        let pods = self.live.iter().flat_map(|l| &l.pods);
        pods.filter(|p| made_from(p) == template && stand(p, None) == Stand::Held).count()
    }

    fn is_next_held(&self) -> bool {
        self.live.is_some() && self.held(self.template) >= self.wanted
    }

    /// Pods of the good revision that are held, and how many it wants. Of a set that is on
    /// its way, renewed ordinals count: each is held before the next one is renewed.
    fn held_before(&self) -> (usize, usize) {
        let Some((template, wanted)) = self.before else { return (self.held(self.template), self.wanted) };
        // Home wants fewer by now.
        let wanted = wanted.min(self.wanted);
        let old = self.held(template);
        let renewed = if template == self.template { 0 } else { self.held(self.template) };
        (if self.is_set { old + renewed } else { old.max(renewed) }.min(wanted), wanted)
    }

    /// What is in the way of next.
    fn obstacle(&self, facts: &Facts) -> Option<Obstacle> {
        let live = self.live?;
        let new = live.pods.iter().filter(|p| made_from(p) == self.template);
        let stuck = new.filter_map(|p| match stand(p, Some(facts.warnings)) {
            Stand::Stuck(obstacle) => Some(obstacle),
            Stand::Held | Stand::Open | Stand::Coming => None,
        });
        let refused = live
            .refused
            .as_ref()
            .map(|why| Obstacle { reason: "Refused".into(), message: format!("{}: {why}", self.name) });
        stuck.into_iter().next().or(refused)
    }
}

/// Workloads that have fewer pods of their newest template than they want: worth asking the
/// API server why.
pub fn short<'a>(next: &Target<'a>, live: &BTreeMap<String, Live>) -> Vec<&'a Value> {
    let lacks = |w: &&Value| {
        let Some(live) = live.get(&object_of(w)) else { return false };
        let made = live.pods.iter().filter(|p| made_from(p) == template_of(w)).count();
        // A set that rolls on delete keeps its old ordinals until they are renewed.
        let made = if text(w, "/kind") == "StatefulSet" { live.pods.len() } else { made };
        (made as u64) < wants(w)
    };
    next.workloads().filter(lacks).collect()
}

/// Looks at held copies.
pub fn look(facts: &Facts) -> Verdict {
    let rows: Vec<Row> = facts.next.workloads().map(|w| Row::of(w, facts)).collect();
    let names: BTreeSet<&str> = rows.iter().map(|r| r.name.as_str()).collect();
    let mut verdict = Verdict::default();
    let deployments_held = rows.iter().filter(|r| !r.is_set).all(Row::is_next_held);
    for row in rows.iter().filter(|r| r.is_set) {
        row.renew(facts, deployments_held, &mut verdict);
    }
    let wants_pods = rows.iter().any(|r| r.wanted > 0);
    verdict.arms = wants_pods && rows.iter().all(Row::is_next_held);
    let (mut held, mut wanted) = (0usize, 0usize);
    for row in &rows {
        let (has, wants) = row.held_before();
        (held, wanted) = (held.saturating_add(has), wanted.saturating_add(wants));
    }
    let mut notices = Vec::new();
    // What home no longer has, and nobody has said to remove, is held as it is.
    for (name, live) in facts.live.iter().filter(|(name, _)| !names.contains(name.as_str())) {
        let wants = usize::try_from(wants(&live.workload)).unwrap_or(usize::MAX);
        let has = live.pods.iter().filter(|p| stand(p, None) == Stand::Held).count();
        (held, wanted) = (held.saturating_add(has.min(wants)), wanted.saturating_add(wants));
        notices.push(format!(
            "{name} is gone at home; its copy stays held until somebody says so there: annotation regent.dev/prune"
        ));
    }
    let whole = held >= wanted && wanted > 0 && (verdict.arms || facts.rolling().is_some());
    let obstacle = rows.iter().find_map(|r| r.obstacle(facts));
    verdict.report = report(facts, verdict.arms, whole, (count(held), count(wanted)), obstacle);
    verdict.report.notices = notices;
    verdict
}

fn report(
    facts: &Facts,
    arms: bool,
    whole: bool,
    (armed, wanted): (u32, u32),
    obstacle: Option<Obstacle>,
) -> StandbyReport {
    let next = facts.next.digest.to_owned();
    let good = facts.rolling().filter(|_| !arms).map(|g| g.digest.to_owned());
    let mut report = StandbyReport { armed, wanted, ..StandbyReport::default() };
    report.next = good.is_some().then(|| next.clone());
    report.revision = good.unwrap_or(next);
    report.state = match &obstacle {
        _ if whole => StandbyState::Armed,
        Some(_) => StandbyState::Blocked,
        None => StandbyState::Preparing,
    };
    if whole && arms {
        return report;
    }
    let coming = || Obstacle {
        reason: "Preparing".into(),
        message: match &report.next {
            Some(_) if whole => "the newer revision is on its way to its gates".into(),
            _ => format!("{armed} of {wanted} pods are held by their gates"),
        },
    };
    let said = obstacle.unwrap_or_else(coming);
    (report.reason, report.message) = (said.reason, said.message);
    report
}

impl Row<'_> {
    /// What a StatefulSet that rolls on delete needs done next.
    fn renew(&self, facts: &Facts, may_begin: bool, verdict: &mut Verdict) {
        let Some(live) = self.live.filter(|l| template_of(&l.workload) == self.template) else { return };
        if live.pods.iter().any(may_run) {
            return;
        }
        let old: Vec<&Pod> = live.pods.iter().filter(|p| made_from(p) != self.template).collect();
        let is_stuck = |p: &&Pod| made_from(p) == self.template && matches!(stand(p, None), Stand::Stuck(_));
        if self.before.is_none() {
            // Nothing of another revision is held ready: all at once.
            verdict.renew.extend(old.into_iter().cloned());
        } else if live.pods.iter().any(|p| is_stuck(&p)) && self.held(self.template) < self.wanted {
            verdict.back.insert(self.name.clone());
        } else if may_begin && live.refused.is_none() && self.obstacle(facts).is_none() {
            let all_held = live.pods.iter().all(|p| stand(p, None) == Stand::Held);
            if all_held && live.pods.len() >= self.wanted {
                verdict.renew.extend(old.into_iter().max_by_key(|p| ordinal(p)).cloned());
            }
        }
    }
}

/// The ordinal of a StatefulSet's pod.
fn ordinal(pod: &Pod) -> u64 {
    pod.name_any().rsplit_once('-').and_then(|(_, n)| n.parse().ok()).unwrap_or_default()
}

/// How a group runs here: by the pods that are there now, whoever has changed what they are
/// made from since, and by their own probes.
pub fn running(revision: &str, copies: &[Value], live: &BTreeMap<String, Live>) -> StandbyReport {
    let mut report = StandbyReport { revision: revision.to_owned(), ..StandbyReport::default() };
    let mut obstacle: Option<Obstacle> = None;
    let missing = Target { digest: revision, copies };
    let missing = missing.workloads().filter(|w| !live.contains_key(&object_of(w)) && wants(w) > 0);
    for workload in missing {
        report.wanted = report.wanted.saturating_add(count(usize::try_from(wants(workload)).unwrap_or(usize::MAX)));
        let message = format!("{} is missing here", object_of(workload));
        obstacle.get_or_insert(Obstacle { reason: "Missing".into(), message });
    }
    for (name, live) in live {
        let wants = usize::try_from(wants(&live.workload)).unwrap_or(usize::MAX);
        let ready = live.pods.iter().filter(|p| crate::pods::is_ready(p)).count();
        report.wanted = report.wanted.saturating_add(count(wants));
        report.armed = report.armed.saturating_add(count(ready.min(wants)));
        if ready < wants && obstacle.is_none() {
            let refused = live
                .refused
                .as_ref()
                .map(|why| Obstacle { reason: "Refused".into(), message: format!("{name}: {why}") });
            let unready = live.pods.iter().find(|p| !crate::pods::is_ready(p)).map(crate::pods::unready);
            let few = || Obstacle {
                reason: "Preparing".into(),
                message: format!("{name} has {} of {wants} pods", live.pods.len()),
            };
            obstacle = Some(unready.or(refused).unwrap_or_else(few));
        }
    }
    if report.wanted == 0 {
        obstacle.get_or_insert(Obstacle {
            reason: "Empty".into(),
            message: "no workload of the group wants a pod here".into(),
        });
    }
    let is_whole = report.wanted > 0 && report.armed >= report.wanted;
    report.state = if is_whole { StandbyState::Holding } else { StandbyState::Starting };
    let counted = format!("{} of {} pods are ready", report.armed, report.wanted);
    report.message = match obstacle {
        Some(o) if !is_whole => {
            report.reason = o.reason;
            format!("{counted}: {}", o.message)
        }
        _ => format!("runs here: {counted}"),
    };
    report
}
