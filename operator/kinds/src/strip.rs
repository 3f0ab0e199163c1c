//! Takes from an object what only its own cluster knows, or what would act elsewhere.
//!
//! Only what is listed here stays, at home before it is signed and at the standby before
//! anything else is made of it: a field that this version has not heard of could reach
//! whatever it likes.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::marks::is_homes;
use crate::object::text;
use crate::template::selector_keys;

/// A map of an object that keeps some of its keys.
struct Kept {
    /// How the map is called.
    pointer: &'static str,
    /// What it keeps.
    keys: &'static [&'static str],
    /// What it loses because it is the cluster's own, or because the API server fills it in.
    lost: &'static [&'static str],
}

const DEPLOYMENT: Kept = Kept {
    pointer: "/spec",
    keys: &[
        "replicas",
        "selector",
        "template",
        "strategy",
        "minReadySeconds",
        "revisionHistoryLimit",
        "paused",
        "progressDeadlineSeconds",
    ],
    lost: &[],
};
const STATEFUL_SET: Kept = Kept {
    pointer: "/spec",
    keys: &[
        "replicas",
        "selector",
        "template",
        "serviceName",
        "podManagementPolicy",
        "updateStrategy",
        "revisionHistoryLimit",
        "minReadySeconds",
        "ordinals",
        "persistentVolumeClaimRetentionPolicy",
        "volumeClaimTemplates",
    ],
    lost: &[],
};
const SERVICE: Kept = Kept {
    pointer: "/spec",
    keys: &[
        "type",
        "selector",
        "ports",
        "externalName",
        "sessionAffinity",
        "sessionAffinityConfig",
        "publishNotReadyAddresses",
        "internalTrafficPolicy",
        "trafficDistribution",
        "externalTrafficPolicy",
        "allocateLoadBalancerNodePorts",
        "loadBalancerClass",
        "loadBalancerSourceRanges",
    ],
    lost: &[
        "clusterIP",
        "clusterIPs",
        "ipFamilies",
        "ipFamilyPolicy",
        "healthCheckNodePort",
        "externalIPs",
        "loadBalancerIP",
    ],
};
const POD: Kept = Kept {
    pointer: "/spec/template/spec",
    keys: &[
        "activeDeadlineSeconds",
        "affinity",
        "automountServiceAccountToken",
        "containers",
        "dnsConfig",
        "dnsPolicy",
        "enableServiceLinks",
        "hostAliases",
        "hostIPC",
        "hostNetwork",
        "hostPID",
        "hostUsers",
        "hostname",
        "hostnameOverride",
        "imagePullSecrets",
        "initContainers",
        "nodeSelector",
        "os",
        "preemptionPolicy",
        "priorityClassName",
        "readinessGates",
        "resourceClaims",
        "resources",
        "restartPolicy",
        "runtimeClassName",
        "schedulerName",
        "schedulingGates",
        "securityContext",
        "serviceAccountName",
        "setHostnameAsFQDN",
        "shareProcessNamespace",
        "subdomain",
        "terminationGracePeriodSeconds",
        "tolerations",
        "topologySpreadConstraints",
        "volumes",
    ],
    // `serviceAccount` is the deprecated twin of serviceAccountName; the last two follow from
    // the classes of a cluster.
    lost: &["nodeName", "serviceAccount", "ephemeralContainers", "priority", "overhead"],
};
const CONTAINER: &[&str] = &[
    "name",
    "image",
    "imagePullPolicy",
    "command",
    "args",
    "workingDir",
    "ports",
    "env",
    "envFrom",
    "resources",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
    "volumeMounts",
    "volumeDevices",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "securityContext",
    "stdin",
    "stdinOnce",
    "tty",
];
/// A claim's sources stay so that the standby can refuse them: without them the volume would
/// be there, and empty.
const CLAIM: &[&str] = &[
    "accessModes",
    "resources",
    "storageClassName",
    "volumeMode",
    "selector",
    "volumeAttributesClassName",
    "dataSource",
    "dataSourceRef",
];

