//! Shows who holds each group in its `ControlLease`.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use regent_api::lease::HolderView;
use regent_api::{ControlLease, ControlLeaseStatus};
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
    let believed = status.believed.as_ref()?;
    let (site, epoch) = (believed.vote.site.to_string(), believed.vote.epoch.to_string());
    Some(HolderView { site, epoch, protection, valid: believed.fresh, observed_at })
}
