//! `FailoverGroup`: workloads that move together.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema, ResourceExt};
use regent_core::ids::{GroupKey, GroupName, IdError, SiteName};
use regent_core::plan::COUNTRIES;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::selector::Selector;
use crate::{ApiError, duration, object_name};

/// Condition: the group is what its spec asks for: protected if it asks for that, with
/// at least one standby that is ready.
pub const READY: &str = "Ready";
/// Condition: spec and charter agree; without it the last good plan stays in force.
pub const VALID: &str = "Valid";
/// Condition: home, and every standby, is where the group may run (I5).
pub const LAWFUL: &str = "Lawful";
/// Condition: fence and gate are in force.
pub const PROTECTED: &str = "Protected";
/// Condition: every standby holds what home runs, completely.
pub const MIRRORED: &str = "Mirrored";
/// Reason of [`READY`]: no standby could take the group over.
pub const NO_STANDBY_READY: &str = "NoStandbyReady";

/// The most objects that `status.unknownKinds` names, and that `spec.staysHome` accepts.
pub const MAX_UNKNOWN_KINDS: usize = 64;
/// The longest name of one of them, in bytes.
pub const MAX_OBJECT: usize = 400;
/// The most nodes that a group's status names.
pub const MAX_NODES: usize = 256;

/// How far protection has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Protection {
    /// Mirrored and measured, never frozen; no standby may acquire.
    #[default]
    Observed,
    /// Fence and gate are in force.
    Protected,
}

impl From<regent_core::plan::Protection> for Protection {
    fn from(p: regent_core::plan::Protection) -> Self {
        match p {
            regent_core::plan::Protection::Observed => Self::Observed,
            // While protection is taken off its guards fence on (I9): it is Protected to the end.
            regent_core::plan::Protection::Protected | regent_core::plan::Protection::Retiring => Self::Protected,
        }
    }
}

/// What protection is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WantedProtection {
    /// Mirrored and measured, never frozen.
    #[default]
    Observed,
    /// Fenced, gated, and taken over when home is lost.
    Protected,
}

/// What may start a takeover after a lapse.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Trigger {
    /// The standby acquires by itself.
    #[default]
    Automatic,
    /// Somebody with the RBAC verb `approve` on takeovers at the standby approves first.
    Approval,
}

impl From<Trigger> for regent_core::plan::Trigger {
    fn from(t: Trigger) -> Self {
        match t {
            Trigger::Automatic => Self::Automatic,
            Trigger::Approval => Self::Approval,
        }
    }
}

impl From<regent_core::plan::Trigger> for Trigger {
    fn from(t: regent_core::plan::Trigger) -> Self {
        match t {
            regent_core::plan::Trigger::Automatic => Self::Automatic,
            regent_core::plan::Trigger::Approval => Self::Approval,
        }
    }
}

/// What a standby does at a lapse when not all it would run is ready and no other standby is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WhenNotReady {
    /// It leaves the group held.
    #[default]
    Hold,
    /// It starts what is ready.
    Degraded,
}

impl From<WhenNotReady> for regent_core::plan::WhenNotReady {
    fn from(w: WhenNotReady) -> Self {
        match w {
            WhenNotReady::Hold => Self::Hold,
            WhenNotReady::Degraded => Self::Degraded,
        }
    }
}

impl From<regent_core::plan::WhenNotReady> for WhenNotReady {
    fn from(w: regent_core::plan::WhenNotReady) -> Self {
        match w {
            regent_core::plan::WhenNotReady::Hold => Self::Hold,
            regent_core::plan::WhenNotReady::Degraded => Self::Degraded,
        }
    }
}

/// How far the standbys' copies are prepared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Tier {
    /// Pods scheduled, volumes mounted, held by their gates.
    #[default]
    Armed,
}

