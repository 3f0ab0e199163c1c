//! `protect`: from Observed to Protected.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args as ClapArgs;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use regent_api::FailoverGroup;
use regent_api::gate::has_gate;
use regent_api::group::Protection;
use serde_json::json;

use crate::Verdict;
use crate::group::{confirm, find};
use crate::init::parse_duration;

/// Arguments of `protect`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The group.
    group: String,
    /// Don't ask before pods without a gate are restarted.
    #[arg(long)]
    yes: bool,
    /// Wait this long until the group is Protected; 0s returns at once.
    #[arg(long, default_value = "120s", value_parser = parse_duration)]
    wait: Duration,
}

/// Rolls pods that have no gate yet, asks for Protected, and waits for it.
pub async fn run(args: &Args, client: &Client) -> Result<Verdict> {
    let group = find(client, &args.group).await?;
    let key = crate::group::key(&group)?;
    if group.name_any().contains('.') {
        bail!("{key} is a read-only copy here: run this at its home, {}", group.spec.home);
    }
    let mut seen = BTreeSet::new();
    let ungated = ungated_owners(client, &group, &mut seen).await?;
    if !ungated.is_empty() {
        let list: Vec<String> = ungated.keys().map(|(ns, kind, name)| format!("{kind} {ns}/{name}")).collect();
        let count: usize = ungated.values().sum();
        confirm(&format!("{count} pods of {key} have no gate and will be restarted ({}).", list.join(", ")), args.yes)?;
        restart_all(client, &ungated).await?;
    }
    let api = Api::<FailoverGroup>::all(client.clone());
    let patch = json!({"spec": {"protection": "Protected"}});
    api.patch(&group.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await.context("ask for Protected")?;
    println!("{key}: Protected is asked for");
    if args.wait.is_zero() {
        return Ok(Verdict::Well);
    }
    match tokio::time::timeout(args.wait, until_protected(client, &api, &group, seen)).await {
        Ok(outcome) => outcome,
        Err(_) => {
            bail!("{key} is not Protected after {:?}: see `kubectl regent status {}`", args.wait, group.name_any())
        }
    }
}

type Owner = (String, &'static str, String);

/// The controllers of the group's pods without a gate that were not `seen` before, with the
/// number of those pods.
async fn ungated_owners(
    client: &Client,
    group: &FailoverGroup,
    seen: &mut BTreeSet<String>,
) -> Result<BTreeMap<Owner, usize>> {
    let key = group.key()?;
    let mut owners = BTreeMap::new();
    for ns in &group.spec.namespaces {
        let selector = group.spec.selector.to_label_selector();
        let pods = Api::<Pod>::namespaced(client.clone(), ns).list(&ListParams::default().labels(&selector)).await?;
        for pod in pods.items.iter().filter(|p| !has_gate(p, &key) && !has_ended(p)) {
            if !seen.insert(pod.uid().unwrap_or_default()) {
                continue;
            }
            *owners.entry(owner(ns, pod)?).or_insert(0) += 1;
        }
    }
    Ok(owners)
}

fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed")) || pod.metadata.deletion_timestamp.is_some()
}

fn owner(ns: &str, pod: &Pod) -> Result<Owner> {
    let refused = || {
        format!(
            "pod {ns}/{} has no gate and no Deployment or StatefulSet that could be restarted: re-create it by hand",
            pod.name_any()
        )
    };
    let owners = pod.owner_references();
    let controller = owners.iter().find(|o| o.controller == Some(true)).with_context(refused)?;
    match controller.kind.as_str() {
        // A ReplicaSet of a Deployment carries the Deployment's name and the template's hash.
        "ReplicaSet" => {
            let name = controller.name.rsplit_once('-').map(|(name, _)| name.to_owned()).with_context(refused)?;
            Ok((ns.to_owned(), "Deployment", name))
        }
        "StatefulSet" => Ok((ns.to_owned(), "StatefulSet", controller.name.clone())),
        _ => bail!(refused()),
    }
}

/// As `kubectl rollout restart` does.
async fn restart(client: &Client, ns: &str, kind: &str, name: &str) -> Result<()> {
    let at = jiff::Timestamp::now().to_string();
    let patch = json!({"spec": {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": at}}}}});
    let (params, patch) = (PatchParams::default(), Patch::Strategic(&patch));
    if kind == "Deployment" {
        Api::<Deployment>::namespaced(client.clone(), ns).patch(name, &params, &patch).await.map(drop)
    } else {
        Api::<StatefulSet>::namespaced(client.clone(), ns).patch(name, &params, &patch).await.map(drop)
    }
    .with_context(|| format!("restart {kind} {ns}/{name}"))
}

async fn restart_all(client: &Client, owners: &BTreeMap<Owner, usize>) -> Result<()> {
    for (ns, kind, name) in owners.keys() {
        restart(client, ns, kind, name).await?;
        println!("{kind} {ns}/{name} restarted, so that its pods get their gates");
    }
    Ok(())
}

/// Prints what is still waited for, once each time it changes.
///
/// The API server learns a moment late whom the gate's policy selects: a pod that was made
/// in that moment has no gate either, and its owner is restarted once more.
async fn until_protected(
    client: &Client,
    api: &Api<FailoverGroup>,
    group: &FailoverGroup,
    mut seen: BTreeSet<String>,
) -> Result<Verdict> {
    let name = &group.name_any();
    let mut said = String::new();
    loop {
        let late = ungated_owners(client, group, &mut seen).await?;
        restart_all(client, &late).await?;
        let status = api.get(name).await?.status.unwrap_or_default();
        if status.protection == Some(Protection::Protected) {
            println!("Protected");
            return Ok(Verdict::Well);
        }
        let waiting = status.conditions.iter().find(|c| c.type_ == "Protected").map(|c| c.message.clone());
        if let Some(message) = waiting.filter(|m| *m != said && !m.is_empty()) {
            println!("  {message}");
            said = message;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
