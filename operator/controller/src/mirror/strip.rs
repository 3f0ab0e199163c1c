//! Takes from an object what only its own cluster knows, or what would act elsewhere.

use serde_json::{Map, Value, json};

use super::bundle::text;

/// Annotations that a controller or a tool of home's cluster wrote for itself.
const ANNOTATIONS: [&str; 5] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    "deployment.kubernetes.io/revision",
    "argocd.argoproj.io/tracking-id",
    "meta.helm.sh/release-name",
    "meta.helm.sh/release-namespace",
];
/// Beginnings of annotations and labels by which another operator would act at the standby.
const ACTING: [&str; 3] = ["external-dns.alpha.kubernetes.io/", "cert-manager.io/", "argocd.argoproj.io/"];

/// The object as a standby may have it.
pub fn strip(object: &Value) -> Value {
    let mut out = Map::new();
    for key in ["apiVersion", "kind"] {
        out.insert(key.into(), object.get(key).cloned().unwrap_or_default());
    }
    out.insert("metadata".into(), metadata(object.get("metadata").unwrap_or(&Value::Null)));
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
    match kind {
        "Service" => service(&mut out, object),
        "Deployment" | "StatefulSet" => workload(&mut out),
        _ => {}
    }
    out
}

fn metadata(of: &Value) -> Value {
    let mut out = Map::new();
    for key in ["name", "namespace"] {
        out.insert(key.into(), of.get(key).cloned().unwrap_or_default());
    }
    for key in ["labels", "annotations"] {
        let Some(Value::Object(map)) = of.get(key) else { continue };
        let kept: Map<String, Value> =
            map.iter().filter(|(k, _)| !is_homes(k)).map(|(k, v)| (k.clone(), v.clone())).collect();
        if !kept.is_empty() {
            out.insert(key.into(), Value::Object(kept));
        }
    }
    Value::Object(out)
}

fn is_homes(key: &str) -> bool {
    ANNOTATIONS.contains(&key) || ACTING.iter().any(|prefix| key.starts_with(prefix)) || key.starts_with("regent.dev/")
}

/// Cluster IPs are the cluster's own; a node port is kept only if the user chose it.
fn service(out: &mut Value, object: &Value) {
    let headless = text(object, "/spec/clusterIP") == "None";
    let chosen = chosen_ports(object);
    let Some(Value::Object(spec)) = out.get_mut("spec") else { return };
    let own = [
        "clusterIP",
        "clusterIPs",
        "ipFamilies",
        "ipFamilyPolicy",
        "healthCheckNodePort",
        "externalIPs",
        "loadBalancerIP",
    ];
    for key in own {
        spec.remove(key);
    }
    if headless {
        spec.insert("clusterIP".into(), json!("None"));
    }
    let Some(Value::Array(ports)) = spec.get_mut("ports") else { return };
    for port in ports.iter_mut().filter_map(Value::as_object_mut) {
        let protocol = port.get("protocol").and_then(Value::as_str).unwrap_or("TCP");
        let key = (port.get("port").and_then(Value::as_u64).unwrap_or_default(), protocol.to_owned());
        if !chosen.contains(&key) {
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
    let Some(Value::Object(spec)) = out.get_mut("spec") else { return };
    if let Some(Value::Array(claims)) = spec.get_mut("volumeClaimTemplates") {
        for claim in claims.iter_mut().filter_map(Value::as_object_mut) {
            claim.remove("status");
            if let Some(Value::Object(meta)) = claim.get_mut("metadata") {
                meta.remove("creationTimestamp");
            }
            if let Some(Value::Object(spec)) = claim.get_mut("spec") {
                spec.remove("volumeName");
            }
        }
    }
    let Some(Value::Object(template)) = spec.get_mut("template") else { return };
    if let Some(Value::Object(meta)) = template.get_mut("metadata") {
        meta.remove("creationTimestamp");
    }
    let Some(Value::Object(pod)) = template.get_mut("spec") else { return };
    pod.remove("nodeName");
    // The deprecated twin of serviceAccountName, filled in by the API server.
    pod.remove("serviceAccount");
    if let Some(Value::Object(selector)) = pod.get_mut("nodeSelector") {
        selector.remove("kubernetes.io/hostname");
        if selector.is_empty() {
            pod.remove("nodeSelector");
        }
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
}
