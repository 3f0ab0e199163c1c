//! The hub: where a site's agents bring nonces and fetch certificates.
//!
//! Both replicas of the operator run one, and every agent keeps a stream to each, so
//! that losing a replica pauses nothing. Once agents have their certificates no API
//! server is needed.
//!
//! ```text
//!   agent --Enroll(token, CSR)--> hub --TokenReview--> API server      (every few days)
//!   agent ==Attach: nonces, reports, confirmations==> hub
//!   agent <==certificates, instructions, peers======= hub
//! ```
//!
//! A node is who its client certificate says it is; no message names one. The hub makes
//! nothing that counts: it sorts what witnesses signed by node. A hub that lies can
//! withhold a certificate, and no more (L13).

mod deliver;
mod enroll;
mod outbox;
mod registry;
mod report;
mod service;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use regent_core::ids::{GroupKey, NodeName};
use regent_core::instruction::Instruction;
use regent_core::message::{Entry, Round};
use regent_lease::deliver::NonceSet;
use regent_shell::tls::{SiteIdentity, TlsError};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use enroll::{AUDIENCE, Authenticate, EnrollError, token_review};
pub use report::{NodeReport, NodeView, PodReport, PodState};

use registry::Registry;

/// How long an instruction waits for its confirmation before it is sent again.
const RESEND: Duration = Duration::from_secs(1);

/// Why an instruction was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InstructError {
    /// The guard refused.
    #[error("guard of node {node} refused {instruction} of group {group}: {why}")]
    Refused {
        /// Which node.
        node: NodeName,
        /// Of which group.
        group: GroupKey,
        /// What it was told.
        instruction: Instruction,
        /// What it says.
        why: String,
    },
    /// Too many wait for this node already.
    #[error(
        "{waiting} instructions wait for node {node}; bring its agent back, or strike the node from the groups' lists"
    )]
    TooMany {
        /// Which node.
        node: NodeName,
        /// How many.
        waiting: usize,
    },
}

/// The groups of each node: whose certificates it is sent (L12's lists, turned round).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeGroups(BTreeMap<NodeName, BTreeSet<GroupKey>>);

impl NodeGroups {
    /// From each group's list of nodes.
    pub fn from_lists<'a, N>(lists: impl IntoIterator<Item = (&'a GroupKey, N)>) -> Self
    where
        N: IntoIterator<Item = &'a NodeName>,
    {
        let mut by_node: BTreeMap<NodeName, BTreeSet<GroupKey>> = BTreeMap::new();
        for (group, nodes) in lists {
            for node in nodes {
                by_node.entry(node.clone()).or_default().insert(group.clone());
            }
        }
        Self(by_node)
    }

    fn of(&self, node: &NodeName) -> Option<&BTreeSet<GroupKey>> {
        self.0.get(node)
    }
}

/// The hub, as the rest of the operator sees it. Clones are the same hub.
#[derive(Debug, Clone)]
pub struct HubHandle(Arc<Registry>);

impl Default for HubHandle {
    fn default() -> Self {
        Self::new()
    }
}

impl HubHandle {
    /// A hub that no agent has attached to yet.
    pub fn new() -> Self {
        Self(Arc::new(Registry::default()))
    }

    /// The newest nonce of each attached node, as the Merkle tree that a request signs.
    pub fn nonces(&self) -> NonceSet {
        self.0.nonces()
    }

    /// Sends each node of `nonces` the round with its nonce and those of its groups that
    /// are `granted`. `entries` are all entries of the request, in their order; `nonces`
    /// is the set whose root the request signed. Never waits: a newer certificate
    /// replaces an unsent older one of the same groups. Returns to how many nodes it went.
    pub fn deliver(&self, round: &Round, entries: &[Entry], granted: &[Entry], nonces: &NonceSet) -> usize {
        deliver::deliver(&self.0, round, entries, granted, nonces)
    }

    /// Tells the guard of a node, and again after each loss, until it confirms. Waits for
    /// as long as the node is away: whoever can't, drops the future, which withdraws the
    /// instruction.
    pub async fn instruct(
        &self,
        node: &NodeName,
        group: &GroupKey,
        instruction: Instruction,
    ) -> Result<(), InstructError> {
        let mut pending = self.0.instruct(node, group, instruction)?;
        loop {
            self.0.send_instruction(node, group, instruction);
            tokio::select! {
                outcome = pending.outcome() => return outcome,
                () = tokio::time::sleep(RESEND) => {}
            }
        }
    }

    /// Sets the groups of each node; the next [`Self::deliver`] follows it.
    pub fn set_groups(&self, groups: NodeGroups) {
        self.0.set_groups(groups);
    }

    /// Sets the addresses of all hubs of this site (`POD_IP:7444`); agents learn them at once.
    pub fn set_peers(&self, hubs: Vec<SocketAddr>) {
        self.0.set_peers(hubs);
    }

    /// What is known of each node that has attached since this hub began.
    pub fn nodes(&self) -> BTreeMap<NodeName, NodeView> {
        self.0.views()
    }

    /// Wakes whenever [`Self::nodes`] changed (not for nonces). The number means nothing.
    pub fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.0.changes()
    }
}

/// Serves agents until `stop`. Fails only if it can't begin or the listener breaks.
pub async fn serve(
    listener: TcpListener,
    hub: HubHandle,
    identity: &SiteIdentity,
    authenticate: Authenticate,
    stop: CancellationToken,
) -> Result<(), HubError> {
    service::serve(listener, hub.0, identity, authenticate, stop).await
}

/// Why the hub can't serve.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// Its keys.
    #[error("hub: {0}")]
    Tls(#[from] TlsError),
    /// Its listener.
    #[error("hub: serving agents failed: {0}; check that port 7444 is free for the operator")]
    Serve(#[from] tonic::transport::Error),
}