fn kept_of(kind: &str) -> &'static [Kept] {
    match kind {
        "Service" => const { &[SERVICE] },
        "Deployment" => const { &[DEPLOYMENT, POD] },
        "StatefulSet" => const { &[STATEFUL_SET, POD] },
        _ => &[],
    }
}

/// The object as a standby may have it.
pub fn strip(object: &Value) -> Value {
    let mut out = Map::new();
    for key in ["apiVersion", "kind"] {
        out.insert(key.into(), object.get(key).cloned().unwrap_or_default());
    }
    out.insert("metadata".into(), metadata(object.get("metadata").unwrap_or(&Value::Null), &BTreeSet::new()));
    let kind = text(object, "/kind");
    let kept: &[&str] = match kind {
        "ConfigMap" => &["data", "binaryData", "immutable"],
        "Secret" => &["data", "type", "immutable"],
        "ServiceAccount" => &["imagePullSecrets", "automountServiceAccountToken"],
        _ => &["spec"],
    };
    for key in kept {
        if let Some(value) = object.get(*key) {
            out.insert((*key).into(), value.clone());
        }
    }
    let mut out = Value::Object(out);
    for Kept { pointer, keys, .. } in kept_of(kind) {
        if let Some(map) = out.pointer_mut(pointer) {
            retain(map, keys);
        }
    }
    match kind {
        "Service" => service(&mut out, object),
        "Deployment" | "StatefulSet" => workload(&mut out),
        _ => {}
    }
    out
}

/// Fields that [`strip`] takes away without knowing what they mean.
pub fn unknown_fields(object: &Value) -> Vec<String> {
    let mut unknown = Vec::new();
    for Kept { pointer, keys, lost } in kept_of(text(object, "/kind")) {
        let Some(Value::Object(map)) = object.pointer(pointer) else { continue };
        let fields = map.keys().map(String::as_str).filter(|k| !keys.contains(k) && !lost.contains(k));
        unknown.extend(fields.map(|field| format!("{}.{field}", pointer[1..].replace('/', "."))));
    }
    unknown
}

fn retain(map: &mut Value, keys: &[&str]) {
    if let Value::Object(map) = map {
        map.retain(|key, _| keys.contains(&key.as_str()));
    }
}

/// Names, labels and annotations; labels that `selector` has stay whatever they are, or the
/// object would not be one any more.
fn metadata(of: &Value, selector: &BTreeSet<String>) -> Value {
    let mut out = Map::new();
    for key in ["name", "namespace"] {
        if let Some(value) = of.get(key) {
            out.insert(key.into(), value.clone());
        }
    }
    for key in ["labels", "annotations"] {
        let Some(Value::Object(map)) = of.get(key) else { continue };
        let stays = |k: &str| !is_homes(k) || (key == "labels" && selector.contains(k));
        let kept: Map<String, Value> =
            map.iter().filter(|(k, _)| stays(k)).map(|(k, v)| (k.clone(), v.clone())).collect();
        if !kept.is_empty() {
            out.insert(key.into(), Value::Object(kept));
        }
    }
    Value::Object(out)
}

/// Cluster IPs are the cluster's own; a node port is kept only if the user chose it.
fn service(out: &mut Value, object: &Value) {
    let is_signed = object.pointer("/metadata/uid").is_none();
    let chosen = chosen_ports(object);
    let Some(Value::Object(spec)) = out.get_mut("spec") else { return };
    if text(object, "/spec/clusterIP") == "None" {
        spec.insert("clusterIP".into(), json!("None"));
    }
    let Some(Value::Array(ports)) = spec.get_mut("ports") else { return };
    for port in ports.iter_mut().filter_map(Value::as_object_mut) {
        let protocol = port.get("protocol").and_then(Value::as_str).unwrap_or("TCP");
        let key = (port.get("port").and_then(Value::as_u64).unwrap_or_default(), protocol.to_owned());
        // Out of a bundle only chosen ports come: who chose them stayed at home.
        if !is_signed && !chosen.contains(&key) {
            port.remove("nodePort");
        }
    }
}

