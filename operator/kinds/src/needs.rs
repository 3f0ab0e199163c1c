//! What a pod template needs from around it, and who of it needs that.
//!
//! The kubelet looks most of this up when it makes a container, which at a standby is after
//! the gate has opened: what is missing then stops the start for ever. So it is asked before.

use std::fmt;

use serde_json::Value;

use crate::object::{items, text};

/// A kind that pods need objects of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NeedKind {
    /// Values and files.
    ConfigMap,
    /// What an image volume holds; its name is the reference.
    Image,
    /// A claim that is no claim template's.
    PersistentVolumeClaim,
    /// Whom the scheduler prefers.
    PriorityClass,
    /// What runs the containers.
    RuntimeClass,
    /// Values and files that are nobody else's business.
    Secret,
    /// Who the pod is.
    ServiceAccount,
    /// What makes a claim's volume.
    StorageClass,
}

impl NeedKind {
    /// The kind as the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Image => "Image",
            Self::PersistentVolumeClaim => "PersistentVolumeClaim",
            Self::PriorityClass => "PriorityClass",
            Self::RuntimeClass => "RuntimeClass",
            Self::Secret => "Secret",
            Self::ServiceAccount => "ServiceAccount",
            Self::StorageClass => "StorageClass",
        }
    }
}

impl fmt::Display for NeedKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing that a workload's pods need.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Need {
    /// Its kind.
    pub kind: NeedKind,
    /// Its name; in the workload's namespace if its kind has namespaces.
    pub name: String,
    /// The key of it that has to be there.
    pub key: Option<String>,
    /// Whether pods start without it.
    pub is_optional: bool,
    /// Who needs it: `container main, env ROBOT`.
    pub by: String,
}

/// Collects the needs of one pod template.
struct Needs(Vec<Need>);

impl Needs {
    fn add(&mut self, kind: NeedKind, name: &str, by: &str) {
        self.put(kind, name, None, false, by);
    }

    fn put(&mut self, kind: NeedKind, name: &str, key: Option<&str>, is_optional: bool, by: &str) {
        if name.is_empty() {
            return;
        }
        let (name, by) = (name.to_owned(), by.to_owned());
        self.0.push(Need { kind, name, key: key.map(str::to_owned), is_optional, by });
    }

    /// A reference with a name, and perhaps `key` and `optional`.
    fn reference(&mut self, kind: NeedKind, reference: Option<&Value>, by: &str) {
        let Some(reference) = reference else { return };
        let key = reference.get("key").and_then(Value::as_str);
        self.put(kind, text(reference, "/name"), key, is_optional(reference), by);
    }

    /// A volume's source: all of it, or each key that it lists.
    fn files(&mut self, kind: NeedKind, name: &str, source: &Value, by: &str) {
        let mut listed = items(source, "/items").map(|i| text(i, "/key")).peekable();
        if listed.peek().is_none() {
            self.put(kind, name, None, is_optional(source), by);
        }
        for key in listed {
            self.put(kind, name, Some(key), is_optional(source), by);
        }
    }

    fn container(&mut self, container: &Value, who: &str) {
        let who = format!("{who} {}", text(container, "/name"));
        for env in items(container, "/env") {
            let by = format!("{who}, env {}", text(env, "/name"));
            self.reference(NeedKind::ConfigMap, env.pointer("/valueFrom/configMapKeyRef"), &by);
            self.reference(NeedKind::Secret, env.pointer("/valueFrom/secretKeyRef"), &by);
        }
        for from in items(container, "/envFrom") {
            let by = format!("{who}, envFrom");
            self.reference(NeedKind::ConfigMap, from.get("configMapRef"), &by);
            self.reference(NeedKind::Secret, from.get("secretRef"), &by);
        }
    }

    fn volume(&mut self, volume: &Value) {
        let by = format!("volume {}", text(volume, "/name"));
        let Some(sources) = volume.as_object() else { return };
        for (kind, source) in sources {
            match kind.as_str() {
                "configMap" => self.files(NeedKind::ConfigMap, text(source, "/name"), source, &by),
                "secret" => self.files(NeedKind::Secret, text(source, "/secretName"), source, &by),
                "projected" => self.projected(source, &by),
                "persistentVolumeClaim" => {
                    self.add(NeedKind::PersistentVolumeClaim, text(source, "/claimName"), &by);
                }
                "image" => self.add(NeedKind::Image, text(source, "/reference"), &by),
                "ephemeral" => {
                    let class = text(source, "/volumeClaimTemplate/spec/storageClassName");
                    self.add(NeedKind::StorageClass, class, &by);
                }
                "csi" => self.add(NeedKind::Secret, text(source, "/nodePublishSecretRef/name"), &by),
                "azureFile" => self.add(NeedKind::Secret, text(source, "/secretName"), &by),
                // The older network volumes all call it the same.
                _ => self.add(NeedKind::Secret, text(source, "/secretRef/name"), &by),
            }
        }
    }

