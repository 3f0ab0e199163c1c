//! The custom resources of `regent.dev/v1alpha1`.
//!
//! A person writes a [`FailoverGroup`] at the group's home, and a [`Takeover`] to move
//! it; everything else is written by the operator for people to read:
//!
//! ```text
//!   Charter        what the federation is          one, as signed
//!   Site           where things run                one for each site of the charter
//!   FailoverGroup  what moves together             home's is the source: NAME
//!                                                  copies elsewhere: HOME.NAME
//!   ControlLease   this site's part in the lease   HOME.NAME
//!   Takeover       a change of holder              as a person or the operator names it
//!   GatedPods      which pods get a gate           in the group's namespaces: HOME.NAME
//! ```
//!
//! Wrong input is refused by the schema and its CEL rules, whose messages say what to
//! do; what only the cluster can tell is a condition.

// Each `printcolumn(...)` has a `type_` and a `json_path` of its own: the lint sees one list.
#![allow(clippy::duplicated_attributes)]

pub mod charter;
pub mod condition;
pub mod duration;
pub mod gate;
pub mod gated;
pub mod group;
pub mod lease;
pub mod selector;
pub mod site;
pub mod takeover;

pub use charter::{Charter, CharterSpec, CharterStatus};
pub use gated::{GatedPods, GatedPodsSpec};
pub use group::{FailoverGroup, FailoverGroupSpec, FailoverGroupStatus, Protection, StandbyState, WantedProtection};
pub use lease::{ControlLease, ControlLeaseSpec, ControlLeaseStatus, LeaseLeft};
pub use selector::Selector;
pub use site::{Site, SiteSpec, SiteStatus};
pub use takeover::{Phase, Step, Takeover, TakeoverSpec, TakeoverStatus, TakeoverType};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use regent_core::ids::{GroupKey, IdError};
use regent_core::sign::Digest;

/// Who applies objects, to server-side apply.
pub const FIELD_MANAGER: &str = "regent";
/// Where the operator lives.
pub const NAMESPACE: &str = "regent-system";
/// Label on everything that the operator makes for a group: `HOME.NAME`.
pub const GROUP_LABEL: &str = "regent.dev/group";
/// Annotation by which a person strikes nodes that are gone from a group's list: their
/// names, separated by commas.
pub const STRIKE_ANNOTATION: &str = "regent.dev/strike";
/// Label of a namespace into which the gate's policies look: one in which a group has pods.
pub const GATED_LABEL: &str = "regent.dev/gated";
/// Annotation of a standby's namespace: the groups whose copies its owner lets in there, as
/// HOME/NAME, separated by commas.
pub const GROUPS_ANNOTATION: &str = "regent.dev/groups";
/// Annotation of a group's read-only copy by which the partner takes it out at its site:
/// `true`, and nothing of the group is kept there until it is removed.
pub const LEAVE_ANNOTATION: &str = "regent.dev/leave";
/// Annotation by which a person says that workloads are gone from a group for good, so that
/// standbys drop them too: `Kind NAMESPACE/NAME`, separated by commas.
pub const PRUNE_ANNOTATION: &str = "regent.dev/prune";
/// The CSI driver of the gate.
pub const GATE_DRIVER: &str = "gate.regent.dev";
/// The gate's volume and its init container.
pub const GATE_NAME: &str = "regent-gate";

/// What the API says of an object that it can't use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// A name that is none.
    #[error("{object}: {field}: {error}")]
    Name {
        /// `Kind NAME`.
        object: String,
        /// Which field.
        field: &'static str,
        /// Why.
        #[source]
        error: IdError,
    },
    /// A duration that is none.
    #[error("{object}: {field}: {found:?} is not a duration; write one such as 5s, 1m30s or 0s")]
    Duration {
        /// `Kind NAME`.
        object: String,
        /// Which field.
        field: &'static str,
        /// What it says.
        found: String,
    },
}

/// The name of a group's objects at sites that are not its home: `HOME.NAME`.
pub fn object_name(group: &GroupKey) -> String {
    format!("{}.{}", group.home, group.name)
}

/// The value of [`GROUP_LABEL`] for a group: `HOME.NAME`, or a digest where that is longer
/// than a label's value may be.
pub fn group_label(group: &GroupKey) -> String {
    let name = object_name(group);
    if name.len() <= 63 {
        return name;
    }
    let digest = Digest::of(name.as_bytes()).to_string();
    format!("sha256.{}", &digest[..32])
}

/// The label selector of what is a group's: its copies, and what is kept of it.
pub fn group_selector(group: &GroupKey) -> String {
    format!("{GROUP_LABEL}={}", group_label(group))
}

/// The definitions of all kinds, in the order in which they are installed.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![Charter::crd(), Site::crd(), FailoverGroup::crd(), ControlLease::crd(), Takeover::crd(), GatedPods::crd()]
}

/// The chart's files of all kinds: name and text.
pub fn crd_files() -> Result<Vec<(String, String)>, serde_yaml_ng::Error> {
    let file = |crd: CustomResourceDefinition| {
        let name = format!("{}.yaml", crd.spec.names.plural);
        // By way of a map, whose keys are sorted: the same text from every build.
        let value = serde_yaml_ng::to_value(&crd)?;
        let text = serde_yaml_ng::to_string(&value)?;
        Ok((name, format!("# Generated by `make generate` from operator/api; don't edit.\n{text}")))
    };
    crds().into_iter().map(file).collect()
}
