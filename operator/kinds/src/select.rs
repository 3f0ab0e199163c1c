//! Which objects of a namespace belong to a group.
//!
//! ```text
//!   selector --> Deployments, StatefulSets by their template's labels
//!                   |--> Services whose selector matches the template, or that a StatefulSet names
//!                   |--> ServiceAccounts, ConfigMaps, Secrets that the template names
//!                   |--> the Secrets by which the namespace's own account pulls images
//!                   +--> what stays at home, by name
//!            --> ConfigMaps and ExternalName Services by their own labels
//! ```

use std::collections::BTreeSet;

use regent_api::Selector;
use regent_api::selector::Operator;
use serde_json::Value;

use crate::needs::{DEFAULT_ACCOUNT, NeedKind, is_default_account, is_everywhere, is_token, needs};
use crate::object::{items, labels, object_of, text};
use crate::owners::{Owners, stays};
use crate::rest::{Mirrored, rest};

/// What a namespace holds, as the API server lists it: each object with `kind` and `apiVersion`.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// Deployments and StatefulSets.
    pub workloads: Vec<Value>,
    /// Services.
    pub services: Vec<Value>,
    /// ConfigMaps, Secrets and ServiceAccounts.
    pub others: Vec<Value>,
    /// ReplicaSets.
    pub replica_sets: Vec<Value>,
    /// Objects of the kinds in [`crate::rest::REST`].
    pub rest: Vec<Value>,
    /// Pods that the group's selector matches.
    pub pods: Vec<Value>,
    /// What could not be listed, and why.
    pub notices: Vec<String>,
}

impl Listing {
    /// Who owns the pods.
    pub fn owners(&self) -> Owners<'_> {
        Owners::new(self.replica_sets.iter().chain(&self.rest))
    }
}

/// What belongs to the group.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Selected {
    /// Its Deployments and StatefulSets, with the Secrets by which their pods pull images.
    pub workloads: Vec<Value>,
    /// Its other objects, as they were listed.
    pub others: Vec<Value>,
    /// What belongs to it and stays at home: `Kind NAMESPACE/NAME`.
    pub unknown: BTreeSet<String>,
}

/// What is named, by kind and name.
type Named = BTreeSet<(&'static str, String)>;

/// The accounts of a group's pods, by namespace and name.
pub type Accounts = BTreeSet<(String, String)>;

/// Whether an object's pods are the group's, by its template's labels.
pub(crate) fn is_ours(selector: &Selector, workload: &Value) -> bool {
    selector.matches(&labels(workload, "/spec/template/metadata/labels"))
}

/// The accounts of the group's pods in all of its namespaces: a binding in one may name an
/// account in another.
pub fn accounts(selector: &Selector, listings: &[Listing]) -> Accounts {
    let workloads = listings.iter().flat_map(|l| &l.workloads).filter(|w| is_ours(selector, w));
    workloads.map(|w| (text(w, "/metadata/namespace").to_owned(), account(w).to_owned())).collect()
}

/// Whether a Service sends to a workload's pods in its namespace. One without a selector sends
/// where its owner's EndpointSlices say.
pub(crate) fn serves(service: &Value, workload: &Value) -> bool {
    let selector = labels(service, "/spec/selector");
    let pods = labels(workload, "/spec/template/metadata/labels");
    !selector.is_empty() && selector.iter().all(|(k, v)| pods.get(k) == Some(v))
}

/// Picks what of a namespace belongs to the group.
pub fn select(selector: &Selector, listing: &Listing, accounts: &Accounts) -> Selected {
    let workloads: Vec<Value> =
        listing.workloads.iter().filter(|w| is_ours(selector, w)).map(|w| as_admitted(w, &listing.others)).collect();
    let named = named(&workloads, &listing.others);
    let is_labelled = |o: &Value| asks_for_a_label(selector) && selector.matches(&labels(o, "/metadata/labels"));
    let mut others: Vec<Value> = Vec::new();
    let mut unknown = BTreeSet::new();
    for service in listing.services.iter().filter(|s| !is_everywhere("Service", text(s, "/metadata/name"))) {
        let is_external = text(service, "/spec/type") == "ExternalName";
        if workloads.iter().any(|w| serves(service, w))
            || is_named(service, &named)
            || (is_external && is_labelled(service))
        {
            others.push(service.clone());
        } else if is_labelled(service) && labels(service, "/spec/selector").is_empty() {
            unknown.insert(object_of(service));
        }
    }
    let travels = |o: &&Value| {
        let is_by_label = text(o, "/kind") == "ConfigMap" && is_labelled(o);
        let is_common = is_everywhere(text(o, "/kind"), text(o, "/metadata/name"));
        (is_named(o, &named) || is_by_label) && !is_common && !is_token(o)
    };
    others.extend(listing.others.iter().filter(travels).cloned());
    unknown.extend(pods_of_others(&workloads, listing));
    unknown.extend(claims(&workloads));
    let mirrored = Mirrored { selector, workloads: &workloads, services: names_of("Service", &others), accounts };
    unknown.extend(rest(&mirrored, &listing.rest));
    Selected { workloads, others, unknown }
}

/// Whether a selector asks for some label to be there. One that doesn't matches objects
/// without labels, which says nothing of whose they are.
fn asks_for_a_label(selector: &Selector) -> bool {
    let asks = |o: Operator| matches!(o, Operator::In | Operator::Exists);
    !selector.match_labels.is_empty() || selector.match_expressions.iter().any(|e| asks(e.operator))
}

fn names_of<'a>(kind: &str, objects: &'a [Value]) -> BTreeSet<&'a str> {
    objects.iter().filter(|o| text(o, "/kind") == kind).map(|o| text(o, "/metadata/name")).collect()
}

