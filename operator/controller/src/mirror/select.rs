//! Which objects of a namespace belong to a group.
//!
//! ```text
//!   selector --> Deployments, StatefulSets by their template's labels
//!                   |--> Services whose selector matches the template, or that a StatefulSet names
//!                   +--> ServiceAccounts, ConfigMaps, Secrets that the template names
//! ```

use std::collections::{BTreeMap, BTreeSet};

use regent_api::Selector;
use serde_json::Value;

use super::bundle::text;

/// What a namespace holds, as the API server lists it: each object with `kind` and `apiVersion`.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// Deployments and StatefulSets.
    pub workloads: Vec<Value>,
    /// Services.
    pub services: Vec<Value>,
    /// ConfigMaps, Secrets and ServiceAccounts.
    pub others: Vec<Value>,
    /// Pods that the group's selector matches.
    pub pods: Vec<Value>,
}

/// What belongs to the group.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Selected {
    /// Its objects, as they were listed.
    pub objects: Vec<Value>,
    /// What belongs to it and is of no mirrored kind: `Kind NAMESPACE/NAME`.
    pub unknown: BTreeSet<String>,
}

type Labels = BTreeMap<String, String>;

fn labels(object: &Value, pointer: &str) -> Labels {
    let map = object.pointer(pointer).and_then(Value::as_object);
    map.into_iter().flatten().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect()
}

fn contains(labels: &Labels, selector: &Labels) -> bool {
    !selector.is_empty() && selector.iter().all(|(k, v)| labels.get(k) == Some(v))
}

/// Objects that everyone has: never mirrored, never taken.
fn is_everywhere(kind: &str, name: &str) -> bool {
    matches!((kind, name), ("ServiceAccount", "default") | ("ConfigMap", "kube-root-ca.crt"))
}

/// Picks what belongs to the group.
pub fn select(selector: &Selector, listing: &Listing) -> Selected {
    let mut selected = Selected::default();
    let ours: Vec<&Value> =
        listing.workloads.iter().filter(|w| selector.matches(&labels(w, "/spec/template/metadata/labels"))).collect();
    let templates: Vec<Labels> = ours.iter().map(|w| labels(w, "/spec/template/metadata/labels")).collect();
    let mut named = BTreeSet::new();
    for workload in &ours {
        references(workload, &mut named);
    }
    // A ServiceAccount names Secrets too.
    let accounts = listing.others.iter().filter(|o| text(o, "/kind") == "ServiceAccount" && is_named(o, &named));
    for account in accounts.collect::<Vec<_>>() {
        name_each(account.get("imagePullSecrets"), "/name", "Secret", &mut named);
    }
    let serves = |s: &&Value| {
        let selector = labels(s, "/spec/selector");
        templates.iter().any(|t| contains(t, &selector)) || is_named(s, &named)
    };
    selected.unknown = unknown(&ours, listing, &named);
    selected.objects.extend(ours.into_iter().cloned());
    selected.objects.extend(listing.services.iter().filter(serves).cloned());
    let others = listing.others.iter().filter(|o| is_named(o, &named) && !is_token(o));
    selected.objects.extend(others.cloned());
    selected
}

/// The token of a ServiceAccount: worth nothing in another cluster.
fn is_token(object: &Value) -> bool {
    text(object, "/type") == "kubernetes.io/service-account-token"
}

fn is_named(object: &Value, named: &BTreeSet<(&'static str, String)>) -> bool {
    let (kind, name) = (text(object, "/kind"), text(object, "/metadata/name"));
    !is_everywhere(kind, name) && named.iter().any(|(k, n)| *k == kind && n == name)
}

fn name_each(list: Option<&Value>, pointer: &str, kind: &'static str, named: &mut BTreeSet<(&'static str, String)>) {
    for item in list.and_then(Value::as_array).into_iter().flatten() {
        if let Some(name) = item.pointer(pointer).and_then(Value::as_str) {
            named.insert((kind, name.to_owned()));
        }
    }
}

