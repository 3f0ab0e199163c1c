//! The pods of a group, as the cache has them.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use regent_api::FailoverGroupSpec;
use regent_api::gate::has_gate;
use regent_core::ids::GroupKey;
use regent_kinds::object::labels;
use regent_kinds::pods::is_gone;

use super::judge::PodName;
use crate::cache::{Cache, Unread};
use crate::mirror::capture::PODS;

/// A pod that the group's selector matches and that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matched {
    /// Its name.
    pub name: PodName,
    /// Whether it has the group's gate.
    pub gated: bool,
}

/// A group's pods, as they are judged.
pub fn of_group(cache: &Cache, group: &GroupKey, spec: &FailoverGroupSpec) -> Result<Vec<Matched>, Unread> {
    let matched = |pod: Pod| Matched { name: name_of(&pod), gated: has_gate(&pod, group) };
    Ok(alive(cache, spec)?.into_iter().map(matched).collect())
}

/// All pods that a group's selector matches and that have not ended.
pub fn alive(cache: &Cache, spec: &FailoverGroupSpec) -> Result<Vec<Pod>, Unread> {
    let mut alive = Vec::new();
    for namespace in &spec.namespaces {
        let found = cache.read(namespace, &PODS)?;
        let ours = found.into_iter().filter(|p| spec.selector.matches(&labels(p, "/metadata/labels")));
        let pods = ours.filter_map(|p| serde_json::from_value::<Pod>(Arc::unwrap_or_clone(p)).ok());
        alive.extend(pods.filter(|p| !is_gone(p)));
    }
    Ok(alive)
}

/// `NAMESPACE/NAME`.
pub fn name_of(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any())
}