/// What moves together, where to, and when.
#[derive(Debug, Clone, PartialEq, Eq, CustomResource, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "regent.dev",
    version = "v1alpha1",
    kind = "FailoverGroup",
    status = "FailoverGroupStatus",
    shortname = "fog",
    category = "regent",
    derive = "PartialEq",
    doc = "FailoverGroup is a set of workloads that move together: which pods, where they belong, who may take over and when. Home's object is the source; at other sites a read-only copy named HOME.NAME tells the same story.",
    validation = Rule::new("self.metadata.name.contains('.') ? self.metadata.name.startsWith(self.spec.home + '.') : self.metadata.name.size() <= 63").message("the name must be a DNS label of at most 63 characters, without dots: HOME.NAME is for the copies that the operator keeps at other sites"),
    validation = Rule::new("self.metadata.name.contains('.') || (has(self.spec.namespaces) && self.spec.namespaces.size() > 0)").message("namespaces must name at least one namespace with pods of the group"),
    validation = Rule::new("self.metadata.name.contains('.') || (has(self.spec.selector) && (has(self.spec.selector.matchLabels) && self.spec.selector.matchLabels.size() > 0 || has(self.spec.selector.matchExpressions) && self.spec.selector.matchExpressions.size() > 0))").message("selector selects nothing in particular: write matchLabels or matchExpressions (an unknown field is dropped before this is judged); to mean all pods of the namespaces write matchExpressions: [{key: regent.dev/none, operator: DoesNotExist}]"),
    validation = Rule::new("self.metadata.name.contains('.') || oldSelf.spec.protection != 'Protected' || (has(self.spec.namespaces) && has(oldSelf.spec.namespaces) && self.spec.namespaces == oldSelf.spec.namespaces)").message("namespaces of a Protected group can't change: pods that no longer belong to it would run without a fence; make another FailoverGroup"),
    validation = Rule::new("self.metadata.name.contains('.') || oldSelf.spec.protection != 'Protected' || self.spec.selector == oldSelf.spec.selector").message("selector of a Protected group can't change: pods that no longer match would run without a fence; make another FailoverGroup"),
    validation = Rule::new("self.metadata.name.contains('.') || self.spec.protection != 'Protected' || (has(self.spec.standbys) && self.spec.standbys.size() > 0)").message("a Protected group needs at least one standby: name one in standbys"),
    printcolumn(name = "Home", type_ = "string", json_path = ".spec.home"),
    printcolumn(name = "Protection", type_ = "string", json_path = ".status.protection"),
    printcolumn(name = "Holder", type_ = "string", json_path = ".status.holder"),
    printcolumn(name = "Epoch", type_ = "string", json_path = ".status.epoch"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Standbys", type_ = "string", json_path = ".spec.standbys", priority = "1"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(
    validation = Rule::new("!has(self.standbys) || !(self.home in self.standbys)")
        .message("standbys must not list the group's home: list other sites only"),
    validation = Rule::new("oldSelf.protection != 'Protected' || self.protection == 'Protected'")
        .message("protection can't go back from Protected: protection falls slowly, and this version of Regent can't take it off")
)]
#[serde(rename_all = "camelCase")]
pub struct FailoverGroupSpec {
    /// The site where the group belongs; its name in the charter.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(
        validation = Rule::new("self == oldSelf").message("home can't change: make another FailoverGroup at the other site"),
        validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").message("home must be the name of a site of the charter: see `kubectl get sites`")
    )]
    pub home: String,
    /// The namespaces of its pods, the same at every site.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub namespaces: Vec<String>,
    /// Which pods of these namespaces, whoever made them. At least one requirement; all pods
    /// are meant by a label that none has, `{key: regent.dev/none, operator: DoesNotExist}`.
    #[serde(default)]
    pub selector: Selector,
    /// Who may take over, best first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub standbys: Vec<String>,
    /// How long after the end of home's last promise a standby may take over.
    #[serde(default = "default_takeover_after")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new("self.matches('^(0|([0-9]+([.][0-9]+)?(ms|s|m|h))+)$') && duration(self) <= duration('24h')").message("takeoverAfter must be a duration of at most 24h, such as 5s, 1m30s or 0s"))]
    pub takeover_after: String,
    /// How long a pause may last before the pods are stopped for good.
    #[serde(default = "default_thaw_limit")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new("self.matches('^(0|([0-9]+([.][0-9]+)?(ms|s|m|h))+)$') && duration(self) <= duration('1h')").message("thawLimit must be a duration of at most 1h, such as 8s"))]
    pub thaw_limit: String,
    /// What may start a takeover after a lapse.
    #[serde(default)]
    pub trigger: Trigger,
    /// What a standby does at a lapse when not all it would run is ready and no other standby
    /// is: `Hold` leaves the group held, `Degraded` starts what is ready.
    #[serde(default)]
    pub when_not_ready: WhenNotReady,
    /// How far the standbys' copies are prepared.
    #[serde(default)]
    pub tier: Tier,
    /// The objective for the recovery time: takeovers are measured against it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) > duration('0s')").message("rto must be a duration above zero, such as 15s"))]
    pub rto: Option<String>,
    /// Where the group may run, ISO 3166-1 alpha-2; empty means anywhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 300), inner(length(max = 8)))]
    #[x_kube(
        merge_strategy = ListMerge::Set,
        validation = Rule::new("!('UK' in self)").message("the United Kingdom is GB: write GB for UK in countries"),
        validation = Rule::new(countries_rule()).message("countries must be ISO 3166-1 alpha-2 codes in capital letters, such as FR: correct the one that is none")
    )]
    pub countries: Vec<String>,
    /// What belongs to the group and stays at home, accepted by name as in
    /// status.unknownKinds: `Kind NAMESPACE/NAME`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 400)))]
    #[x_kube(
        merge_strategy = ListMerge::Set,
        validation = Rule::new("self.all(o, o.matches('^[A-Za-z0-9]+ [a-z0-9-]+/[^ ]+$'))").message("staysHome names objects as status.unknownKinds does: Kind NAMESPACE/NAME")
    )]
    pub stays_home: Vec<String>,
    /// What protection is wanted. It starts as Observed; `kubectl regent protect` raises it.
    #[serde(default)]
    pub protection: WantedProtection,
}