    fn projected(&mut self, projected: &Value, by: &str) {
        for source in items(projected, "/sources") {
            for (field, kind) in [("configMap", NeedKind::ConfigMap), ("secret", NeedKind::Secret)] {
                if let Some(source) = source.get(field) {
                    self.files(kind, text(source, "/name"), source, by);
                }
            }
        }
    }
}

fn is_optional(reference: &Value) -> bool {
    reference.get("optional") == Some(&Value::Bool(true))
}

/// Everything that a Deployment's or StatefulSet's pods need, in the order of its template.
pub fn needs(workload: &Value) -> Vec<Need> {
    let mut needs = Needs(Vec::new());
    if let Some(pod) = workload.pointer("/spec/template/spec") {
        needs.add(NeedKind::ServiceAccount, text(pod, "/serviceAccountName"), "the pod, serviceAccountName");
        needs.add(NeedKind::PriorityClass, text(pod, "/priorityClassName"), "the pod, priorityClassName");
        needs.add(NeedKind::RuntimeClass, text(pod, "/runtimeClassName"), "the pod, runtimeClassName");
        for secret in items(pod, "/imagePullSecrets") {
            // The kubelet warns of one that is missing, and pulls without it.
            needs.put(NeedKind::Secret, text(secret, "/name"), None, true, "the pod, imagePullSecrets");
        }
        for container in items(pod, "/initContainers") {
            needs.container(container, "init container");
        }
        for container in items(pod, "/containers") {
            needs.container(container, "container");
        }
        for volume in items(pod, "/volumes") {
            needs.volume(volume);
        }
    }
    for claim in items(workload, "/spec/volumeClaimTemplates") {
        let by = format!("claim template {}", text(claim, "/metadata/name"));
        needs.add(NeedKind::StorageClass, text(claim, "/spec/storageClassName"), &by);
    }
    needs.0
}

/// The account of pods that name none.
pub const DEFAULT_ACCOUNT: &str = "default";

/// Objects that everyone has: never mirrored, never taken.
pub fn is_everywhere(kind: &str, name: &str) -> bool {
    matches!(
        (kind, name),
        ("ServiceAccount", DEFAULT_ACCOUNT) | ("ConfigMap", "kube-root-ca.crt") | ("Service", "kubernetes")
    )
}

/// The account that each namespace has of its own, and that pods get which name none.
pub fn is_default_account(object: &Value) -> bool {
    (text(object, "/kind"), text(object, "/metadata/name")) == ("ServiceAccount", DEFAULT_ACCOUNT)
}

/// The token of a ServiceAccount: worth nothing in another cluster.
pub fn is_token(object: &Value) -> bool {
    text(object, "/kind") == "Secret" && text(object, "/type") == "kubernetes.io/service-account-token"
}

