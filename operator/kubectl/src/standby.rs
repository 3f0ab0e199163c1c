//! `standby leave` and `standby join`: the partner takes a group out at its own site, and
//! lets it in again, whatever home wants.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args as ClapArgs;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use regent_api::group::StandbyStatus;
use regent_api::{FailoverGroup, LEAVE_ANNOTATION, StandbyState, group_selector};
use serde_json::json;

use crate::Verdict;
use crate::group::{confirm, find};
use crate::init::parse_duration;
use crate::kinds::Kind;
use crate::output::plain;
use crate::sites::here;

/// Arguments of `standby leave`.
#[derive(Debug, ClapArgs)]
pub struct LeaveArgs {
    /// The group.
    group: String,
    /// Don't ask.
    #[arg(long)]
    yes: bool,
    /// Wait this long until the operator says that nothing of the group is left; 0s returns at once.
    #[arg(long, default_value = "60s", value_parser = parse_duration)]
    wait: Duration,
}

/// Arguments of `standby join`.
#[derive(Debug, ClapArgs)]
pub struct JoinArgs {
    /// The group.
    group: String,
}

/// Shows what will be removed here and what stays, asks, and takes the group out.
pub async fn leave(args: &LeaveArgs, client: &Client) -> Result<Verdict> {
    let (group, key, site) = copy(client, &args.group).await?;
    if let Some(why) = runs_here(&group, &key, &site) {
        bail!(why);
    }
    let removed = copies(client, &group).await?;
    println!("{key} will be taken out at {site}. Removed in {}:", group.spec.namespaces.join(", "));
    if removed.is_empty() {
        println!("  nothing: no object here carries {}", group_selector(&group.key()?));
    }
    removed.iter().for_each(|(kind, count)| println!("  {count} {kind}"));
    let claims = claims(client, &group).await?;
    println!("It stays:\n  the namespace, and the Role and RoleBinding regent-operator");
    claims.iter().for_each(|claim| println!("  PersistentVolumeClaim {claim}, with its data"));
    confirm(&format!("{key} will not be held ready at {site} any more."), args.yes)?;
    annotate(client, &group, Some("true")).await?;
    println!("{key}: leaving is asked for; to take it back: kubectl regent standby join {key}");
    if args.wait.is_zero() {
        return Ok(Verdict::Well);
    }
    let mut last = None;
    match tokio::time::timeout(args.wait, until_left(client, &group, &site, &mut last)).await {
        Ok(left) => left?,
        Err(_) => bail!("{key} is not out after {:?}: {}", args.wait, why_not(last.as_ref(), &site)),
    }
    println!("{key} is out at {site}");
    Ok(Verdict::Well)
}

/// Lets the group in again.
pub async fn join(args: &JoinArgs, client: &Client) -> Result<Verdict> {
    let (group, key, site) = copy(client, &args.group).await?;
    if !group.annotations().contains_key(LEAVE_ANNOTATION) {
        println!("{key} was not taken out at {site}");
        return Ok(Verdict::Well);
    }
    annotate(client, &group, None).await?;
    println!("{key} is let in again; see `kubectl regent status {key}`");
    Ok(Verdict::Well)
}

/// The group's read-only copy, its key and this site.
async fn copy(client: &Client, name: &str) -> Result<(FailoverGroup, String, String)> {
    let group = find(client, name).await?;
    let (key, site) = (crate::group::key(&group)?, here(client).await?);
    if group.spec.home == site {
        bail!("{site} is the home of {key}: run this at a standby, one of {}", group.spec.standbys.join(", "));
    }
    Ok((group, key, site))
}

/// Why the group can't be taken out now: it runs here.
fn runs_here(group: &FailoverGroup, key: &str, site: &str) -> Option<String> {
    let status = group.status.as_ref()?;
    let own = status.standbys.iter().find(|s| s.site == site).map(|s| s.state);
    let runs =
        status.holder.as_deref() == Some(site) || matches!(own, Some(StandbyState::Holding | StandbyState::Starting));
    runs.then(|| {
        format!("{key} runs at {site}: move it first, with `kubectl regent takeover {key} --to SITE` or `kubectl regent failback {key}`")
    })
}

