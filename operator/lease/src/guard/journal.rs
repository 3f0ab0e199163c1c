//! What a guard keeps on its node's disk.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::pod::{Pod, PodState, PodUid};
use regent_core::ids::{Epoch, GroupKey};
use regent_core::time::Moment;

/// How long a pause may last when nobody has told: 8 s.
pub const DEFAULT_THAW_LIMIT_MS: u64 = 8_000;

/// A guard's journal: loaded before its sockets open.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Journal {
    /// The boot in which leases and pods' states are valid; with another none is.
    pub boot_id: String,
    /// What is known of each group. Epochs and marks hold in every boot.
    pub groups: BTreeMap<GroupKey, GroupRecord>,
    /// The node's pods.
    pub pods: BTreeMap<PodUid, PodRecord>,
}

/// A group in the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupRecord {
    /// The highest epoch that was ever seen certified (I2).
    pub highest: Option<Epoch>,
    /// Nothing at or below it runs again here (L12).
    pub retired: Option<Epoch>,
    /// The fence is in force, whatever a certificate says.
    pub protected: bool,
    /// The node is on the group's list.
    pub listed: bool,
    /// The lease that counts, while it runs.
    pub lease: Option<Lease>,
    /// The epoch of an `Observed` certificate that opens the gate, though it may have run out.
    pub observed: Option<Epoch>,
    /// How long a pause may last, in milliseconds.
    pub thaw_limit_ms: u64,
}

impl Default for GroupRecord {
    fn default() -> Self {
        Self {
            highest: None,
            retired: None,
            protected: false,
            listed: false,
            lease: None,
            observed: None,
            thaw_limit_ms: DEFAULT_THAW_LIMIT_MS,
        }
    }
}

impl GroupRecord {
    /// `thawLimit`.
    pub fn thaw_limit(&self) -> Duration {
        Duration::from_millis(self.thaw_limit_ms)
    }
}

/// Until when a group may run here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    /// Under which epoch.
    pub epoch: Epoch,
    /// Stopped by then, on either clock (L1).
    pub until: Moment,
}

/// A pod in the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodRecord {
    /// Which pod.
    pub pod: Pod,
    /// Where it stands.
    pub state: PodState,
}