/// What a workload's pods need and a standby won't get, given the ConfigMaps, Secrets and
/// ServiceAccounts of its namespace at home. What pods start without is no reason.
pub fn unmet(workload: &Value, others: &[Value]) -> Vec<String> {
    let namespace = text(workload, "/metadata/namespace");
    let travels = |n: &&Need| {
        matches!(n.kind, NeedKind::ConfigMap | NeedKind::Secret | NeedKind::ServiceAccount)
            && !is_everywhere(n.kind.as_str(), &n.name)
    };
    let mut unmet = Vec::new();
    for need in needs(workload).iter().filter(travels).filter(|n| !n.is_optional) {
        let Need { kind, name, by, .. } = need;
        let found = others.iter().find(|o| text(o, "/kind") == kind.as_str() && text(o, "/metadata/name") == name);
        let lacks = |object: &Value| {
            let has = |key: &&String| {
                ["data", "binaryData"].iter().any(|m| object.get(*m).is_some_and(|m| m.get(key.as_str()).is_some()))
            };
            need.key.clone().filter(|k| !has(&k))
        };
        let what = match found {
            None => format!("{kind} {namespace}/{name} is missing at home"),
            Some(object) if is_token(object) => {
                format!("{kind} {namespace}/{name} (service-account token) does not travel")
            }
            Some(object) => match lacks(object) {
                Some(key) => format!("{kind} {namespace}/{name} has no key {key} at home"),
                None => continue,
            },
        };
        unmet.push(format!("{what}; {by} needs it"));
    }
    unmet
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn workload(pod: Value) -> Value {
        json!({ "kind": "Deployment", "metadata": { "name": "teller", "namespace": "case" }, "spec": { "template": { "spec": pod } } })
    }

    fn said(workload: &Value) -> Vec<String> {
        let say = |n: Need| {
            let key = n.key.map(|k| format!("[{k}]")).unwrap_or_default();
            let optional = if n.is_optional { "?" } else { "" };
            format!("{} {}{key}{optional} < {}", n.kind, n.name, n.by)
        };
        needs(workload).into_iter().map(say).collect()
    }

    #[test]
    fn every_place_of_a_template_that_names_something_is_told_with_who_names_it() {
        let pod = json!({
            "serviceAccountName": "teller", "priorityClassName": "payments", "runtimeClassName": "gvisor",
            "imagePullSecrets": [{ "name": "pull" }],
            "initContainers": [{ "name": "schema", "envFrom": [{ "configMapRef": { "name": "db" } }] }],
            "containers": [{ "name": "main",
                "env": [{ "name": "PLAIN", "value": "x" }, { "name": "A", "valueFrom": { "secretKeyRef": { "name": "s", "key": "k" } } },
                        { "name": "B", "valueFrom": { "configMapKeyRef": { "name": "m", "key": "k", "optional": true } } }],
                "envFrom": [{ "secretRef": { "name": "all" } }] }],
            "volumes": [
                { "name": "none", "emptyDir": {} },
                { "name": "files", "configMap": { "name": "files", "items": [{ "key": "a", "path": "a" }, { "key": "b", "path": "b" }] } },
                { "name": "cert", "secret": { "secretName": "cert" } },
                { "name": "both", "projected": { "sources": [{ "secret": { "name": "p", "optional": true } }, { "configMap": { "name": "p" } }] } },
                { "name": "data", "persistentVolumeClaim": { "claimName": "data" } },
                { "name": "driver", "csi": { "driver": "d", "nodePublishSecretRef": { "name": "publish" } } },
                { "name": "old", "cephfs": { "secretRef": { "name": "ceph" } } },
                { "name": "model", "image": { "reference": "registry/model:1" } },
                { "name": "scratch", "ephemeral": { "volumeClaimTemplate": { "spec": { "storageClassName": "fast" } } } }] });
        let mut set = workload(pod);
        set["spec"]["volumeClaimTemplates"] =
            json!([{ "metadata": { "name": "ledger" }, "spec": { "storageClassName": "by-hand" } }]);
        let expected = [
            "ServiceAccount teller < the pod, serviceAccountName",
            "PriorityClass payments < the pod, priorityClassName",
            "RuntimeClass gvisor < the pod, runtimeClassName",
            "Secret pull? < the pod, imagePullSecrets",
            "ConfigMap db < init container schema, envFrom",
            "Secret s[k] < container main, env A",
            "ConfigMap m[k]? < container main, env B",
            "Secret all < container main, envFrom",
            "ConfigMap files[a] < volume files",
            "ConfigMap files[b] < volume files",
            "Secret cert < volume cert",
            "Secret p? < volume both",
            "ConfigMap p < volume both",
            "PersistentVolumeClaim data < volume data",
            "Secret publish < volume driver",
            "Secret ceph < volume old",
            "Image registry/model:1 < volume model",
            "StorageClass fast < volume scratch",
            "StorageClass by-hand < claim template ledger",
        ];
        assert_eq!(said(&set), expected);
    }

    #[test]
    fn what_is_missing_at_home_or_does_not_travel_is_said_with_who_needs_it() {
        let others: Vec<Value> = [
            "{kind: Secret, metadata: {name: robot, namespace: case}, type: kubernetes.io/service-account-token, data: {token: eA==}}",
            "{kind: Secret, metadata: {name: half, namespace: case}, data: {there: eA==}}",
            "{kind: ConfigMap, metadata: {name: late, namespace: case}}",
        ]
        .map(|y| serde_yaml_ng::from_str(y).unwrap())
        .into();
        let teller: Value = serde_yaml_ng::from_str(
            "
kind: Deployment
metadata: {name: teller, namespace: case}
spec:
  template:
    spec:
      serviceAccountName: default
      containers:
      - name: main
        env:
        - {name: ROBOT, valueFrom: {secretKeyRef: {name: robot, key: token}}}
        - {name: LATE, valueFrom: {secretKeyRef: {name: late, key: k}}}
        - {name: MOOD, valueFrom: {configMapKeyRef: {name: mood, key: k, optional: true}}}
        - {name: THERE, valueFrom: {secretKeyRef: {name: half, key: there}}}
        - {name: GONE, valueFrom: {secretKeyRef: {name: half, key: gone}}}
      volumes: [{name: root, configMap: {name: kube-root-ca.crt}}]
",
        )
        .unwrap();
        let expected = [
            "Secret case/robot (service-account token) does not travel; container main, env ROBOT needs it",
            "Secret case/late is missing at home; container main, env LATE needs it",
            "Secret case/half has no key gone at home; container main, env GONE needs it",
        ];
        assert_eq!(unmet(&teller, &others), expected);
    }
}
