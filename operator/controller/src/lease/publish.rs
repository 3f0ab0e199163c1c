//! Shows who holds each group in its `ControlLease`.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use regent_api::lease::HolderView;
use regent_api::{ControlLease, ControlLeaseStatus};
use regent_core::charter::Charter;
use regent_core::ids::SiteName;
use regent_core::message::{Refusal, Vote};
use regent_lease::contender::GroupStatus;
use regent_shell::clock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::LeaseShell;
use crate::leader::Leadership;
use crate::objects::{ControlLeases, Snapshot};
use crate::plans::Plans;

const EVERY: Duration = Duration::from_secs(1);

/// Keeps `status.holder` of each group current while this replica leads, until cancelled. What
/// changes with every renewal is not in it: a lease that goes on is no reason to write.
pub async fn publish(
    shell: Arc<LeaseShell>,
    plans: Arc<Plans>,
    leases: ControlLeases,
    objects: watch::Receiver<Snapshot<ControlLease>>,
    leadership: watch::Receiver<Leadership>,
    stop: CancellationToken,
) {
    loop {
        let leads = leadership.borrow().term_at(clock::now()).is_some();
        shell.set_leads(leads);
        let statuses = if leads { shell.status() } else { Vec::new() };
        for status in &statuses {
            let Some(view) = view(&shell, &plans, status) else { continue };
            let is_same = |s: &ControlLeaseStatus| s.holder.as_ref().is_some_and(|before| same(before, &view));
            let name = regent_api::object_name(&status.group);
            if objects.borrow().get(&name).and_then(|o| o.status.as_ref()).is_some_and(is_same) {
                continue;
            }
            // What is watched may be behind what was written a moment ago.
            let update = leases.update(&status.group, |s| {
                let is_news = !is_same(s);
                s.holder = Some(view.clone());
                is_news
            });
            if let Err(e) = update.await {
                tracing::debug!("{e}");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

fn same(a: &HolderView, b: &HolderView) -> bool {
    a.site == b.site && a.epoch == b.epoch && a.protection == b.protection && a.valid == b.valid
}

/// Who holds a group, as far as this site can tell: itself by its certificate, another
/// site by the votes that witnesses named.
fn view(shell: &LeaseShell, plans: &Plans, status: &GroupStatus) -> Option<HolderView> {
    let protection = plans.get(&status.group)?.plan().protection.into();
    let now = Timestamp::from_nanosecond(i128::from(clock::realtime_ns())).unwrap_or_default();
    let observed_at = Some(Time(now));
    if let (Some(left_ms), Some(epoch)) = (status.left_ms, status.certified.or(status.epoch)) {
        let (site, epoch) = (shell.context.site.to_string(), epoch.to_string());
        return Some(HolderView { site, epoch, protection, valid: left_ms > 0, observed_at });
    }
    let vote = named(status, shell.context.charter.faulty_witnesses as usize)?;
    let promised = |r: &Option<Refusal>| matches!(r, Some(Refusal::Promised | Refusal::NoTrigger));
    let fresh = shell.context.charter.renewal_period().as_millis() * 4;
    let holding =
        status.witnesses.values().filter(|w| promised(&w.refusal) && u128::from(w.heard_ms_ago) < fresh).count();
    let valid = holding >= shell.context.charter.quorum();
    let (site, epoch) = (vote.site.to_string(), vote.epoch.to_string());
    Some(HolderView { site, epoch, protection, valid, observed_at })
}

/// Another site that holds a group, as far as this one can tell: by the votes that witnesses
/// named, and until q of them have said that they would let others have it.
pub(crate) fn held_elsewhere(status: &GroupStatus, charter: &Charter, here: &SiteName) -> Option<SiteName> {
    let vote = named(status, charter.faulty_witnesses as usize).filter(|vote| &vote.site != here)?;
    let held = status.witnesses.values().filter(|w| matches!(w.refusal, Some(Refusal::Promised | Refusal::NoTrigger)));
    (held.count() >= charter.quorum()).then_some(vote.site)
}

/// The highest vote that at least one honest witness named.
pub(crate) fn named(status: &GroupStatus, faulty: usize) -> Option<Vote> {
    let mut votes: Vec<&Vote> = status.witnesses.values().filter_map(|w| w.vote.as_ref()).collect();
    votes.sort_by_key(|v| std::cmp::Reverse(v.epoch));
    let backed = |v: &&&Vote| votes.iter().filter(|other| **other == **v).count() > faulty;
    votes.iter().find(backed).or(votes.get(faulty)).map(|v| (*v).clone())
}

#[cfg(test)]
mod tests {
    use regent_lease::contender::{RoleName, WitnessWord};

    use super::*;

    fn status(votes: &[(&str, &str)]) -> GroupStatus {
        let word = |vote: &(&str, &str)| WitnessWord {
            refusal: None,
            wait_ms: None,
            heard_ms_ago: 0,
            vote: Some(Vote { site: vote.0.parse().unwrap(), epoch: vote.1.parse().unwrap() }),
            left_out_ms: None,
            plan_version: None,
        };
        let witnesses = votes.iter().enumerate().map(|(i, v)| (format!("w{i}").parse().unwrap(), word(v)));
        GroupStatus {
            group: "ie/shop".parse().unwrap(),
            role: RoleName::Candidate,
            idle: None,
            held_back: None,
            epoch: None,
            certified: None,
            left_ms: None,
            release: None,
            plan_version: 1,
            witnesses: witnesses.collect(),
        }
    }

    #[test]
    fn one_lying_witness_names_no_holder() {
        let lied = status(&[("ie", "1.1"), ("ie", "1.1"), ("ie", "1.1"), ("fr", "900.2")]);
        assert_eq!(named(&lied, 1).unwrap().epoch.to_string(), "1.1");
        let moved = status(&[("ie", "1.1"), ("fr", "2.2"), ("fr", "2.2"), ("fr", "2.2")]);
        assert_eq!(named(&moved, 1).unwrap().site.as_str(), "fr");
        assert_eq!(named(&status(&[]), 1), None);
    }
}
