//! Who is attached, and what waits for whom.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use regent_core::ids::{GroupKey, NodeName};
use regent_core::instruction::Instruction;
use regent_lease::deliver::NonceSet;
use regent_lease::guard::Nonce;
use regent_proto::v1;
use regent_shell::clock;
use tokio::sync::{Notify, oneshot, watch};

use super::outbox::Outbox;
use super::report::{NodeReport, NodeView};
use super::{InstructError, NodeGroups};

/// Who waits for one confirmation, each under a number of its own.
type Waiters = Vec<(u64, oneshot::Sender<Outcome>)>;

/// Streams of one node at one time. Two agents overlap while one replaces the other, and
/// both are served: the old one's guard keeps the pods until it ends.
const MAX_STREAMS: usize = 4;
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

/// A stream, and what came on it.
#[derive(Debug)]
struct Stream {
    link: Arc<Link>,
    /// With its place in the order of all nonces.
    nonce: Option<(u64, Nonce)>,
    report: Option<NodeReport>,
}

#[derive(Debug)]
struct Node {
    view: NodeView,
    streams: Vec<Stream>,
}

impl Node {
    fn new() -> Self {
        let view = NodeView {
            attached: false,
            address: None,
            heard: clock::now(),
            agent_version: String::new(),
            guard_journal_id: String::new(),
            report: None,
        };
        Self { view, streams: Vec::new() }
    }

    fn stream(&mut self, link: &Arc<Link>) -> Option<&mut Stream> {
        self.streams.iter_mut().find(|s| Arc::ptr_eq(&s.link, link))
    }

    /// The stream of the guard that was heard last: it has the pods.
    fn leading(&self) -> Option<&Stream> {
        self.streams.iter().max_by_key(|s| s.nonce.map(|(order, _)| order))
    }

    fn show_report(&mut self) {
        if let Some(report) = self.leading().and_then(|s| s.report.clone()) {
            self.view.report = Some(report);
        }
    }
}

