//! Whose a pod is: by owner references, never by labels, which several workloads may share.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::object::{controller_of, items, text};

/// ReplicaSet and Job stand between a pod and what a person wrote; more steps are a loop.
const STEPS: usize = 4;

/// What makes pods for others, by UID.
#[derive(Debug, Clone, Default)]
pub struct Owners<'a>(BTreeMap<&'a str, &'a Value>);

impl<'a> Owners<'a> {
    /// From the ReplicaSets and Jobs of a namespace.
    pub fn new(between: impl Iterator<Item = &'a Value>) -> Self {
        Self(between.map(|o| (text(o, "/metadata/uid"), o)).filter(|(uid, _)| !uid.is_empty()).collect())
    }

    /// The first in the chain of controllers that no other controls: kind, name and UID.
    pub fn top(&self, object: &'a Value) -> Option<(&'a str, &'a str, &'a str)> {
        let mut found = controller_of(object)?;
        for _ in 0..STEPS {
            let Some(above) = self.0.get(found.2).and_then(|owner| controller_of(owner)) else { break };
            found = above;
        }
        Some(found)
    }

    /// The pods that a workload controls.
    pub fn pods_of(&self, workload: &Value, pods: &'a [Value]) -> Vec<&'a Value> {
        let uid = text(workload, "/metadata/uid");
        let is_its = |p: &&Value| !uid.is_empty() && self.top(p).is_some_and(|(_, _, owner)| owner == uid);
        pods.iter().filter(is_its).collect()
    }
}

/// Whether a pod stays: nobody has deleted it.
pub fn stays(pod: &Value) -> bool {
    pod.pointer("/metadata/deletionTimestamp").is_none()
}

/// Whether a pod stays and is Ready.
pub fn is_ready(pod: &Value) -> bool {
    let ready = |c: &Value| text(c, "/type") == "Ready" && text(c, "/status") == "True";
    stays(pod) && items(pod, "/status/conditions").any(ready)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn owned(uid: &str, by: (&str, &str, &str)) -> Value {
        json!({ "metadata": { "name": uid, "uid": uid, "ownerReferences": [
            { "kind": by.0, "name": by.1, "uid": by.2, "controller": true }] } })
    }

    #[test]
    fn a_pod_is_its_owners_and_not_that_of_whoever_shares_its_labels() {
        let set = owned("rs-1", ("Deployment", "counter", "d-1"));
        let pods = [
            owned("counter-a", ("ReplicaSet", "counter-5d4", "rs-1")),
            owned("vault-0", ("StatefulSet", "vault", "s-1")),
            json!({ "metadata": { "name": "bare", "uid": "bare" } }),
            owned("orphan", ("ReplicaSet", "gone-1", "rs-9")),
        ];
        let owners = Owners::new([&set].into_iter());
        let names = |uid: &str| -> Vec<String> {
            let workload = json!({ "metadata": { "uid": uid } });
            owners.pods_of(&workload, &pods).iter().map(|p| text(p, "/metadata/name").to_owned()).collect()
        };
        assert_eq!(names("d-1"), ["counter-a"]);
        assert_eq!(names("s-1"), ["vault-0"]);
        assert_eq!(names(""), Vec::<String>::new());
        assert_eq!(owners.top(&pods[3]), Some(("ReplicaSet", "gone-1", "rs-9")));
    }

    #[test]
    fn owners_that_own_each_other_end() {
        let (one, two) = (owned("a", ("X", "b", "b")), owned("b", ("X", "a", "a")));
        assert!(Owners::new([&one, &two].into_iter()).top(&one).is_some());
    }
}
