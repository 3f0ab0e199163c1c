//! `ControlLease`: one site's own part in a group's control lease.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use regent_core::ids::{GroupKey, IdError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::group::Protection;

/// Which group the lease is about.
#[derive(Debug, Clone, PartialEq, Eq, CustomResource, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "regent.dev",
    version = "v1alpha1",
    kind = "ControlLease",
    status = "ControlLeaseStatus",
    shortname = "clease",
    category = "regent",
    derive = "PartialEq",
    doc = "ControlLease is this site's own part in the control lease of one group: its vote, the nodes that may run the group, and what it knows of the holder. The operator writes it; editing it by hand can make a group run twice.",
    printcolumn(name = "Holder", type_ = "string", json_path = ".status.holder.site"),
    printcolumn(name = "Epoch", type_ = "string", json_path = ".status.holder.epoch"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.holder.protection"),
    printcolumn(name = "Plan", type_ = "integer", json_path = ".status.planVersion"),
    printcolumn(name = "Closed", type_ = "boolean", json_path = ".status.nodesClosed", priority = "1"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct ControlLeaseSpec {
    /// The group, as HOME/NAME.
    #[schemars(length(min = 3, max = 127))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("group can't change: make another ControlLease"))]
    pub group: String,
}

/// The site's own part.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ControlLeaseStatus {
    /// The witness's record of the group (JSON), written by compare-and-swap before it is
    /// answered. Empty where this site is no witness.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<String>,
    /// The count of leaders under which the record was written (L9).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader_term: Option<i64>,
    /// The newest plan that this site holds: its signed envelope (JSON).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// The version of that plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_version: Option<i64>,
    /// The nodes of this site that may have got a certificate for the group (L12).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub nodes: Vec<ListedNode>,
    /// The newest epoch that this site released, as TERM.SITE: a node's guard journals it
    /// before the node is listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired: Option<String>,
    /// The newest epoch that its holder released to this site, as TERM.SITE: what follows it was
    /// planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handed_over: Option<String>,
    /// No further node may be listed.
    #[serde(default)]
    pub nodes_closed: bool,
    /// Who holds the group, as this site knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<HolderView>,
}

/// A node on a group's list.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListedNode {
    /// The node.
    pub name: String,
    /// Its guard has journaled that the group is Protected.
    #[serde(default)]
    pub protects: bool,
}

/// Who holds a group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HolderView {
    /// The site.
    pub site: String,
    /// Its epoch, as TERM.SITE.
    pub epoch: String,
    /// The state that its certificate says.
    pub protection: Protection,
    /// Whether its certificate is valid, where this site can tell.
    pub valid: bool,
    /// When this became so, as this site saw it: renewals are not written here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_at: Option<Time>,
}

/// By what a site knows how long a lease still runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Proof {
    /// It holds the certificate.
    Certificate,
    /// Its own witness has promised the group to the holder.
    Promise,
}

/// What is left of a lease, as the operator of a site says when it is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseLeft {
    /// Who holds it.
    pub site: String,
    /// For how long still, in milliseconds; 0: it is over.
    pub left_ms: u64,
    /// How this is known.
    pub proof: Proof,
}

impl ControlLeaseSpec {
    /// The group.
    pub fn key(&self) -> Result<GroupKey, IdError> {
        self.group.parse()
    }
}
