//! Shows the matrix of who sees whom as `Site` objects.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use regent_api::condition;
use regent_api::site::{REACHABLE, Sight as SightStatus, SiteRole};
use regent_api::{FIELD_MANAGER, Site, SiteSpec, SiteStatus};
use regent_core::charter::SiteEntry;
use regent_core::ids::SiteName;
use regent_shell::clock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Observer, SiteView};
use crate::context::Context;
use crate::leader::Leadership;
use crate::objects::{ObjectError, bounded};
use crate::plans::Plans;

const EVERY: Duration = Duration::from_secs(2);
/// φ of a healthy site flickers: it alone is no reason to write more often than this.
const REFRESH: u32 = 30;

/// Keeps one `Site` object for each site of the charter, while this replica leads, until cancelled.
pub async fn publish(
    observer: Arc<Observer>,
    plans: Arc<Plans>,
    client: kube::Client,
    leadership: watch::Receiver<Leadership>,
    stop: CancellationToken,
) {
    let api: Api<Site> = Api::all(client);
    let mut written: Vec<(SiteName, SiteStatus)> = Vec::new();
    let mut round = 0u32;
    loop {
        let leads = leadership.borrow().term_at(clock::now()).is_some();
        if leads {
            let statuses = statuses(&observer, &plans);
            let refresh = round.is_multiple_of(REFRESH);
            for (site, status) in &statuses {
                let before = written.iter().find(|(s, _)| s == site).map(|(_, s)| s);
                if !refresh && before.is_some_and(|b| same(b, status)) {
                    continue;
                }
                if let Err(e) = write(&api, site, status).await {
                    tracing::debug!("{e}");
                }
            }
            written = statuses;
            round = round.wrapping_add(1);
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// Whether two statuses differ in nothing but φ and the rounding of times.
fn same(a: &SiteStatus, b: &SiteStatus) -> bool {
    let facts =
        |s: &SiteStatus| -> Vec<(String, bool)> { s.observed_by.iter().map(|o| (o.from.clone(), o.alive)).collect() };
    a.api_ready == b.api_ready && a.roles == b.roles && facts(a) == facts(b)
}

fn statuses(observer: &Observer, plans: &Plans) -> Vec<(SiteName, SiteStatus)> {
    let context = &observer.context;
    let matrix = observer.matrix();
    let held = plans.all();
    let homes: BTreeSet<&SiteName> = held.keys().map(|g| &g.home).collect();
    let standbys: BTreeSet<&SiteName> = held.values().flat_map(|p| &p.plan().standbys).collect();
    let of = |entry: &SiteEntry| {
        let roles = [
            (entry.name == context.site, SiteRole::Local),
            (context.charter.is_witness(&entry.name), SiteRole::Witness),
            (homes.contains(&entry.name), SiteRole::Home),
            (standbys.contains(&entry.name), SiteRole::Standby),
        ];
        let roles = roles.into_iter().filter(|(is, _)| *is).map(|(_, role)| role).collect();
        (entry.name.clone(), status(context, entry, matrix.get(&entry.name), roles))
    };
    context.charter.sites.iter().map(of).collect()
}

fn status(context: &Context, entry: &SiteEntry, view: Option<&SiteView>, roles: Vec<SiteRole>) -> SiteStatus {
    let party = context.charter.party(&entry.party);
    let now = clock::realtime_ns();
    let since = |d: Duration| {
        let ns = i128::from(now) - i128::try_from(d.as_nanos()).unwrap_or(i128::MAX);
        Time(Timestamp::from_nanosecond(ns).unwrap_or_default())
    };
    let seen = view.map(|v| &v.seen_by).into_iter().flatten().map(|(from, s)| SightStatus {
        from: from.to_string(),
        alive: s.alive,
        phi: (s.phi * 100.0).round() / 100.0,
        since: since(s.since),
    });
    let mut conditions = Vec::new();
    if entry.name != context.site {
        let own = view.and_then(|v| v.seen_by.get(&context.site));
        let alive = own.is_some_and(|s| s.alive);
        let (reason, message) = if alive {
            ("Heard", "its operator answers heartbeats")
        } else {
            ("Silent", "its operator answers no heartbeat: see who else sees it in observedBy")
        };
        let transition = own.map_or_else(|| since(Duration::ZERO), |s| since(s.since));
        condition::set(&mut conditions, REACHABLE, alive.into(), reason, message, None, transition.0);
    }
    SiteStatus {
        country: Some(entry.country.clone()),
        party: Some(entry.party.to_string()),
        control: party.map(|p| p.control.clone()),
        roles,
        addresses: entry.addresses.clone(),
        api_ready: view.and_then(|v| v.api_ready),
        observed_by: seen.collect(),
        conditions,
    }
}

async fn write(api: &Api<Site>, site: &SiteName, status: &SiteStatus) -> Result<(), ObjectError> {
    let object = format!("Site {site}");
    let patch = serde_json::json!({
        "apiVersion": "regent.dev/v1alpha1", "kind": "Site", "metadata": { "name": site.as_str() }, "status": status,
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    match bounded(&object, api.patch_status(site.as_str(), &params, &Patch::Apply(&patch))).await {
        Err(e) if e.is_not_found() => {}
        written => return written.map(drop),
    }
    let metadata = ObjectMeta { name: Some(site.to_string()), ..ObjectMeta::default() };
    let fresh = Site { metadata, spec: SiteSpec::default(), status: None };
    match bounded(&object, api.create(&PostParams::default(), &fresh)).await {
        Err(e) if !e.is_conflict() => return Err(e),
        _ => {}
    }
    bounded(&object, api.patch_status(site.as_str(), &params, &Patch::Apply(&patch))).await.map(drop)
}
