//! What the hub is told of this node.

use regent_proto::v1;
use tokio::sync::watch;

use crate::guard::GuardView;
use crate::node::NodeStatus;

/// Everything that goes up to the hubs, newest first: each hub's stream takes what it has
/// not sent yet, so a slow hub costs no memory.
#[derive(Debug, Clone)]
pub struct Upward {
    /// The guard's newest nonce.
    pub nonce: watch::Receiver<Option<[u8; 32]>>,
    /// What the guard says.
    pub guard: watch::Receiver<GuardView>,
    /// What the Node's status says.
    pub node: watch::Receiver<NodeStatus>,
}

/// The agent's first words on a stream, and again when the guard's journal becomes known.
pub fn hello(guard: &GuardView) -> v1::Hello {
    v1::Hello { agent_version: env!("CARGO_PKG_VERSION").to_owned(), guard_journal_id: guard.state.journal_id.clone() }
}

/// The node as it is now.
pub fn report(guard: &GuardView, node: &NodeStatus) -> v1::NodeReport {
    v1::NodeReport {
        pods: guard.state.pods.clone(),
        node_ready: node.ready,
        allocatable_cpu_milli: node.cpu_milli,
        allocatable_memory_bytes: node.memory_bytes,
        allocatable_pods: node.pods,
        images: node.images.clone(),
        guard_alive: guard.alive,
    }
}
