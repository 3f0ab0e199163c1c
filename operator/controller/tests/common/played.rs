//! Plays what a bare API server lacks: the controllers that make pods and write the status
//! of Deployments, and the kubelets that run them.

use regent_core::ids::GroupKey;
use regent_kinds::gate::add_gate;
use regent_kinds::kind::replicas;
use regent_kinds::object::{number, text};
use serde_json::{Value, json};

use super::Clusters;

/// One namespace of one cluster.
pub struct Played<'a> {
    pub clusters: &'a Clusters,
    pub site: usize,
    pub namespace: &'a str,
}

/// What the kubelet has made of a pod.
pub enum Pods<'a> {
    /// Ready, without a gate; every image has this digest.
    Ready(&'a str),
    /// Ready behind the open gate of a group.
    Gated(&'a GroupKey),
    /// Held by the gate that its template has.
    Held,
}

impl Played<'_> {
    fn run(&self, args: &[&str], input: &str) -> String {
        self.clusters.kubectl(self.site, &[&["-n", self.namespace], args].concat(), input).unwrap()
    }

    /// Applies what a person wrote.
    pub fn apply(&self, yaml: &str) {
        self.run(&["apply", "-f", "-"], yaml);
    }

    /// Makes the namespace, and its own account, which every pod needs.
    pub fn start(&self) {
        self.clusters.kubectl(self.site, &["create", "namespace", self.namespace], "").unwrap();
        self.run(&["create", "serviceaccount", "default"], "");
    }

    /// Lets a group into the namespace, as `kubectl regent standby prepare` does.
    pub fn let_in(&self, group: &GroupKey) {
        let allowed = format!("{}={group}", regent_api::GROUPS_ANNOTATION);
        self.clusters.kubectl(self.site, &["annotate", "namespace", self.namespace, &allowed], "").unwrap();
    }

    /// A Deployment's pods, as its controller and the kubelet make them, and its status when
    /// it is complete.
    pub fn complete(&self, name: &str, pods: &Pods<'_>) {
        let deployment = self.get("deployment", name);
        self.make_pods(&deployment, pods);
        let all = replicas(&deployment);
        let available = if matches!(pods, Pods::Held) { 0 } else { all };
        self.status(name, (all, all, available));
    }

    /// Writes a Deployment's numbers as its controller would: all, updated, available.
    pub fn status(&self, name: &str, (all, updated, available): (u64, u64, u64)) {
        let generation = number(&self.get("deployment", name), "/metadata/generation");
        let status = json!({ "observedGeneration": generation, "replicas": all, "updatedReplicas": updated,
            "readyReplicas": available, "availableReplicas": available });
        self.patch_status("deployment", name, &status);
    }

    pub fn get(&self, kind: &str, name: &str) -> Value {
        serde_json::from_str(&self.run(&["get", kind, name, "-o", "json"], "")).unwrap()
    }

    fn patch_status(&self, kind: &str, name: &str, status: &Value) {
        let patch = json!({ "status": status }).to_string();
        self.run(&["patch", kind, name, "--subresource=status", "--type=merge", "-p", &patch], "");
    }

    fn make_pods(&self, deployment: &Value, pods: &Pods<'_>) {
        let name = text(deployment, "/metadata/name");
        let (template, set) = (deployment["spec"]["template"].clone(), format!("{name}-1"));
        let labels = &template["metadata"]["labels"];
        let owned = |kind: &str, name: &str, uid: &Value| json!([{ "apiVersion": "apps/v1", "kind": kind, "name": name, "uid": uid, "controller": true }]);
        let owner = owned("Deployment", name, &deployment["metadata"]["uid"]);
        let made = json!({ "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": { "name": set, "namespace": self.namespace, "labels": labels, "ownerReferences": owner },
            "spec": { "replicas": replicas(deployment), "selector": { "matchLabels": labels }, "template": template } });
        self.apply(&made.to_string());
        let owner = owned("ReplicaSet", &set, &self.get("replicaset", &set)["metadata"]["uid"]);
        for i in 0..replicas(deployment) {
            let pod_name = format!("{set}-{i}");
            let mut pod = json!({ "apiVersion": "v1", "kind": "Pod",
                "metadata": { "name": pod_name, "namespace": self.namespace, "labels": labels, "ownerReferences": owner },
                "spec": template["spec"] });
            if let Pods::Gated(group) = pods {
                add_gate(&mut pod, group);
            }
            self.apply(&pod.to_string());
            self.patch_status("pod", &pod_name, &pod_status(&pod, pods));
        }
    }
}

fn pod_status(pod: &Value, pods: &Pods<'_>) -> Value {
    let held = matches!(pods, Pods::Held);
    let of = |list: &str| {
        let containers = pod["spec"][list].as_array().cloned().unwrap_or_default();
        let status = |c: Value| {
            let id = match pods {
                Pods::Ready(digest) => format!("registry.example/any@{digest}"),
                Pods::Gated(_) | Pods::Held => String::new(),
            };
            let state = json!({ "running": { "startedAt": "2026-01-01T00:00:00Z" } });
            json!({ "name": c["name"], "image": c["image"], "imageID": id, "ready": !held, "restartCount": 0, "state": state })
        };
        containers.into_iter().map(status).collect::<Vec<_>>()
    };
    let ready = if held { "False" } else { "True" };
    let statuses = if held { Vec::new() } else { of("containers") };
    json!({ "phase": if held { "Pending" } else { "Running" }, "containerStatuses": statuses,
        "initContainerStatuses": of("initContainers"),
        "conditions": [{ "type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z" }] })
}