/// How many objects of each kind carry the group's label.
async fn copies(client: &Client, group: &FailoverGroup) -> Result<BTreeMap<&'static str, usize>> {
    let params = ListParams::default().labels(&group_selector(&group.key()?));
    let mut counts = BTreeMap::new();
    for namespace in &group.spec.namespaces {
        for kind in Kind::COPIED {
            let api = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &kind.resource());
            let found = api.list(&params).await.with_context(|| format!("list {kind} in {namespace}"))?.items;
            if !found.is_empty() {
                *counts.entry(kind.name()).or_insert(0) += found.len();
            }
        }
    }
    Ok(counts)
}

async fn claims(client: &Client, group: &FailoverGroup) -> Result<Vec<String>> {
    let mut claims = Vec::new();
    for namespace in &group.spec.namespaces {
        let api = Api::<PersistentVolumeClaim>::namespaced(client.clone(), namespace);
        let list = api.list(&ListParams::default()).await.with_context(|| format!("list claims in {namespace}"))?;
        claims.extend(list.items.iter().map(|claim| format!("{namespace}/{}", claim.name_any())));
    }
    Ok(claims)
}

async fn annotate(client: &Client, group: &FailoverGroup, value: Option<&str>) -> Result<()> {
    let name = group.name_any();
    let patch = json!({"metadata": {"annotations": {LEAVE_ANNOTATION: value}}});
    let api = Api::<FailoverGroup>::all(client.clone());
    let patched = api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await;
    patched.with_context(|| format!("annotate FailoverGroup {name} with {LEAVE_ANNOTATION}"))?;
    Ok(())
}

/// Waits for the operator's word; `last` is what it said before.
async fn until_left(
    client: &Client,
    group: &FailoverGroup,
    site: &str,
    last: &mut Option<StandbyStatus>,
) -> Result<()> {
    let (api, name, key) = (Api::<FailoverGroup>::all(client.clone()), group.name_any(), crate::group::key(group)?);
    loop {
        let now = api.get(&name).await?;
        let own = now.status.iter().flat_map(|s| &s.standbys).find(|s| s.site == site).cloned();
        if own.as_ref().is_some_and(|s| s.state == StandbyState::Left) {
            return Ok(());
        }
        // It may have been taken over since the person was asked.
        if let Some(why) = runs_here(&now, &key, site) {
            bail!(why);
        }
        *last = own;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn why_not(own: Option<&StandbyStatus>, site: &str) -> String {
    match own {
        None => format!("{site} has no entry in the group's status: is its operator running?"),
        Some(s) => {
            format!("{site} is {:?}: {}", s.state, plain(s.message.as_deref().unwrap_or("nothing more is said")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy_with(status: serde_json::Value) -> FailoverGroup {
        let spec = json!({ "home": "ireland", "namespaces": ["shop"], "standbys": ["france"] });
        let mut group = FailoverGroup::new("ireland.shop", serde_json::from_value(spec).unwrap());
        group.status = Some(serde_json::from_value(status).unwrap());
        group
    }

    #[test]
    fn a_group_that_runs_here_is_moved_before_it_is_taken_out() {
        let why = |status| runs_here(&copy_with(status), "ireland/shop", "france");
        assert_eq!(why(json!({ "holder": "ireland", "standbys": [{ "site": "france", "state": "Armed" }] })), None);
        let held = why(json!({ "holder": "france" })).unwrap();
        assert!(held.contains("move it first") && held.contains("failback ireland/shop"), "{held}");
        assert!(why(json!({ "standbys": [{ "site": "france", "state": "Starting" }] })).is_some());
    }

    #[test]
    fn what_keeps_a_group_in_is_told_in_the_operators_words() {
        let own = StandbyStatus {
            site: "france".into(),
            state: StandbyState::Blocked,
            message: Some("no right to delete".into()),
            ..StandbyStatus::default()
        };
        assert_eq!(why_not(Some(&own), "france"), "france is Blocked: no right to delete");
        assert!(why_not(None, "france").contains("is its operator running"));
    }
}
