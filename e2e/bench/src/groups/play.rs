//! The groups' objects, and what controllers and kubelets would write of them.

use std::sync::mpsc::Sender;
use std::time::Instant;

use anyhow::Result;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use super::sites::{HOME, STANDBY};

/// Objects that are written at once.
const AT_ONCE: usize = 16;
const STARTED: &str = "2026-01-01T00:00:00Z";
const SETTINGS: &str = "settings";

fn name(number: usize) -> String {
    format!("shop-{number}")
}

fn api(client: &Client, object: &Value) -> Api<DynamicObject> {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let (group, version) = text("/apiVersion").split_once('/').unwrap_or(("", text("/apiVersion")));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, text("/kind")));
    match text("/metadata/namespace") {
        "" => Api::all_with(client.clone(), &resource),
        namespace => Api::namespaced_with(client.clone(), namespace, &resource),
    }
}

async fn put(client: &Client, object: &Value) -> Result<Value> {
    let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let params = PatchParams::apply("bench").force();
    Ok(serde_json::to_value(api(client, object).patch(name, &params, &Patch::Apply(object)).await?)?)
}

async fn put_status(client: &Client, object: &Value, status: Value) -> Result<()> {
    let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let patch = json!({ "status": status });
    api(client, object).patch_status(name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
    Ok(())
}

/// Makes a group's namespace, with the account that every pod needs.
async fn put_namespace(client: &Client, number: usize, annotations: Value) -> Result<()> {
    let name = name(number);
    let metadata = json!({ "name": name, "annotations": annotations });
    put(client, &json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": metadata })).await?;
    let metadata = json!({ "name": "default", "namespace": name });
    put(client, &json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata })).await.map(drop)
}

async fn for_each(numbers: impl Iterator<Item = usize>, work: impl AsyncFn(usize) -> Result<()>) -> Result<()> {
    futures::stream::iter(numbers).map(|n| work(n)).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await.map(drop)
}

/// Lets the groups into their namespaces at the standby, as its owner would.
pub async fn let_in(client: Client, groups: usize) -> Result<()> {
    for_each(0..groups, async |number| {
        put_namespace(&client, number, json!({ "regent.dev/groups": format!("{HOME}/{}", name(number)) })).await
    })
    .await
}

/// Makes the groups at home: what runs there, and then what asks for its protection.
pub async fn make(client: Client, groups: usize) -> Result<()> {
    for_each(0..groups, async |number| {
        let name = name(number);
        put_namespace(&client, number, json!({})).await?;
        put(&client, &settings(&name, "first")).await?;
        let template = json!({
            "metadata": { "labels": { "app": name } },
            "spec": { "containers": [{ "name": "shop", "image": "registry.rig/shop:1", "envFrom": [{ "configMapRef": { "name": SETTINGS } }] }] },
        });
        let deployment = put(&client, &json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "shop", "namespace": name },
            "spec": { "replicas": 1, "selector": { "matchLabels": { "app": name } }, "template": template },
        }))
        .await?;
        let mut gated = template;
        regent_kinds::gate::add_gate(&mut gated, &format!("{HOME}/{name}").parse()?);
        run_pod(&client, &deployment, &gated, false).await?;
        put(&client, &json!({
            "apiVersion": "regent.dev/v1alpha1", "kind": "FailoverGroup", "metadata": { "name": name },
            "spec": { "home": HOME, "namespaces": [name], "selector": { "matchLabels": { "app": name } },
                "standbys": [STANDBY], "protection": "Protected" },
        }))
        .await
        .map(drop)
    })
    .await
}

fn settings(namespace: &str, value: &str) -> Value {
    let metadata = json!({ "name": SETTINGS, "namespace": namespace });
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": { "value": value } })
}

