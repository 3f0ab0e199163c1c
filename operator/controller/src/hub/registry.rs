//! Who is attached, and what waits for whom.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use regent_core::guard::Nonce;
use regent_core::ids::{GroupKey, NodeName};
use regent_proto::v1;
use regent_shell::clock;
use tokio::sync::{Notify, oneshot, watch};

use super::nonces::NonceSet;
use super::outbox::Outbox;
use super::report::{NodeReport, NodeView};
use super::{InstructError, Instruction, NodeGroups};

/// Instructions that may wait for one node: a few for each group that it runs.
const MAX_PENDING: usize = 4096;

type Outcome = Result<(), InstructError>;
/// What identifies an instruction to a node, as its confirmation names it.
type Key = (GroupKey, Instruction);

/// One open stream of a node.
#[derive(Debug, Default)]
pub(super) struct Link {
    outbox: Mutex<Outbox>,
    pub(super) wake: Notify,
}

impl Link {
    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        lock(&self.outbox)
    }

    pub(super) fn next(&self) -> Option<v1::ToAgent> {
        self.outbox().next()
    }

    fn put(&self, put: impl FnOnce(&mut Outbox)) {
        put(&mut self.outbox());
        self.wake.notify_one();
    }
}

#[derive(Debug)]
struct Node {
    view: NodeView,
    nonce: Option<Nonce>,
    link: Option<Arc<Link>>,
}

#[derive(Debug, Default)]
struct State {
    nodes: BTreeMap<NodeName, Node>,
    pending: BTreeMap<NodeName, BTreeMap<Key, Vec<(u64, oneshot::Sender<Outcome>)>>>,
    groups: Arc<NodeGroups>,
    peers: v1::Peers,
    tickets: u64,
}