/// Two capital letters beside each other in the list are a code: codes are set apart by spaces.
fn countries_rule() -> String {
    format!("self.all(c, c == 'UK' || c.matches('^[A-Z]{{2}}$') && '{COUNTRIES}'.contains(c))")
}

// The form that serde asks for.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(n: &i32) -> bool {
    *n == 0
}

fn default_takeover_after() -> String {
    "5s".to_owned()
}

fn default_thaw_limit() -> String {
    "8s".to_owned()
}

/// What a standby has prepared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StandbyState {
    /// It has no bundle yet.
    #[default]
    Waiting,
    /// Copies are made; pods are not all held by their gates yet.
    Preparing,
    /// All pods of the revision are held by their gates.
    Armed,
    /// An object of that name exists there and isn't Regent's.
    NameTaken,
    /// It may not hold the group (I5).
    Unlawful,
    /// Something is missing there; reason and message tell what.
    Blocked,
    /// It has the lease, and not all pods of the group are ready there yet: the message says
    /// what they wait for.
    Starting,
    /// It has the lease, and all pods of the group are ready there.
    Holding,
    /// The partner has taken the group out there: nothing of it is kept until it is let in
    /// again with `kubectl regent standby join`.
    Left,
}

/// A field that is not at the holder's site as home's revision says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// The object, as `Kind NAMESPACE/NAME`.
    #[schemars(length(max = 400))]
    pub object: String,
    /// Where in it, as a JSON pointer (RFC 6901).
    #[schemars(length(max = 1024))]
    pub path: String,
    /// The value at home, as JSON text; null: it isn't there. Both values are null where they
    /// can't be shown: a Secret's, and texts of more than 1024 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub home: Option<String>,
    /// The value here, at the holder, as JSON text; null: it isn't there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub here: Option<String>,
}

