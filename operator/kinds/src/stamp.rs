//! Which template a pod was made from.
//!
//! Each copy's pod template carries a digest of itself as a label, so that a pod tells the
//! template that it was made from, whoever made it in between: a ReplicaSet, a StatefulSet,
//! before or after the operator's restart.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use regent_core::sign::Digest;
use serde_json::{Value, json};

use crate::object::{canonical, object_of, text};

/// Label of a copy's pod template: a digest of the template without it.
pub const TEMPLATE_LABEL: &str = "regent.dev/template";
const POINTER: &str = "/spec/template/metadata/labels/regent.dev~1template";
/// As many hexadecimal digits as tell the templates of one workload apart.
const DIGITS: usize = 16;

/// Gives a copy's pod template its digest.
pub fn stamp(copy: &mut Value) {
    let object = object_of(copy);
    let Some(template) = copy.pointer_mut("/spec/template").filter(|t| t.is_object()) else { return };
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(TEMPLATE_LABEL);
    }
    let text = canonical(json!([object, template])).to_string();
    let digest = Digest::of(text.as_bytes()).to_string();
    template["metadata"]["labels"][TEMPLATE_LABEL] = digest[..DIGITS].into();
}

/// The digest that a workload's template carries; empty: none of ours.
pub fn template_of(workload: &Value) -> &str {
    text(workload, POINTER)
}

/// The digest of the template that a pod was made from.
pub fn made_from(pod: &Pod) -> &str {
    pod.labels().get(TEMPLATE_LABEL).map(String::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_keeps_its_stamp_until_it_changes_and_no_two_workloads_share_one() {
        let workload = |name: &str, image: &str| {
            let mut copy = json!({ "kind": "Deployment", "metadata": { "name": name, "namespace": "shop" },
                "spec": { "replicas": 2, "template": { "metadata": { "labels": { "app": "shop" } }, "spec": { "containers": [{ "image": image }] } } } });
            stamp(&mut copy);
            copy
        };
        let first = workload("a", "shop:1");
        let mut again = first.clone();
        again["spec"]["replicas"] = json!(3);
        stamp(&mut again);
        assert_eq!(template_of(&first), template_of(&again), "replicas are no part of it");
        assert_eq!(template_of(&first).len(), DIGITS);
        assert_ne!(template_of(&first), template_of(&workload("a", "shop:2")));
        assert_ne!(template_of(&first), template_of(&workload("b", "shop:1")));
    }
}