/// The account of a workload's pods.
fn account(workload: &Value) -> &str {
    match text(workload, "/spec/template/spec/serviceAccountName") {
        "" => DEFAULT_ACCOUNT,
        name => name,
    }
}

/// A workload whose pods pull with the Secrets of the namespace's own account, and get its
/// token only if that account gives it, as admission makes them at home: the account never
/// travels, and the partner's is the partner's.
fn as_admitted(workload: &Value, others: &[Value]) -> Value {
    let mut workload = workload.clone();
    let own = others.iter().find(|o| is_default_account(o)).filter(|_| account(&workload) == DEFAULT_ACCOUNT);
    let pod = workload.pointer_mut("/spec/template/spec").and_then(Value::as_object_mut);
    let (Some(own), Some(pod)) = (own, pod) else { return workload };
    let is_missing = |of: Option<&Value>| of.is_none_or(|v| v.as_array().is_some_and(Vec::is_empty));
    for field in ["imagePullSecrets", "automountServiceAccountToken"] {
        if let Some(value) = own.get(field).filter(|_| is_missing(pod.get(field))) {
            pod.insert(field.to_owned(), value.clone());
        }
    }
    workload
}

/// What the workloads name, and what the accounts that they name name.
fn named(workloads: &[Value], others: &[Value]) -> Named {
    let mut named: Named = workloads
        .iter()
        .flat_map(needs)
        .filter(|n| matches!(n.kind, NeedKind::ConfigMap | NeedKind::Secret | NeedKind::ServiceAccount))
        .map(|n| (n.kind.as_str(), n.name))
        .collect();
    named.extend(workloads.iter().map(|w| ("Service", text(w, "/spec/serviceName").to_owned())));
    let accounts = others.iter().filter(|o| text(o, "/kind") == "ServiceAccount");
    let is_ours = |a: &&Value| is_named(a, &named) && !is_everywhere("ServiceAccount", text(a, "/metadata/name"));
    let secrets = |a: &Value| items(a, "/imagePullSecrets").map(|s| ("Secret", text(s, "/name").to_owned())).collect();
    let further: Vec<Vec<(&'static str, String)>> = accounts.filter(is_ours).map(secrets).collect();
    named.extend(further.into_iter().flatten());
    named
}

fn is_named(object: &Value, named: &Named) -> bool {
    let (kind, name) = (text(object, "/kind"), text(object, "/metadata/name"));
    named.iter().any(|(k, n)| *k == kind && n == name)
}

/// Claims that no claim template made: their volumes are home's.
fn claims(workloads: &[Value]) -> BTreeSet<String> {
    let of = |w: &Value| {
        let namespace = text(w, "/metadata/namespace").to_owned();
        let claims = needs(w).into_iter().filter(|n| n.kind == NeedKind::PersistentVolumeClaim);
        claims.map(move |n| format!("{} {namespace}/{}", n.kind, n.name)).collect::<Vec<_>>()
    };
    workloads.iter().flat_map(of).collect()
}

/// Who makes pods of the group that no mirrored workload makes; the pod itself if nobody does.
fn pods_of_others(workloads: &[Value], listing: &Listing) -> BTreeSet<String> {
    let owners = listing.owners();
    let ours: BTreeSet<&str> = workloads.iter().map(|w| text(w, "/metadata/uid")).collect();
    let mut others = BTreeSet::new();
    for pod in listing.pods.iter().filter(|p| stays(p)) {
        let namespace = text(pod, "/metadata/namespace");
        match owners.top(pod) {
            Some((_, _, uid)) if ours.contains(uid) => {}
            Some((kind, name, _)) => drop(others.insert(format!("{kind} {namespace}/{name}"))),
            None => drop(others.insert(object_of(pod))),
        }
    }
    others
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn named(kind: &str, name: &str) -> Value {
        json!({ "apiVersion": "v1", "kind": kind, "metadata": { "name": name, "namespace": "shop" } })
    }

    fn deployment(name: &str, spec: Value) -> Value {
        json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name, "namespace": "shop", "uid": format!("{name}-uid") },
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
            pod["metadata"]["ownerReferences"] =
                json!([{ "kind": kind, "name": name, "uid": name, "controller": true }]);
        }
        pod
    }

    fn replica_set(uid: &str, of: &str) -> Value {
        let mut set = pod(uid, "shop", Some(("Deployment", of)));
        set["metadata"]["uid"] = json!(uid);
        set
    }

    /// Selects in a group of this namespace alone.
    fn selected_by(selector: &Selector, listing: &Listing) -> Selected {
        select(selector, listing, &accounts(selector, std::slice::from_ref(listing)))
    }

    fn shop() -> Selector {
        Selector { match_labels: [("app".to_owned(), "shop".to_owned())].into(), ..Selector::default() }
    }

    fn names(selected: &Selected) -> BTreeSet<String> {
        selected
            .workloads
            .iter()
            .chain(&selected.others)
            .map(|o| format!("{} {}", text(o, "/kind"), text(o, "/metadata/name")))
            .collect()
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
            replica_sets: vec![replica_set("shop-5d4", "shop-uid")],
            ..Listing::default()
        };
        let selected = selected_by(&shop(), &listing);
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
        assert_eq!(
            names(&selected_by(&shop(), &listing)),
            ["Service peers", "StatefulSet shop"].map(String::from).into()
        );
    }

    #[test]
    fn pods_of_other_makers_are_named_and_not_mirrored() {
        let pods = vec![pod("a", "shop", None), pod("b", "shop", Some(("DaemonSet", "logs")))];
        let selected = selected_by(&shop(), &Listing { pods, ..Listing::default() });
        assert_eq!(selected.unknown, ["DaemonSet shop/logs".to_owned(), "Pod shop/a".to_owned()].into());
        assert_eq!(names(&selected), BTreeSet::new());
    }

    /// A listing of what a file holds, each object with a UID of its kind and name.
    fn listed(yaml: &str) -> Listing {
        let mut listing = Listing::default();
        for document in yaml.split("\n---\n") {
            let mut object: Value = serde_yaml_ng::from_str(document).unwrap();
            object["metadata"]["namespace"] = json!("case");
            object["metadata"]["uid"] =
                json!(format!("{}-{}", text(&object, "/kind"), text(&object, "/metadata/name")));
            match text(&object, "/kind") {
                "Deployment" | "StatefulSet" => listing.workloads.push(object),
                "Service" => listing.services.push(object),
                "ConfigMap" | "Secret" | "ServiceAccount" => listing.others.push(object),
                "ReplicaSet" => listing.replica_sets.push(object),
                "Pod" => listing.pods.push(object),
                _ => listing.rest.push(object),
            }
        }
        listing
    }

    fn case() -> Selector {
        Selector { match_labels: [("app".to_owned(), "case".to_owned())].into(), ..Selector::default() }
    }

    #[test]
    fn a_workload_selected_by_expressions_alone_has_its_own_pods_and_its_replicasets_are_known() {
        let listing = listed(
            "
kind: Deployment
metadata: {name: ledger}
spec:
  selector: {matchExpressions: [{key: role, operator: In, values: [ledger, ledger-old]}]}
  template: {metadata: {labels: {app: case, role: ledger}}}
---
kind: Deployment
metadata: {name: desk}
spec:
  selector: {matchLabels: {app: case}, matchExpressions: [{key: role, operator: NotIn, values: [ledger, ledger-old]}]}
  template: {metadata: {labels: {app: case, role: desk}}}
---
kind: ReplicaSet
metadata: {name: ledger-1, ownerReferences: [{kind: Deployment, name: ledger, uid: Deployment-ledger, controller: true}]}
---
kind: ReplicaSet
metadata: {name: desk-1, ownerReferences: [{kind: Deployment, name: desk, uid: Deployment-desk, controller: true}]}
---
kind: Pod
metadata: {name: ledger-1-a, labels: {app: case, role: ledger}, ownerReferences: [{kind: ReplicaSet, name: ledger-1, uid: ReplicaSet-ledger-1, controller: true}]}
---
kind: Pod
metadata: {name: desk-1-a, labels: {app: case, role: desk}, ownerReferences: [{kind: ReplicaSet, name: desk-1, uid: ReplicaSet-desk-1, controller: true}]}",
        );
        let selected = selected_by(&case(), &listing);
        assert_eq!(names(&selected), ["Deployment desk", "Deployment ledger"].map(String::from).into());
        assert_eq!(selected.unknown, BTreeSet::new());
        for (workload, pod) in [("ledger", "ledger-1-a"), ("desk", "desk-1-a")] {
            let workload = selected.workloads.iter().find(|w| text(w, "/metadata/name") == workload).unwrap();
            let owners = listing.owners();
            let its = owners.pods_of(workload, &listing.pods);
            assert_eq!(its.iter().map(|p| text(p, "/metadata/name")).collect::<Vec<_>>(), [pod]);
        }
    }

    #[test]
    fn the_namespaces_own_account_stays_and_the_secrets_by_which_it_pulls_travel() {
        let listing = listed(
            "
kind: Secret
metadata: {name: pull-from-home}
type: kubernetes.io/dockerconfigjson
---
kind: Secret
metadata: {name: other}
---
kind: ServiceAccount
metadata: {name: default}
imagePullSecrets: [{name: pull-from-home}]
automountServiceAccountToken: false
---
kind: Deployment
metadata: {name: till}
spec: {template: {metadata: {labels: {app: case}}, spec: {containers: []}}}
---
kind: Deployment
metadata: {name: own}
spec: {template: {metadata: {labels: {app: case}}, spec: {serviceAccountName: default, imagePullSecrets: [{name: other}]}}}
---
kind: Deployment
metadata: {name: account}
spec: {template: {metadata: {labels: {app: case}}, spec: {serviceAccountName: mine}}}",
        );
        let selected = selected_by(&case(), &listing);
        let expected =
            ["Deployment account", "Deployment own", "Deployment till", "Secret other", "Secret pull-from-home"];
        assert_eq!(names(&selected), expected.map(String::from).into());
        let pulls = |i: usize| selected.workloads[i].pointer("/spec/template/spec/imagePullSecrets").cloned();
        assert_eq!(pulls(0), Some(json!([{ "name": "pull-from-home" }])));
        assert_eq!(pulls(1), Some(json!([{ "name": "other" }])), "admission adds nothing to a pod's own list");
        assert_eq!(pulls(2), None, "another account has its own");
        let token = |i: usize| {
            selected.workloads[i].pointer("/spec/template/spec/automountServiceAccountToken").and_then(Value::as_bool)
        };
        assert_eq!((token(0), token(1), token(2)), (Some(false), Some(false), None));
    }

    #[test]
    fn what_carries_the_groups_labels_travels_or_is_named() {
        let listing = listed(
            "
kind: Deployment
metadata: {name: desk}
spec: {template: {metadata: {labels: {app: case}}, spec: {serviceAccountName: desk}}}
---
kind: ServiceAccount
metadata: {name: desk}
---
kind: ConfigMap
metadata: {name: desk-live, labels: {app: case}}
---
kind: Secret
metadata: {name: desk-key, labels: {app: case}}
---
kind: Service
metadata: {name: desk-db, labels: {app: case}}
spec: {ports: [{port: 5432}]}
---
kind: Service
metadata: {name: clearing, labels: {app: case}}
spec: {type: ExternalName, externalName: clearing.bank.example}
---
kind: Service
metadata: {name: strangers}
spec: {ports: [{port: 80}]}
---
kind: CronJob
metadata: {name: night}
spec: {jobTemplate: {spec: {template: {metadata: {labels: {app: case}}}}}}
---
kind: Job
metadata: {name: night-1, ownerReferences: [{kind: CronJob, name: night, uid: CronJob-night, controller: true}]}
spec: {template: {metadata: {labels: {app: case}}}}
---
kind: Pod
metadata: {name: night-1-a, labels: {app: case}, ownerReferences: [{kind: Job, name: night-1, uid: Job-night-1, controller: true}]}
---
kind: RoleBinding
metadata: {name: desk}
roleRef: {kind: ClusterRole, name: view}
subjects: [{kind: ServiceAccount, name: desk, namespace: case}]",
        );
        let selected = selected_by(&case(), &listing);
        let expected = ["ConfigMap desk-live", "Deployment desk", "Service clearing", "ServiceAccount desk"];
        assert_eq!(names(&selected), expected.map(String::from).into());
        let stays = ["CronJob case/night", "RoleBinding case/desk", "Service case/desk-db"];
        assert_eq!(selected.unknown, stays.map(String::from).into());
        let everything = selected_by(&Selector::default(), &listing);
        assert!(
            !names(&everything).contains("ConfigMap desk-live"),
            "no label is asked for, so none tells whose it is"
        );
    }
}