/// What the Deployment's controller and a kubelet make of it: one pod, ready or held by its gate.
async fn run_pod(client: &Client, deployment: &Value, template: &Value, held: bool) -> Result<()> {
    let (namespace, labels) = (&deployment["metadata"]["namespace"], &template["metadata"]["labels"]);
    let owner = |of: &Value, kind: &str| json!([{ "apiVersion": "apps/v1", "kind": kind, "name": of["metadata"]["name"], "uid": of["metadata"]["uid"], "controller": true }]);
    let metadata = |name: &str, owner: Value| json!({ "name": name, "namespace": namespace, "labels": labels, "ownerReferences": owner });
    let set = put(client, &json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": metadata("shop-1", owner(deployment, "Deployment")),
        "spec": { "replicas": 1, "selector": { "matchLabels": labels }, "template": template },
    }))
    .await?;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": metadata("shop-1-0", owner(&set, "ReplicaSet")), "spec": template["spec"],
    });
    put(client, &pod).await?;
    put_status(client, &pod, pod_status(template, held)).await?;
    let available = u8::from(!held);
    put_status(
        client,
        deployment,
        json!({
            "observedGeneration": deployment["metadata"]["generation"], "replicas": 1, "updatedReplicas": 1,
            "readyReplicas": available, "availableReplicas": available,
        }),
    )
    .await
}

fn pod_status(template: &Value, held: bool) -> Value {
    let of = |list: &str| -> Vec<Value> {
        let containers = template["spec"][list].as_array().cloned().unwrap_or_default();
        let status = |c: Value| json!({ "name": c["name"], "image": c["image"], "imageID": "", "ready": !held, "restartCount": 0, "state": { "running": { "startedAt": STARTED } } });
        containers.into_iter().map(status).collect()
    };
    let (phase, ready) = if held { ("Pending", "False") } else { ("Running", "True") };
    json!({
        "phase": phase, "containerStatuses": if held { Vec::new() } else { of("containers") },
        "initContainerStatuses": of("initContainers"),
        "conditions": [{ "type": "Ready", "status": ready, "lastTransitionTime": STARTED }],
    })
}

/// Gives every copy at the standby that has no pod yet its pod, held by its gate.
pub async fn complete(client: Client) -> Result<()> {
    let kind = json!({ "apiVersion": "apps/v1", "kind": "Deployment" });
    let copies = api(&client, &kind).list(&ListParams::default()).await?.items;
    let bare: Vec<Value> = copies
        .iter()
        .filter_map(|c| serde_json::to_value(c).ok())
        .filter(|c| c["status"]["replicas"].is_null())
        .collect();
    for_each(0..bare.len(), async |i| {
        let Some(copy) = bare.get(i) else { return Ok(()) };
        let mut copy = copy.clone();
        (copy["apiVersion"], copy["kind"]) = (kind["apiVersion"].clone(), kind["kind"].clone());
        run_pod(&client, &copy, &copy["spec"]["template"], true).await
    })
    .await
}

/// How many groups are protected and held ready, as home says.
pub async fn ready(client: Client) -> Result<usize> {
    let kind = json!({ "apiVersion": "regent.dev/v1alpha1", "kind": "FailoverGroup" });
    let groups = api(&client, &kind).list(&ListParams::default()).await?.items;
    let is_ready = |g: &&DynamicObject| {
        let standbys = g.data["status"]["standbys"].as_array().into_iter().flatten();
        g.data["status"]["protection"] == "Protected" && standbys.into_iter().any(|s| s["state"] == "Armed")
    };
    Ok(groups.iter().filter(is_ready).count())
}

/// Changes the first group at home.
pub async fn change(client: Client, value: String) -> Result<()> {
    put(&client, &settings(&name(0), &value)).await.map(drop)
}

/// Tells each value of the first group's ConfigMap, and when it was seen, until nobody listens.
pub async fn watch(client: Client, seen: Sender<(String, Instant)>) -> Result<()> {
    let api: Api<ConfigMap> = Api::namespaced(client, &name(0));
    let config = watcher::Config::default().fields(&format!("metadata.name={SETTINGS}"));
    let mut events = std::pin::pin!(watcher(api, config).default_backoff().applied_objects());
    while let Some(map) = events.try_next().await? {
        let value = map.data.clone().unwrap_or_default().remove("value").unwrap_or_else(|| map.name_any());
        if seen.send((value, Instant::now())).is_err() {
            break;
        }
    }
    Ok(())
}