/// The ports whose node port some manager of fields has set. What the API server
/// allocates belongs to no manager.
fn chosen_ports(object: &Value) -> Vec<(u64, String)> {
    let managers = object.pointer("/metadata/managedFields").and_then(Value::as_array);
    let ports = managers.into_iter().flatten().filter_map(|m| m.pointer("/fieldsV1/f:spec/f:ports")?.as_object());
    let chosen = ports.flatten().filter(|(_, fields)| fields.get("f:nodePort").is_some());
    chosen
        .filter_map(|(key, _)| {
            let key: Value = serde_json::from_str(key.strip_prefix("k:")?).ok()?;
            Some((key.get("port")?.as_u64()?, key.get("protocol")?.as_str()?.to_owned()))
        })
        .collect()
}

fn workload(out: &mut Value) {
    let selector: BTreeSet<String> = selector_keys(out).collect();
    let Some(Value::Object(spec)) = out.get_mut("spec") else { return };
    if let Some(Value::Array(claims)) = spec.get_mut("volumeClaimTemplates") {
        claims.iter_mut().for_each(claim);
    }
    let Some(Value::Object(template)) = spec.get_mut("template") else { return };
    template.retain(|key, _| matches!(key.as_str(), "metadata" | "spec"));
    if let Some(meta) = template.get_mut("metadata") {
        *meta = metadata(meta, &selector);
    }
    let Some(Value::Object(pod)) = template.get_mut("spec") else { return };
    for list in ["containers", "initContainers"] {
        let containers = pod.get_mut(list).and_then(Value::as_array_mut);
        containers.into_iter().flatten().for_each(|c| retain(c, CONTAINER));
    }
    for volume in pod.get_mut("volumes").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(template) = volume.pointer_mut("/ephemeral/volumeClaimTemplate") {
            claim(template);
        }
    }
    if let Some(Value::Object(selector)) = pod.get_mut("nodeSelector") {
        selector.remove("kubernetes.io/hostname");
        if selector.is_empty() {
            pod.remove("nodeSelector");
        }
    }
}