#[derive(Debug, Default)]
struct State {
    nodes: BTreeMap<NodeName, Node>,
    pending: BTreeMap<NodeName, BTreeMap<Key, Waiters>>,
    groups: Arc<NodeGroups>,
    peers: v1::Peers,
    tickets: u64,
    nonces: u64,
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

impl Registry {
    fn touch(&self) {
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// A node opens a stream.
    pub(super) fn attach(&self, node: &NodeName, address: SocketAddr) -> Arc<Link> {
        let link = Arc::new(Link::default());
        let mut state = lock(&self.state);
        let State { nodes, pending, peers, .. } = &mut *state;
        {
            let mut outbox = link.outbox();
            outbox.peers(peers.clone());
            for (group, instruction) in pending.get(node).into_iter().flat_map(BTreeMap::keys) {
                outbox.instruction((group, *instruction).into());
            }
        }
        let entry = nodes.entry(node.clone()).or_insert_with(Node::new);
        entry.view.attached = true;
        entry.view.address = Some(address);
        entry.view.heard = clock::now();
        if entry.streams.len() == MAX_STREAMS {
            // It finds itself gone when it wakes.
            entry.streams.remove(0).link.wake.notify_one();
        }
        entry.streams.push(Stream { link: link.clone(), nonce: None, report: None });
        drop(state);
        self.touch();
        link
    }

    /// A stream ended.
    pub(super) fn detach(&self, node: &NodeName, link: &Arc<Link>) {
        let mut state = lock(&self.state);
        if let Some(entry) = state.nodes.get_mut(node) {
            entry.streams.retain(|s| !Arc::ptr_eq(&s.link, link));
            entry.view.attached = !entry.streams.is_empty();
            entry.show_report();
            drop(state);
            self.touch();
        }
    }

    /// Whether this is still a stream of the node.
    pub(super) fn is_attached(&self, node: &NodeName, link: &Arc<Link>) -> bool {
        lock(&self.state).nodes.get_mut(node).is_some_and(|n| n.stream(link).is_some())
    }

    /// A stream that was dropped may still hold messages: they count for nothing.
    fn heard(&self, node: &NodeName, link: &Arc<Link>, change: impl FnOnce(&mut NodeView, &mut Stream)) -> bool {
        let mut state = lock(&self.state);
        let Some(Node { view, streams }) = state.nodes.get_mut(node) else { return false };
        let Some(stream) = streams.iter_mut().find(|s| Arc::ptr_eq(&s.link, link)) else { return false };
        view.heard = clock::now();
        change(view, stream);
        true
    }

    pub(super) fn hello(&self, node: &NodeName, link: &Arc<Link>, hello: v1::Hello) {
        self.heard(node, link, |view, _| {
            view.agent_version = hello.agent_version;
            if !hello.guard_journal_id.is_empty() {
                view.guard_journal_id = hello.guard_journal_id;
            }
        });
        self.touch();
    }

    pub(super) fn nonce(&self, node: &NodeName, link: &Arc<Link>, nonce: Nonce) {
        let order = {
            let mut state = lock(&self.state);
            state.nonces += 1;
            state.nonces
        };
        self.heard(node, link, |_, stream| stream.nonce = Some((order, nonce)));
    }

    pub(super) fn report(&self, node: &NodeName, link: &Arc<Link>, report: NodeReport) {
        if self.heard(node, link, |_, stream| stream.report = Some(report)) {
            if let Some(entry) = lock(&self.state).nodes.get_mut(node) {
                entry.show_report();
            }
            self.touch();
        }
    }

    /// A guard's answer, to everyone who waits for it; `refusal` is empty when it is done.
    pub(super) fn confirm(&self, node: &NodeName, link: &Arc<Link>, (of, done): &Key, refusal: &str) {
        if !self.heard(node, link, |_, _| {}) {
            return;
        }
        let mut state = lock(&self.state);
        let Some(of_node) = state.pending.get_mut(node) else { return };
        let keys: Vec<Key> = of_node.keys().filter(|(g, wanted)| g == of && done.covers(*wanted)).cloned().collect();
        for key in keys {
            let outcome = outcome(node, &key, refusal);
            for (_, waiter) in of_node.remove(&key).unwrap_or_default() {
                // A waiter that is gone has withdrawn.
                let _ = waiter.send(outcome.clone());
            }
        }
    }

    pub(super) fn nonces(&self) -> NonceSet {
        let state = lock(&self.state);
        let newest = |n: &Node| n.leading().and_then(|s| s.nonce).map(|(_, nonce)| nonce);
        NonceSet::of(state.nodes.iter().filter_map(|(name, n)| Some((name.clone(), newest(n)?))))
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
            for stream in state.nodes.values().flat_map(|n| &n.streams) {
                stream.link.put(|outbox| outbox.peers(peers.clone()));
            }
        }
    }

    pub(super) fn views(&self) -> BTreeMap<NodeName, NodeView> {
        lock(&self.state).nodes.iter().map(|(name, n)| (name.clone(), n.view.clone())).collect()
    }

    fn links(&self, node: &NodeName) -> Vec<Arc<Link>> {
        lock(&self.state)
            .nodes
            .get(node)
            .map(|n| n.streams.iter().map(|s| s.link.clone()).collect())
            .unwrap_or_default()
    }

    /// Whether the node is attached.
    pub(super) fn send_certificate(
        &self,
        node: &NodeName,
        groups: &BTreeSet<GroupKey>,
        certificate: &v1::NodeCertificate,
    ) -> bool {
        let links = self.links(node);
        for link in &links {
            link.put(|outbox| outbox.certificate(groups.clone(), certificate.clone()));
        }
        !links.is_empty()
    }

    pub(super) fn send_instruction(&self, node: &NodeName, group: &GroupKey, instruction: Instruction) {
        for link in self.links(node) {
            link.put(|outbox| outbox.instruction((group, instruction).into()));
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

fn outcome(node: &NodeName, (group, instruction): &Key, refusal: &str) -> Outcome {
    if refusal.is_empty() {
        return Ok(());
    }
    let (node, group, why) = (node.clone(), group.clone(), refusal.to_owned());
    Err(InstructError::Refused { node, group, instruction: *instruction, why })
}
