//! The lines of the other evidence files: journals, sinks, the client, audit logs.

use crate::epoch::Epoch;
use serde::{Deserialize, Serialize};

/// One line of journal/SITE-POD.jsonl: the program in the pod executed at this moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalLine {
    /// When: CLOCK_BOOTTIME in nanoseconds.
    pub boot_ns: u64,
    /// Site where the pod runs.
    pub site: String,
    /// Failover group as HOME/NAME.
    pub group: String,
    /// Name of the pod.
    pub pod: String,
    /// UID of the pod.
    pub uid: String,
    /// Grows by one with each line of the pod.
    pub seq: u64,
    /// The fencing token that the pod was told.
    pub epoch: Option<Epoch>,
}

/// One line of sink/SITE.jsonl: a journal line that arrived in the site's network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkLine {
    /// When it arrived: CLOCK_BOOTTIME in nanoseconds.
    pub received_ns: u64,
    /// Site where the pod runs.
    pub site: String,
    /// Failover group as HOME/NAME.
    pub group: String,
    /// Name of the pod.
    pub pod: String,
    /// UID of the pod.
    pub uid: String,
    /// The number of the journal line.
    pub seq: u64,
    /// The fencing token that the pod was told.
    pub epoch: Option<Epoch>,
}

/// One line of client.jsonl: one request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientLine {
    /// When it began: CLOCK_BOOTTIME in nanoseconds.
    pub start_ns: u64,
    /// When it ended: CLOCK_BOOTTIME in nanoseconds.
    pub end_ns: u64,
    /// `ok` when it was answered, else what went wrong.
    pub outcome: String,
    /// Site whose address was asked.
    pub site: String,
}

impl ClientLine {
    /// True when it was answered.
    pub fn is_ok(&self) -> bool {
        self.outcome == "ok"
    }
}

/// One line of audit/SITE.jsonl: the part of an audit.k8s.io/v1 `Event` that is judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditLine {
    /// The same for all stages of one request.
    #[serde(rename = "auditID")]
    pub audit_id: String,
    /// `RequestReceived`, `ResponseStarted`, `ResponseComplete` or `Panic`.
    pub stage: String,
    /// `create`, `update`, `patch`, `delete`, `deletecollection`, or a verb that reads.
    pub verb: String,
    /// Path and query of the request.
    #[serde(rename = "requestURI", default)]
    pub request_uri: String,
    /// Who asked.
    pub user: AuditUser,
    /// What the request is about; none for what is no resource.
    #[serde(default)]
    pub object_ref: Option<AuditObject>,
    /// How it ended; none before it has.
    #[serde(default)]
    pub response_status: Option<AuditStatus>,
    /// When this stage was reached: wall clock, RFC 3339.
    pub stage_timestamp: jiff::Timestamp,
}

/// Who made a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditUser {
    /// Name of the user, such as `system:serviceaccount:NAMESPACE:NAME`.
    #[serde(default)]
    pub username: String,
}

/// What a request is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditObject {
    /// Resource in the plural, such as `pods`.
    #[serde(default)]
    pub resource: String,
    /// Namespace; empty for what has none.
    #[serde(default)]
    pub namespace: String,
    /// Name; empty for a collection.
    #[serde(default)]
    pub name: String,
    /// API group; empty for core.
    #[serde(default)]
    pub api_group: String,
    /// Subresource, such as `scale`; mostly empty.
    #[serde(default)]
    pub subresource: String,
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditStatus {
    /// HTTP status code.
    #[serde(default)]
    pub code: i32,
}
