//! `ControlLease`: what this site keeps of a group's control lease.
//!
//! One object for each group, named `HOME.NAME`, at every site. Its status has parts of
//! different owners, each of whom writes only its own, by compare-and-swap.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use regent_core::ids::GroupKey;
use regent_core::sign::Envelope;
use regent_core::witness::Record;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Whose lease this is.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "regent.dev",
    version = "v1alpha1",
    kind = "ControlLease",
    plural = "controlleases",
    shortname = "clease",
    category = "regent",
    status = "ControlLeaseStatus",
    printcolumn = r#"{"name":"Group","type":"string","jsonPath":".spec.group"}"#,
    printcolumn = r#"{"name":"Role","type":"string","jsonPath":".status.holder.role"}"#,
    printcolumn = r#"{"name":"Epoch","type":"string","jsonPath":".status.holder.epoch"}"#,
    printcolumn = r#"{"name":"Vote","type":"string","jsonPath":".status.witness.vote.epoch"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ControlLeaseSpec {
    /// The group, as HOME/NAME.
    #[x_kube(validation = Rule::new("self == oldSelf").message("spec.group can't change: delete nothing here, the operator keeps these objects itself"))]
    pub group: String,
}

/// What this site keeps of the lease.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ControlLeaseStatus {
    /// The witness's record: its vote. Written by the leading witness alone. Never edit it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub witness: Option<Record>,
    /// The newest plan that this site knows, as home signed it and standbys countersigned it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub plan: Option<Envelope>,
    /// Nodes that may have had a certificate for the group (L12).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
    /// Why nothing may be added to the nodes: `Release TERM.SITE` or `Protect`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes_closed: Option<String>,
    /// Nodes whose guard has confirmed that the group is protected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes_protected: Vec<String>,
    /// The site's part as holder or candidate, as its leading replica sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<HolderStatus>,
}

/// The site's part as holder or candidate.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct HolderStatus {
    /// `Idle`, `Candidate`, `Attempting`, `Silent`, `Holder`, `RanOut` or `Releasing`.
    pub role: String,
    /// The epoch that is asked for or held, as TERM.SITE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<String>,
    /// The last epoch that this site had a certificate for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certified: Option<String>,
    /// The site that most witnesses name as the holder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// Why it doesn't ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Each witness's last word: `Granted`, or the rule by which it refuses.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub witnesses: BTreeMap<String, String>,
}

/// Signed statements and records keep exactly the fields that core gives them: the API
/// server must neither check nor prune them.
fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "nullable": true, "x-kubernetes-preserve-unknown-fields": true })
}

/// The name of a group's `ControlLease`.
pub fn control_lease_name(group: &GroupKey) -> String {
    format!("{}.{}", group.home, group.name)
}
