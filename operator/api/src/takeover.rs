//! `Takeover`: the record of one change of holder.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use regent_core::ids::{GroupKey, IdError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Condition: the group has moved.
pub const COMPLETE: &str = "Complete";

/// What kind of takeover.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TakeoverType {
    /// The holder releases the group for `to`. Made at the holder's site.
    Planned,
    /// A person lets a standby take over after a lapse (trigger Approval). Made at that
    /// standby.
    Approval,
    /// The operator's record of a takeover after a lapse.
    Lapse,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, CustomResource, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "regent.dev",
    version = "v1alpha1",
    kind = "Takeover",
    status = "TakeoverStatus",
    shortname = "to",
    category = "regent",
    derive = "PartialEq",
    doc = "Takeover moves a group to another site, and is the record of how it went.",
    printcolumn(name = "Group", type_ = "string", json_path = ".spec.group"),
    printcolumn(name = "To", type_ = "string", json_path = ".spec.to"),
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.type"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Epoch", type_ = "string", json_path = ".status.epoch"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(
    validation = Rule::new("self.group == oldSelf.group && self.to == oldSelf.to && self.type == oldSelf.type")
        .message("group, to and type of a Takeover can't change: make another one"),
    validation = Rule::new("!oldSelf.approve || self.approve")
        .message("approve can't be taken back: the standby may have acquired already; move the group back with `kubectl regent takeover`"),
    validation = Rule::new("self.type == 'Approval' || !self.approve")
        .message("approve is for type Approval only; leave it out")
)]
#[serde(rename_all = "camelCase")]
pub struct TakeoverSpec {
    /// The group, as HOME/NAME.
    #[schemars(length(max = 127))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?/[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$')").message("group must be HOME/NAME, such as ireland/shop"))]
    pub group: String,
    /// The site that takes over.
    #[schemars(length(max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").message("to must be the name of a site of the charter: see `kubectl get sites`"))]
    pub to: String,
    /// What kind of takeover.
    #[serde(rename = "type")]
    pub kind: TakeoverType,
    /// Why; for the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub reason: Option<String>,
    /// For type Approval: the standby may acquire when the epoch that is in force at the
    /// object's making has lapsed. Setting it needs the RBAC verb `approve` on takeovers.
    #[serde(default)]
    pub approve: bool,
}

/// How far it is, in order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Nobody has begun.
    #[default]
    Pending,
    /// Someone has to approve.
    AwaitingApproval,
    /// The list of nodes is closed (L12).
    Closed,
    /// The epoch is retired at a quorum.
    Retired,
    /// Every listed node has stopped the group.
    Stopped,
    /// The holder has released it, or its lease has lapsed.
    Released,
    /// The new holder has a certificate.
    Certified,
    /// The first container runs.
    Started,
    /// All pods are ready.
    Complete,
    /// It can't go on; the condition says why.
    Failed,
}

/// One step on the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// What happened.
    pub event: String,
    /// When, by the wall clock.
    pub at: Time,
    /// Which site says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// More about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// How it went.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TakeoverStatus {
    /// Which generation of the spec this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How far it is.
    #[serde(default)]
    pub phase: Phase,
    /// The site that held the group before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The epoch that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_epoch: Option<String>,
    /// The epoch under which the group runs now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<String>,
    /// What happened, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub timeline: Vec<Step>,
    /// Complete.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

impl TakeoverSpec {
    /// The group.
    pub fn key(&self) -> Result<GroupKey, IdError> {
        self.group.parse()
    }
}