#[derive(Debug, Default)]
pub(super) struct Registry {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

/// A panic elsewhere leaves data that is whole: every change is one assignment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An instruction that waits; dropping it withdraws it.
#[derive(Debug)]
pub(super) struct Pending {
    registry: Arc<Registry>,
    node: NodeName,
    key: Key,
    ticket: u64,
    outcome: oneshot::Receiver<Outcome>,
}

impl Pending {
    /// What the guard answered.
    pub(super) async fn outcome(&mut self) -> Outcome {
        match (&mut self.outcome).await {
            Ok(outcome) => outcome,
            // The registry keeps the sender until it answers, and this keeps the registry.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let mut state = lock(&self.registry.state);
        let Some(of_node) = state.pending.get_mut(&self.node) else { return };
        if let Some(waiters) = of_node.get_mut(&self.key) {
            waiters.retain(|(ticket, _)| *ticket != self.ticket);
            if waiters.is_empty() {
                of_node.remove(&self.key);
            }
        }
        if of_node.is_empty() {
            state.pending.remove(&self.node);
        }
    }
}

fn to_wire(group: &GroupKey, instruction: Instruction) -> v1::Instruction {
    use v1::instruction::What;
    let what = match instruction {
        Instruction::Listed => What::Listed(v1::Listed {}),
        Instruction::Protect => What::Protect(v1::Protect {}),
        Instruction::Retire(epoch) => What::Retire(v1::Retire { epoch: epoch.to_string() }),
        Instruction::Configure(limit) => {
            What::Configure(v1::Configure { thaw_limit_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX) })
        }
    };
    v1::Instruction { group: group.to_string(), what: Some(what) }
}

/// Whether a confirmation answers this instruction.
fn answers(confirmation: &v1::Confirmation, group: &GroupKey, instruction: Instruction) -> bool {
    let named = match instruction {
        Instruction::Listed => confirmation.instruction == "Listed",
        Instruction::Protect => confirmation.instruction == "Protect",
        Instruction::Retire(epoch) => {
            confirmation.instruction == "Retire"
                && confirmation.epoch.parse().is_ok_and(|e: regent_core::ids::Epoch| e >= epoch)
        }
        Instruction::Configure(_) => confirmation.instruction == "Configure",
    };
    named && confirmation.group == group.to_string()
}

impl Registry {
    fn touch(&self) {
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// A node opens a stream; an older one of it gets nothing any more.
    pub(super) fn attach(&self, node: &NodeName, address: SocketAddr) -> Arc<Link> {
        let link = Arc::new(Link::default());
        let mut state = lock(&self.state);
        let State { nodes, pending, peers, .. } = &mut *state;
        {
            let mut outbox = link.outbox();
            outbox.peers(peers.clone());
            for (group, instruction) in pending.get(node).into_iter().flat_map(BTreeMap::keys) {
                outbox.instruction(to_wire(group, *instruction));
            }
        }
        let entry = nodes.entry(node.clone()).or_insert_with(|| Node {
            view: NodeView {
                attached: false,
                address: None,
                heard: clock::now(),
                agent_version: String::new(),
                guard_boot_id: String::new(),
                report: None,
            },
            nonce: None,
            link: None,
        });
        entry.view.attached = true;
        entry.view.address = Some(address);
        entry.view.heard = clock::now();
        // Only what is asked on this stream can be answered on it.
        entry.nonce = None;
        if let Some(older) = entry.link.replace(link.clone()) {
            older.wake.notify_one();
        }
        drop(state);
        self.touch();
        link
    }

    /// A stream ended.
    pub(super) fn detach(&self, node: &NodeName, link: &Arc<Link>) {
        let mut state = lock(&self.state);
        if let Some(entry) = state.nodes.get_mut(node).filter(|n| n.link.as_ref().is_some_and(|l| Arc::ptr_eq(l, link)))
        {
            entry.link = None;
            entry.nonce = None;
            entry.view.attached = false;
            drop(state);
            self.touch();
        }
    }

    /// Whether this is still the node's stream.
    pub(super) fn is_current(&self, node: &NodeName, link: &Arc<Link>) -> bool {
        let state = lock(&self.state);
        state.nodes.get(node).and_then(|n| n.link.as_ref()).is_some_and(|l| Arc::ptr_eq(l, link))
    }

    fn heard(&self, node: &NodeName, link: &Arc<Link>, change: impl FnOnce(&mut Node)) {
        let mut state = lock(&self.state);
        // A stream that was replaced may still hold old messages.
        if let Some(entry) = state.nodes.get_mut(node).filter(|n| n.link.as_ref().is_some_and(|l| Arc::ptr_eq(l, link)))
        {
            entry.view.heard = clock::now();
            change(entry);
        }
    }

    pub(super) fn hello(&self, node: &NodeName, link: &Arc<Link>, hello: v1::Hello) {
        self.heard(node, link, |n| {
            n.view.agent_version = hello.agent_version;
            n.view.guard_boot_id = hello.guard_boot_id;
        });
        self.touch();
    }

    pub(super) fn nonce(&self, node: &NodeName, link: &Arc<Link>, nonce: Nonce) {
        self.heard(node, link, |n| n.nonce = Some(nonce));
    }

    pub(super) fn report(&self, node: &NodeName, link: &Arc<Link>, report: NodeReport) {
        self.heard(node, link, |n| n.view.report = Some(report));
        self.touch();
    }

    /// A guard's answer: to everyone who waits for it.
    pub(super) fn confirm(&self, node: &NodeName, link: &Arc<Link>, confirmation: &v1::Confirmation) {
        self.heard(node, link, |_| {});
        let mut state = lock(&self.state);
        let Some(of_node) = state.pending.get_mut(node) else { return };
        let keys: Vec<Key> = of_node.keys().filter(|(g, i)| answers(confirmation, g, *i)).cloned().collect();
        for key in keys {
            let outcome = outcome(node, &key, confirmation);
            for (_, waiter) in of_node.remove(&key).unwrap_or_default() {
                // A waiter that is gone has withdrawn.
                let _ = waiter.send(outcome.clone());
            }
        }
    }

    pub(super) fn nonces(&self) -> NonceSet {
        let state = lock(&self.state);
        NonceSet::of(state.nodes.iter().filter_map(|(name, n)| Some((name.clone(), n.nonce?))))
    }

    pub(super) fn groups(&self) -> Arc<NodeGroups> {
        lock(&self.state).groups.clone()
    }

    pub(super) fn set_groups(&self, groups: NodeGroups) {
        lock(&self.state).groups = Arc::new(groups);
    }

    pub(super) fn set_peers(&self, hubs: Vec<SocketAddr>) {
        let peers = v1::Peers { hubs: hubs.iter().map(ToString::to_string).collect() };
        let mut state = lock(&self.state);
        if state.peers != peers {
            state.peers = peers.clone();
            for link in state.nodes.values().filter_map(|n| n.link.as_ref()) {
                link.put(|outbox| outbox.peers(peers.clone()));
            }
        }
    }

    pub(super) fn views(&self) -> BTreeMap<NodeName, NodeView> {
        lock(&self.state).nodes.iter().map(|(name, n)| (name.clone(), n.view.clone())).collect()
    }

    /// Whether the node is attached.
    pub(super) fn send_certificate(
        &self,
        node: &NodeName,
        groups: BTreeSet<GroupKey>,
        certificate: v1::NodeCertificate,
    ) -> bool {
        let link = lock(&self.state).nodes.get(node).and_then(|n| n.link.clone());
        let Some(link) = link else { return false };
        link.put(|outbox| outbox.certificate(groups, certificate));
        true
    }

    pub(super) fn send_instruction(&self, node: &NodeName, group: &GroupKey, instruction: Instruction) {
        let link = lock(&self.state).nodes.get(node).and_then(|n| n.link.clone());
        if let Some(link) = link {
            link.put(|outbox| outbox.instruction(to_wire(group, instruction)));
        }
    }

    /// How many instructions wait for a node.
    #[cfg(test)]
    pub(super) fn waiting(&self, node: &NodeName) -> usize {
        lock(&self.state).pending.get(node).map_or(0, BTreeMap::len)
    }

    /// Begins to wait for a node's confirmation.
    pub(super) fn instruct(
        self: &Arc<Self>,
        node: &NodeName,
        group: &GroupKey,
        instruction: Instruction,
    ) -> Result<Pending, InstructError> {
        let (tx, outcome) = oneshot::channel();
        let key = (group.clone(), instruction);
        let mut state = lock(&self.state);
        state.tickets += 1;
        let ticket = state.tickets;
        let of_node = state.pending.entry(node.clone()).or_default();
        if of_node.len() >= MAX_PENDING && !of_node.contains_key(&key) {
            return Err(InstructError::TooMany { node: node.clone(), waiting: of_node.len() });
        }
        of_node.entry(key.clone()).or_default().push((ticket, tx));
        drop(state);
        Ok(Pending { registry: self.clone(), node: node.clone(), key, ticket, outcome })
    }
}

fn outcome(node: &NodeName, (group, instruction): &Key, confirmation: &v1::Confirmation) -> Outcome {
    if confirmation.error.is_empty() {
        return Ok(());
    }
    Err(InstructError::Refused {
        node: node.clone(),
        group: group.clone(),
        instruction: match instruction {
            Instruction::Listed => "Listed".into(),
            Instruction::Protect => "Protect".into(),
            Instruction::Retire(epoch) => format!("Retire({epoch})"),
            Instruction::Configure(limit) => format!("Configure(thawLimit {limit:?})"),
        },
        why: confirmation.error.clone(),
    })
}
