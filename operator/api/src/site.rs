//! `Site`: where things run, and who sees whom.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Condition: this site's operator hears from it.
pub const REACHABLE: &str = "Reachable";

/// A site of the charter; the operator makes one object for each.
#[derive(Debug, Clone, Default, PartialEq, Eq, CustomResource, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "regent.dev",
    version = "v1alpha1",
    kind = "Site",
    status = "SiteStatus",
    shortname = "rsite",
    category = "regent",
    derive = "PartialEq",
    doc = "Site is one cluster of the federation as the charter names it, and who sees it. The operator makes one for each site of the charter.",
    printcolumn(name = "Country", type_ = "string", json_path = ".status.country"),
    printcolumn(name = "Party", type_ = "string", json_path = ".status.party"),
    printcolumn(name = "Control", type_ = "string", json_path = ".status.control"),
    printcolumn(name = "Roles", type_ = "string", json_path = ".status.roles"),
    printcolumn(
        name = "Reachable",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Reachable")].status"#
    ),
    printcolumn(name = "API", type_ = "boolean", json_path = ".status.apiReady"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct SiteSpec {
    /// Storage classes there that stand for home's: home's name to this site's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub storage_classes: Vec<Mapping>,
    /// Registries there that stand for home's: the beginning of an image's name to what
    /// replaces it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub registries: Vec<Mapping>,
    /// Beginnings of the images that copies may have here, once mapped: `registry.example` or
    /// `registry.example/team`. Empty: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    pub allowed_registries: Vec<String>,
    /// Beginnings of the annotations that copies keep here beside inert ones, such as
    /// `metallb.io/`: each lets a home speak to the operator that acts on it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    pub annotations: Vec<String>,
}

/// One line of a table that maps home's names to another site's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Mapping {
    /// Home's name.
    #[schemars(length(min = 1, max = 253))]
    pub from: String,
    /// The name here.
    #[schemars(length(min = 1, max = 253))]
    pub to: String,
}

/// What a site is to the federation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SiteRole {
    /// This is the operator's own site.
    Local,
    /// It votes.
    Witness,
    /// A group here has its home there.
    Home,
    /// A group here may be taken over there.
    Standby,
}

/// What the operator knows of a site.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SiteStatus {
    /// Where it is, by the charter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    /// Who runs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub party: Option<String>,
    /// The country of that party's ultimate control.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<String>,
    /// What it is here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    pub roles: Vec<SiteRole>,
    /// Where its operators answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub addresses: Vec<String>,
    /// Whether its API server answers, as it says itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_ready: Option<bool>,
    /// How each other site sees it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["from".into()]))]
    pub observed_by: Vec<Sight>,
    /// Reachable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// How one site sees another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Sight {
    /// The site that looks.
    pub from: String,
    /// Whether it hears from the other.
    pub alive: bool,
    /// Its suspicion (phi-accrual): 8 means that a silence so long comes once in 10^8.
    pub phi: f64,
    /// Since when it is as it is.
    pub since: Time,
}
