//! `GatedPods`: which pods of a namespace get a gate.
//!
//! Parameter of the admission policies. Namespaced, because a policy is evaluated once
//! for each parameter object: with the cluster-scoped `FailoverGroup` every group would
//! be evaluated for every pod.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::selector::Selector;

/// Pods of this namespace that belong to a group; written by the operator.
#[derive(Debug, Clone, PartialEq, Eq, CustomResource, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "regent.dev",
    version = "v1alpha1",
    kind = "GatedPods",
    plural = "gatedpods",
    singular = "gatedpods",
    namespaced,
    category = "regent",
    derive = "PartialEq",
    doc = "GatedPods says which pods of its namespace get a gate: the parameter of Regent's admission policies. The operator writes it.",
    printcolumn(name = "Group", type_ = "string", json_path = ".spec.group"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct GatedPodsSpec {
    /// The group, as HOME/NAME: what the gate's volume says.
    #[schemars(length(min = 3, max = 127))]
    pub group: String,
    /// Which pods.
    #[serde(default)]
    pub selector: Selector,
}