/// What a site says of a group: each standby, and home while the group runs there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StandbyStatus {
    /// The standby.
    pub site: String,
    /// What it has prepared.
    #[serde(default)]
    pub state: StandbyState,
    /// The digest of the bundle that is really held ready, or runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The digest of the bundle that is being prepared beside it, and replaces it when its pods
    /// are ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_revision: Option<String>,
    /// The epoch under which the group runs there, as TERM.SITE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<String>,
    /// Pods that are held ready; of a group that runs there, pods that are ready.
    #[serde(default)]
    pub armed_pods: i32,
    /// Pods that are wanted.
    #[serde(default)]
    pub wanted_pods: i32,
    /// Why it isn't ready, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why it isn't ready, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What is different or missing there and no reason to block.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 512)))]
    pub notices: Vec<String>,
    /// What people changed there while it held the group, against home's revision. Values of
    /// Secrets are never shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub differences: Vec<Difference>,
}

/// What a site knows of a group.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailoverGroupStatus {
    /// Which generation of the spec this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How far protection has come, by the plan that q witnesses hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protection: Option<Protection>,
    /// The site that holds the group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
    /// The epoch under which it does, as TERM.SITE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<String>,
    /// The version of the newest plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_version: Option<i64>,
    /// The standbys that have countersigned it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub countersigned: Vec<String>,
    /// The digest of home's newest bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Pods of the group that run without a gate: they have to be re-created before the
    /// group can be Protected.
    #[serde(default)]
    pub pods_without_gate: i32,
    /// Some of them, as NAMESPACE/NAME.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub ungated: Vec<String>,
    /// The nodes of this site on the group's list, the first 256 of them: the site's
    /// ControlLease has all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub nodes: Vec<String>,
    /// The standbys, by rank.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["site".into()]))]
    pub standbys: Vec<StandbyStatus>,
    /// Since when home has been empty, if standbys keep a revision of before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty_since: Option<Time>,
    /// What belongs to the group and stays at home, `Kind NAMESPACE/NAME`: first what is not
    /// accepted in spec.staysHome.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 400)))]
    pub unknown_kinds: Vec<String>,
    /// How many more of it there are than unknownKinds names.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more_unknown_kinds: i32,
    /// What a person should know and is no failure by itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 512)))]
    pub notices: Vec<String>,
    /// Ready, Valid, Lawful, Protected, Mirrored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

impl FailoverGroup {
    /// The group's key: its home, and its name there.
    pub fn key(&self) -> Result<GroupKey, ApiError> {
        let name = self.name_any();
        let refused = |field| {
            let object = format!("FailoverGroup {name}");
            move |error: IdError| ApiError::Name { object, field, error }
        };
        let home: SiteName = self.spec.home.parse().map_err(refused("spec.home"))?;
        let own = name.split_once('.').map_or(name.as_str(), |(_, own)| own);
        let own: GroupName = own.parse().map_err(refused("metadata.name"))?;
        Ok(GroupKey { home, name: own })
    }

    /// The name of a group's object at a site: its own name at home, `HOME.NAME` elsewhere.
    pub fn name_at(group: &GroupKey, site: &SiteName) -> String {
        if &group.home == site { group.name.to_string() } else { object_name(group) }
    }

    /// The standbys' names, checked.
    pub fn standbys(&self) -> Result<Vec<SiteName>, ApiError> {
        let object = || format!("FailoverGroup {}", self.name_any());
        let parse =
            |s: &String| s.parse().map_err(|error| ApiError::Name { object: object(), field: "spec.standbys", error });
        self.spec.standbys.iter().map(parse).collect()
    }

    /// `W`.
    pub fn takeover_after(&self) -> Result<Duration, ApiError> {
        self.duration("spec.takeoverAfter", &self.spec.takeover_after)
    }

    /// How long a pause may last.
    pub fn thaw_limit(&self) -> Result<Duration, ApiError> {
        self.duration("spec.thawLimit", &self.spec.thaw_limit)
    }

    fn duration(&self, field: &'static str, text: &str) -> Result<Duration, ApiError> {
        let object = || format!("FailoverGroup {}", self.name_any());
        duration::parse(text).ok_or_else(|| ApiError::Duration { object: object(), field, found: text.to_owned() })
    }
}