fn claim(claim: &mut Value) {
    retain(claim, &["apiVersion", "kind", "metadata", "spec"]);
    if let Some(meta) = claim.get_mut("metadata") {
        *meta = metadata(meta, &BTreeSet::new());
    }
    if let Some(spec) = claim.get_mut("spec") {
        retain(spec, CLAIM);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_loses_its_addresses_and_keeps_the_node_port_that_its_user_chose() {
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": "shop", "namespace": "shop", "uid": "u", "resourceVersion": "7",
                "annotations": { "kubectl.kubernetes.io/last-applied-configuration": "{}", "mine": "yes",
                                 "external-dns.alpha.kubernetes.io/hostname": "shop.example" },
                "managedFields": [{ "manager": "kubectl", "fieldsV1": { "f:spec": { "f:ports": {
                    "k:{\"port\":8080,\"protocol\":\"TCP\"}": { ".": {}, "f:nodePort": {}, "f:port": {} },
                    "k:{\"port\":8081,\"protocol\":\"TCP\"}": { ".": {}, "f:port": {} } } } } }] },
            "spec": { "type": "NodePort", "clusterIP": "10.0.0.7", "clusterIPs": ["10.0.0.7"], "ipFamilies": ["IPv4"],
                "selector": { "app": "shop" },
                "ports": [{ "port": 8080, "protocol": "TCP", "nodePort": 30080 }, { "port": 8081, "protocol": "TCP", "nodePort": 31234 }] },
            "status": { "loadBalancer": {} }
        });
        let expected = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": "shop", "namespace": "shop", "annotations": { "mine": "yes" } },
            "spec": { "type": "NodePort", "selector": { "app": "shop" },
                "ports": [{ "port": 8080, "protocol": "TCP", "nodePort": 30080 }, { "port": 8081, "protocol": "TCP" }] }
        });
        assert_eq!(strip(&service), expected);
    }

    #[test]
    fn a_headless_service_stays_headless() {
        let service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "db", "namespace": "shop" },
            "spec": { "clusterIP": "None", "clusterIPs": ["None"], "ports": [{ "port": 5432 }] } });
        assert_eq!(strip(&service)["spec"], json!({ "clusterIP": "None", "ports": [{ "port": 5432 }] }));
    }

    #[test]
    fn a_workload_loses_status_and_node_names() {
        let deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": { "name": "shop", "namespace": "shop", "generation": 3, "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": { "app": "shop", "argocd.argoproj.io/instance": "x" }, "annotations": { "deployment.kubernetes.io/revision": "3" } },
            "spec": { "replicas": 2, "template": { "metadata": { "creationTimestamp": null, "labels": { "app": "shop" } },
                "spec": { "nodeName": "n1", "nodeSelector": { "kubernetes.io/hostname": "n1" },
                          "serviceAccount": "shop", "serviceAccountName": "shop", "containers": [] } } },
            "status": { "replicas": 2 }
        });
        let expected = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": { "name": "shop", "namespace": "shop", "labels": { "app": "shop" } },
            "spec": { "replicas": 2, "template": { "metadata": { "labels": { "app": "shop" } },
                "spec": { "serviceAccountName": "shop", "containers": [] } } }
        });
        assert_eq!(strip(&deployment), expected);
    }

    #[test]
    fn data_travels_and_tokens_of_accounts_do_not() {
        let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "s", "namespace": "shop", "uid": "u" },
            "type": "Opaque", "data": { "token": "eA==" } });
        assert_eq!(strip(&secret)["data"]["token"], "eA==");
        let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "s", "namespace": "shop" },
            "secrets": [{ "name": "s-token" }], "imagePullSecrets": [{ "name": "pull" }] });
        let stripped = strip(&account);
        assert_eq!(stripped.get("secrets"), None);
        assert_eq!(stripped["imagePullSecrets"][0]["name"], "pull");
    }

    #[test]
    fn what_is_not_listed_does_not_travel() {
        let object = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": { "name": "shop", "namespace": "shop", "finalizers": ["x"], "ownerReferences": [], "generateName": "s",
                "labels": { "istio.io/rev": "x", "sidecar.istio.io/inject": "true", "app": "shop" } },
            "spec": { "newField": 1, "selector": { "matchLabels": { "app": "shop", "linkerd.io/inject": "x" } },
                "template": { "metadata": { "finalizers": ["x"], "labels": { "app": "shop", "linkerd.io/inject": "x", "istio.io/rev": "x" } },
                    "spec": { "nodeName": "n", "priority": 7, "workloadRef": {},
                              "containers": [{ "name": "c", "image": "i", "newField": 1 }] } } }
        });
        let expected = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": { "name": "shop", "namespace": "shop", "labels": { "app": "shop" } },
            "spec": { "selector": { "matchLabels": { "app": "shop", "linkerd.io/inject": "x" } },
                "template": { "metadata": { "labels": { "app": "shop", "linkerd.io/inject": "x" } },
                    "spec": { "containers": [{ "name": "c", "image": "i" }] } } }
        });
        assert_eq!(strip(&object), expected);
        assert_eq!(unknown_fields(&object), ["spec.newField", "spec.template.spec.workloadRef"]);
        assert_eq!(unknown_fields(&expected), Vec::<String>::new());
    }

    #[test]
    fn stripping_what_is_stripped_changes_nothing() {
        let service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "s", "namespace": "shop" },
            "spec": { "type": "NodePort", "ports": [{ "port": 80, "nodePort": 30080 }], "externalIPs": ["192.0.2.1"] } });
        let once = strip(&service);
        assert_eq!(once["spec"]["ports"][0]["nodePort"], 30080, "the standby has no managers of fields to ask");
        assert_eq!(once["spec"].get("externalIPs"), None);
        assert_eq!(strip(&once), once);
    }
}
