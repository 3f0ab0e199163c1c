//! `protect`: from Observed to Protected.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args as ClapArgs;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use regent_api::gate::has_gate;
use regent_api::group::{PROTECTED, Protection};
use regent_api::{FailoverGroup, condition};
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
    let ungated = ungated_pods(client, &group, &mut seen).await?;
    ungated.refuse_strangers()?;
    ungated.name_ending();
    let ungated = ungated.restartable;
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

/// How a pod without a gate comes to an end.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Maker {
    /// Its maker is restarted, which makes it anew.
    Restartable(Owner),
    /// By itself: this Job's work is done then. A restart would do it twice.
    Job(String),
    /// By a person's hand alone.
    Stranger,
}

/// Pods without a gate.
#[derive(Debug, Default)]
struct Ungated {
    /// What can be restarted, with the number of its pods.
    restartable: BTreeMap<Owner, usize>,
    /// Pods that end by themselves.
    ending: Vec<String>,
    /// Pods that a person has to re-create.
    strangers: Vec<String>,
}

impl Ungated {
    fn add(&mut self, ns: &str, pod: &Pod) {
        let name = format!("{ns}/{}", pod.name_any());
        match maker(ns, pod) {
            Maker::Restartable(owner) => *self.restartable.entry(owner).or_insert(0) += 1,
            Maker::Job(job) => self.ending.push(format!("{name} of Job {job}")),
            Maker::Stranger => self.strangers.push(name),
        }
    }

    fn refuse_strangers(&self) -> Result<()> {
        if self.strangers.is_empty() {
            return Ok(());
        }
        bail!(
            "these pods have no gate and no Deployment or StatefulSet that could be restarted: {}; re-create them by hand, or select others",
            self.strangers.join(", ")
        )
    }

    fn name_ending(&self) {
        self.ending.iter().for_each(|pod| println!("pod {pod} has no gate and ends by itself: it is waited for"));
    }
}

/// The group's pods without a gate that were not `seen` before.
async fn ungated_pods(client: &Client, group: &FailoverGroup, seen: &mut BTreeSet<String>) -> Result<Ungated> {
    let key = group.key()?;
    let mut ungated = Ungated::default();
    for ns in &group.spec.namespaces {
        let selector = group.spec.selector.to_label_selector();
        let pods = Api::<Pod>::namespaced(client.clone(), ns).list(&ListParams::default().labels(&selector)).await?;
        for pod in pods.items.iter().filter(|p| !has_gate(p, &key) && !has_ended(p)) {
            if seen.insert(pod.uid().unwrap_or_default()) {
                ungated.add(ns, pod);
            }
        }
    }
    Ok(ungated)
}

fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed")) || pod.metadata.deletion_timestamp.is_some()
}

fn maker(ns: &str, pod: &Pod) -> Maker {
    let owners = pod.owner_references();
    let Some(controller) = owners.iter().find(|o| o.controller == Some(true)) else { return Maker::Stranger };
    let restartable = |kind, name: &str| Maker::Restartable((ns.to_owned(), kind, name.to_owned()));
    match controller.kind.as_str() {
        // A Deployment's ReplicaSet carries the Deployment's name and the template's hash.
        "ReplicaSet" => {
            let hash = pod.labels().get("pod-template-hash");
            let name = hash.and_then(|hash| controller.name.strip_suffix(hash)?.strip_suffix('-'));
            name.map_or(Maker::Stranger, |name| restartable("Deployment", name))
        }
        "StatefulSet" => restartable("StatefulSet", &controller.name),
        "Job" => Maker::Job(controller.name.clone()),
        _ => Maker::Stranger,
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
        let late = ungated_pods(client, group, &mut seen).await?;
        late.refuse_strangers()?;
        late.name_ending();
        restart_all(client, &late.restartable).await?;
        let status = api.get(name).await?.status.unwrap_or_default();
        if status.protection == Some(Protection::Protected) {
            println!("Protected");
            return Ok(Verdict::Well);
        }
        let waiting = condition::get(&status.conditions, PROTECTED).map(|c| c.message.clone());
        if let Some(message) = waiting.filter(|m| *m != said && !m.is_empty()) {
            println!("  {message}");
            said = message;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, kind: &str, owner: &str) -> Pod {
        let owners = json!([{ "apiVersion": "x/v1", "kind": kind, "name": owner, "uid": "u", "controller": true }]);
        let owners = if kind.is_empty() { json!([]) } else { owners };
        serde_json::from_value(json!({ "metadata": {
            "name": name, "labels": { "pod-template-hash": "5d4f" }, "ownerReferences": owners,
        } }))
        .unwrap()
    }

    #[test]
    fn pods_of_jobs_are_waited_for_and_all_that_nobody_makes_anew_are_named_at_once() {
        let mut ungated = Ungated::default();
        for (name, kind, owner) in [
            ("shop-5d4f-a", "ReplicaSet", "shop-5d4f"),
            ("shop-5d4f-b", "ReplicaSet", "shop-5d4f"),
            ("ledger-0", "StatefulSet", "ledger"),
            ("nightly-1-x", "Job", "nightly-1"),
        ] {
            ungated.add("case", &pod(name, kind, owner));
        }
        let owner = |kind, name: &str| ("case".to_owned(), kind, name.to_owned());
        let expected = [(owner("Deployment", "shop"), 2), (owner("StatefulSet", "ledger"), 1)];
        assert_eq!(ungated.restartable, expected.into());
        assert_eq!(ungated.ending, ["case/nightly-1-x of Job nightly-1"]);
        ungated.refuse_strangers().unwrap();
        for (name, kind, owner) in [("bare", "", ""), ("each", "DaemonSet", "each"), ("set-x", "ReplicaSet", "set")] {
            ungated.add("case", &pod(name, kind, owner));
        }
        let error = ungated.refuse_strangers().unwrap_err().to_string();
        assert!(error.contains("case/bare, case/each, case/set-x"), "{error}");
    }
}
