//! What every process reports of what it did: one JSON object a line on standard output.

use serde::{Deserialize, Serialize};

use crate::ids::{Epoch, GroupKey, SiteName};

/// Which part of Regent speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Actor {
    /// The operator as holder, candidate or mirror.
    Operator,
    /// The operator as witness.
    Witness,
    /// The node's agent.
    Agent,
    /// The node's guard.
    Guard,
}

/// One fact, for evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When it became true: CLOCK_BOOTTIME, nanoseconds.
    pub boot_ns: u64,
    /// Where.
    pub site: SiteName,
    /// Who says so.
    pub actor: Actor,
    /// What: a word of [`names`].
    pub event: String,
    /// Of which group.
    pub group: Option<GroupKey>,
    /// Under which epoch.
    pub epoch: Option<Epoch>,
    /// On which node.
    pub node: Option<String>,
    /// Everything else.
    pub detail: serde_json::Value,
}

/// The words for [`Event::event`].
pub mod names {
    /// A node's lease of a group ran out; `boot_ns` is the lease's end, `detail.pods` names the pods.
    pub const LEASE_END: &str = "lease_end";
    /// All processes of a pod stand still.
    pub const FROZEN: &str = "frozen";
    /// They go on.
    pub const THAWED: &str = "thawed";
    /// All processes of a pod are dead; its gate holds it from now on.
    pub const KILLED: &str = "killed";
    /// A pod's gate opened.
    pub const GATE_OPENED: &str = "gate_opened";
    /// L5 became true at this witness; `boot_ns` is when.
    pub const LAPSED: &str = "lapsed";
    /// The holder was proven again before anybody took over.
    pub const PROVEN: &str = "proven";
    /// L5 true at the q-th witness.
    pub const ELIGIBLE: &str = "eligible";
    /// A site has a quorum's certificate for a new epoch, or again after one had run out.
    pub const CERTIFICATE: &str = "certificate";
    /// An epoch is retired at a quorum.
    pub const RETIRED: &str = "retired";
    /// A process began; `detail.realtime_ns` places the wall clock.
    pub const STARTED: &str = "started";
    /// The first container of a group runs.
    pub const FIRST_STARTED: &str = "first_started";
    /// All pods of a group are Ready.
    pub const ALL_READY: &str = "all_ready";
}