/// The objects that a workload names.
fn references(workload: &Value, named: &mut BTreeSet<(&'static str, String)>) {
    if let Some(service) = workload.pointer("/spec/serviceName").and_then(Value::as_str) {
        named.insert(("Service", service.to_owned()));
    }
    let Some(pod) = workload.pointer("/spec/template/spec") else { return };
    if let Some(account) = pod.get("serviceAccountName").and_then(Value::as_str) {
        named.insert(("ServiceAccount", account.to_owned()));
    }
    name_each(pod.get("imagePullSecrets"), "/name", "Secret", named);
    let volumes = pod.get("volumes");
    for (pointer, kind) in [
        ("/configMap/name", "ConfigMap"),
        ("/secret/secretName", "Secret"),
        ("/persistentVolumeClaim/claimName", "PersistentVolumeClaim"),
    ] {
        name_each(volumes, pointer, kind, named);
    }
    for volume in volumes.and_then(Value::as_array).into_iter().flatten() {
        let sources = volume.pointer("/projected/sources");
        name_each(sources, "/configMap/name", "ConfigMap", named);
        name_each(sources, "/secret/name", "Secret", named);
    }
    for list in ["containers", "initContainers"] {
        for container in pod.get(list).and_then(Value::as_array).into_iter().flatten() {
            name_each(container.get("env"), "/valueFrom/configMapKeyRef/name", "ConfigMap", named);
            name_each(container.get("env"), "/valueFrom/secretKeyRef/name", "Secret", named);
            name_each(container.get("envFrom"), "/configMapRef/name", "ConfigMap", named);
            name_each(container.get("envFrom"), "/secretRef/name", "Secret", named);
        }
    }
}

/// What belongs to the group but is of no kind that is mirrored.
fn unknown(ours: &[&Value], listing: &Listing, named: &BTreeSet<(&'static str, String)>) -> BTreeSet<String> {
    let namespace = |o: &Value| text(o, "/metadata/namespace").to_owned();
    let mut unknown = BTreeSet::new();
    for pod in &listing.pods {
        let of_ours =
            ours.iter().any(|w| contains(&labels(pod, "/metadata/labels"), &labels(w, "/spec/selector/matchLabels")));
        if of_ours {
            continue;
        }
        let owners = pod.pointer("/metadata/ownerReferences").and_then(Value::as_array);
        let controller = owners.into_iter().flatten().find(|o| o.get("controller") == Some(&Value::Bool(true)));
        let (kind, name) = match controller {
            Some(owner) => (text(owner, "/kind"), text(owner, "/name")),
            None => ("Pod", text(pod, "/metadata/name")),
        };
        unknown.insert(format!("{kind} {}/{name}", namespace(pod)));
    }
    let claims = named.iter().filter(|(kind, _)| *kind == "PersistentVolumeClaim");
    if let Some(workload) = ours.first() {
        unknown.extend(claims.map(|(kind, name)| format!("{kind} {}/{name}", namespace(workload))));
    }
    unknown
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn named(kind: &str, name: &str) -> Value {
        json!({ "apiVersion": "v1", "kind": kind, "metadata": { "name": name, "namespace": "shop" } })
    }

    fn deployment(name: &str, spec: Value) -> Value {
        json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name, "namespace": "shop" },
            "spec": { "selector": { "matchLabels": { "app": name } },
                      "template": { "metadata": { "labels": { "app": name } }, "spec": spec } } })
    }

    fn service(name: &str, app: &str) -> Value {
        let mut service = named("Service", name);
        service["spec"] = json!({ "selector": { "app": app } });
        service
    }

    fn pod(name: &str, app: &str, owner: Option<(&str, &str)>) -> Value {
        let mut pod = named("Pod", name);
        pod["metadata"]["labels"] = json!({ "app": app });
        if let Some((kind, name)) = owner {
            pod["metadata"]["ownerReferences"] = json!([{ "kind": kind, "name": name, "controller": true }]);
        }
        pod
    }

    fn shop() -> Selector {
        Selector { match_labels: [("app".to_owned(), "shop".to_owned())].into(), ..Selector::default() }
    }

    fn names(selected: &Selected) -> BTreeSet<String> {
        selected.objects.iter().map(|o| format!("{} {}", text(o, "/kind"), text(o, "/metadata/name"))).collect()
    }

    #[test]
    fn what_the_pod_template_names_and_who_serves_it_belongs_to_the_group() {
        let spec = json!({
            "serviceAccountName": "shop", "imagePullSecrets": [{ "name": "pull" }],
            "containers": [{ "envFrom": [{ "configMapRef": { "name": "env" } }, { "secretRef": { "name": "env" } }],
                             "env": [{ "name": "A", "valueFrom": { "secretKeyRef": { "name": "key", "key": "k" } } }] }],
            "initContainers": [{ "env": [{ "name": "B", "valueFrom": { "configMapKeyRef": { "name": "init", "key": "k" } } }] }],
            "volumes": [{ "configMap": { "name": "files" } }, { "secret": { "secretName": "cert" } },
                        { "projected": { "sources": [{ "secret": { "name": "projected" } }, { "configMap": { "name": "kube-root-ca.crt" } }] } },
                        { "persistentVolumeClaim": { "claimName": "data" } }] });
        let mut account = named("ServiceAccount", "shop");
        account["imagePullSecrets"] = json!([{ "name": "accounts" }]);
        let mut token = named("Secret", "key");
        token["type"] = json!("kubernetes.io/service-account-token");
        let mut others =
            vec![account, token, named("ServiceAccount", "default"), named("ConfigMap", "kube-root-ca.crt")];
        for name in ["pull", "env", "cert", "projected", "accounts", "stranger"] {
            others.push(named("Secret", name));
        }
        others.extend(["env", "init", "files", "stranger"].map(|name| named("ConfigMap", name)));
        let listing = Listing {
            workloads: vec![deployment("shop", spec), deployment("bank", json!({}))],
            services: vec![service("shop", "shop"), service("bank", "bank"), named("Service", "selects-nothing")],
            others,
            pods: vec![pod("shop-1", "shop", Some(("ReplicaSet", "shop-5d4")))],
        };
        let selected = select(&shop(), &listing);
        let expected = [
            "Deployment shop",
            "Service shop",
            "ServiceAccount shop",
            "Secret pull",
            "Secret env",
            "Secret cert",
            "Secret projected",
            "Secret accounts",
            "ConfigMap env",
            "ConfigMap init",
            "ConfigMap files",
        ];
        assert_eq!(names(&selected), expected.map(String::from).into());
        assert_eq!(selected.unknown, ["PersistentVolumeClaim shop/data".to_owned()].into());
    }

    #[test]
    fn a_statefulset_brings_the_service_that_it_names() {
        let mut set = deployment("shop", json!({}));
        set["kind"] = json!("StatefulSet");
        set["spec"]["serviceName"] = json!("peers");
        let listing = Listing { workloads: vec![set], services: vec![named("Service", "peers")], ..Listing::default() };
        assert_eq!(names(&select(&shop(), &listing)), ["Service peers", "StatefulSet shop"].map(String::from).into());
    }

    #[test]
    fn pods_of_other_makers_are_named_and_not_mirrored() {
        let pods = vec![pod("a", "shop", None), pod("b", "shop", Some(("DaemonSet", "logs")))];
        let selected = select(&shop(), &Listing { pods, ..Listing::default() });
        assert_eq!(selected.unknown, ["DaemonSet shop/logs".to_owned(), "Pod shop/a".to_owned()].into());
        assert_eq!(selected.objects, Vec::<Value>::new());
    }
}
