//! The list of nodes that may have had a certificate for a group (L12).
//!
//! A node is put on the list, in the group's `ControlLease`, before the hub sends it a
//! certificate for the group; so whoever stops every listed node stops the group. When
//! the list opens again after a release, a node that wasn't on it first journals the
//! epoch that ended: the other replica may still have a certificate of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use regent_api::lease::ListedNode;
use regent_api::{ControlLease, ControlLeaseStatus};
use regent_core::ids::{Epoch, GroupKey, NodeName};
use regent_core::instruction::Instruction;
use regent_core::plan::Protection;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::record::Before;
use crate::hub::{HubHandle, InstructError, NodeGroups};
use crate::objects::{ControlLeases, ObjectError, Snapshot, group_of};
use crate::plans::Plans;

/// How long a guard has to journal what it is told; then it is told again later.
const JOURNAL: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Why a list could not be changed, or a node not be told.
#[derive(Debug, thiserror::Error)]
pub enum NodesError {
    /// The object could not be written.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// The guard refused.
    #[error(transparent)]
    Instruct(#[from] InstructError),
    /// The node does not answer.
    #[error("node {node} has not confirmed {instruction} of group {group} within {} s; bring its agent back, or strike it from the list if it is gone for good", JOURNAL.as_secs())]
    Silent {
        /// The node.
        node: NodeName,
        /// The group.
        group: GroupKey,
        /// What it was told.
        instruction: Instruction,
    },
    /// The list is closed.
    #[error("the list of nodes of group {0} is closed: a release or a protection is under way")]
    Closed(GroupKey),
}

/// The lists of this site's groups.
pub struct NodeLists {
    leases: ControlLeases,
    hub: HubHandle,
    plans: Arc<Plans>,
    objects: watch::Receiver<Snapshot<ControlLease>>,
    /// Nodes whose guard knows of its group, by the guard's journal and the plan's version.
    told: Mutex<BTreeMap<(NodeName, GroupKey), (String, u64)>>,
    under_way: Mutex<BTreeSet<(NodeName, GroupKey)>>,
    /// Who was on each list when it was closed: what is watched may be behind that.
    closed: Mutex<BTreeMap<GroupKey, BTreeSet<NodeName>>>,
}

/// The newest epoch that was released here.
fn ended(status: &ControlLeaseStatus) -> Option<Epoch> {
    status.retired.as_ref()?.parse().ok()
}

/// Notes the end of an epoch, unless a later one's is noted, and opens the list again.
fn end(status: &mut ControlLeaseStatus, epoch: Epoch) {
    status.retired = ended(status).max(Some(epoch)).map(|e| e.to_string());
    status.nodes_closed = false;
}

/// Puts a node on a list that is open, if it was told the newest epoch that ended here.
/// What it must be told first, if it wasn't.
fn list_node(status: &mut ControlLeaseStatus, node: &NodeName, told: Option<Epoch>) -> Result<bool, Option<Epoch>> {
    if status.nodes.iter().any(|n| n.name == node.0) {
        return Ok(false);
    }
    if status.nodes_closed {
        return Err(None);
    }
    match ended(status).filter(|e| Some(*e) > told) {
        Some(epoch) => Err(Some(epoch)),
        None => {
            status.nodes.push(ListedNode { name: node.0.clone(), protects: false });
            Ok(true)
        }
    }
}

impl NodeLists {
    /// The lists in these objects.
    pub fn new(
        leases: ControlLeases,
        hub: HubHandle,
        plans: Arc<Plans>,
        objects: watch::Receiver<Snapshot<ControlLease>>,
    ) -> Self {
        Self {
            leases,
            hub,
            plans,
            objects,
            told: Mutex::default(),
            under_way: Mutex::default(),
            closed: Mutex::default(),
        }
    }

    /// A group's list, and whether it is closed, as last seen.
    pub fn listed(&self, group: &GroupKey) -> (Vec<ListedNode>, bool) {
        let objects = self.objects.borrow();
        let status = objects.get(&regent_api::object_name(group)).and_then(|o| o.status.as_ref());
        status.map(|s| (s.nodes.clone(), s.nodes_closed)).unwrap_or_default()
    }

    /// Who held the group, as this site's object said last.
    pub(super) fn holder_before(&self, group: &GroupKey) -> Option<Before> {
        let objects = self.objects.borrow();
        let holder = objects.get(&regent_api::object_name(group))?.status.as_ref()?.holder.clone()?;
        Some(Before { site: holder.site, epoch: holder.epoch })
    }

    /// Whether the holder of an epoch released it to this site, as the site's object says.
    pub(super) fn was_handed_over(&self, group: &GroupKey, epoch: &str) -> bool {
        let objects = self.objects.borrow();
        let status = objects.get(&regent_api::object_name(group)).and_then(|o| o.status.as_ref());
        status.and_then(|s| s.handed_over.as_deref()) == Some(epoch)
    }

    /// Closes a group's list. Returns who is on it.
    pub async fn close(&self, group: &GroupKey) -> Result<BTreeSet<NodeName>, ObjectError> {
        let status = self.leases.update(group, |s| !std::mem::replace(&mut s.nodes_closed, true)).await?;
        let nodes: BTreeSet<NodeName> = status.nodes.into_iter().map(|n| NodeName(n.name)).collect();
        self.closed.lock().unwrap_or_else(PoisonError::into_inner).insert(group.clone(), nodes.clone());
        Ok(nodes)
    }

    /// Who was on a list when this replica closed it.
    pub(super) fn at_closing(&self, group: &GroupKey) -> BTreeSet<NodeName> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner).get(group).cloned().unwrap_or_default()
    }

    /// Opens it again after a release. Its end is noted in the same write, so that whoever
    /// lists a node from then on knows of it.
    pub(super) async fn open_released(&self, group: &GroupKey, epoch: Epoch) -> Result<(), ObjectError> {
        let change = |s: &mut ControlLeaseStatus| {
            end(s, epoch);
            true
        };
        self.leases.update(group, change).await.map(drop)
    }

    /// Opens it again.
    pub async fn open(&self, group: &GroupKey) -> Result<(), ObjectError> {
        self.leases.update(group, |s| std::mem::replace(&mut s.nodes_closed, false)).await.map(drop)
    }

    /// Takes a node off the list: it is gone for good, as a person says.
    pub async fn strike(&self, group: &GroupKey, node: &NodeName) -> Result<(), ObjectError> {
        let strike = |s: &mut ControlLeaseStatus| {
            let before = s.nodes.len();
            s.nodes.retain(|n| n.name != node.0);
            s.nodes.len() != before
        };
        self.leases.update(group, strike).await.map(drop)
    }

    /// Notes something about a listed node.
    async fn note(&self, group: &GroupKey, node: &NodeName, note: impl Fn(&mut ListedNode)) -> Result<(), ObjectError> {
        let change = |s: &mut ControlLeaseStatus| {
            let Some(listed) = s.nodes.iter_mut().find(|n| n.name == node.0) else { return false };
            let before = listed.clone();
            note(listed);
            *listed != before
        };
        self.leases.update(group, change).await.map(drop)
    }

    /// Has the guard of every node that was listed when this replica closed the list journal
    /// that the group is protected. Returns what went wrong, node by node; nothing: all have
    /// confirmed.
    pub async fn protect(&self, group: &GroupKey) -> BTreeMap<NodeName, NodesError> {
        let each = self.at_closing(group).into_iter().map(|node| async move {
            let told = self.tell(&node, group, Instruction::Protect).await;
            let noted = match told {
                Ok(()) => self.note(group, &node, |n| n.protects = true).await.map_err(NodesError::from),
                Err(e) => Err(e),
            };
            noted.err().map(|e| (node, e))
        });
        futures::future::join_all(each).await.into_iter().flatten().collect()
    }

    /// Has a node stop a group for good.
    pub(super) async fn stop(&self, group: &GroupKey, node: &NodeName, epoch: Epoch) -> Result<(), InstructError> {
        self.hub.instruct(node, group, Instruction::Retire(epoch)).await
    }

    async fn tell(&self, node: &NodeName, group: &GroupKey, instruction: Instruction) -> Result<(), NodesError> {
        match tokio::time::timeout(JOURNAL, self.hub.instruct(node, group, instruction)).await {
            Ok(told) => Ok(told?),
            Err(_) => Err(NodesError::Silent { node: node.clone(), group: group.clone(), instruction }),
        }
    }

    /// Lists nodes on which pods of a group stand, and tells the hub whose certificates
    /// each node gets, until cancelled.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut hub = self.hub.changes();
        let mut objects = self.objects.clone();
        let mut plans = self.plans.watch();
        loop {
            self.route();
            self.look_for_nodes();
            tokio::select! {
                () = stop.cancelled() => return,
                _ = hub.changed() => {}
                _ = objects.changed() => {}
                _ = plans.changed() => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        }
    }

    fn route(&self) {
        let objects = self.objects.borrow().clone();
        let lists: Vec<(GroupKey, Vec<NodeName>)> = objects
            .values()
            .filter_map(|o| {
                let nodes = &o.status.as_ref()?.nodes;
                Some((group_of(o)?, nodes.iter().map(|n| NodeName(n.name.clone())).collect()))
            })
            .collect();
        self.hub.set_groups(NodeGroups::from_lists(lists.iter().map(|(group, nodes)| (group, nodes))));
    }

    fn look_for_nodes(self: &Arc<Self>) {
        for (node, view) in self.hub.nodes() {
            let Some(report) = view.report.filter(|_| view.attached) else { continue };
            let groups: BTreeSet<GroupKey> = report.pods.into_iter().map(|p| p.group).collect();
            for group in groups {
                self.look_at(node.clone(), group, &view.guard_journal_id);
            }
        }
    }

    fn look_at(self: &Arc<Self>, node: NodeName, group: GroupKey, journal: &str) {
        let Some(plan) = self.plans.get(&group) else { return };
        let key = (node.clone(), group.clone());
        let knows = (journal.to_owned(), plan.plan().version);
        let (nodes, closed) = self.listed(&group);
        let is_listed = nodes.iter().any(|n| n.name == node.0);
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner).get(&key) == Some(&knows);
        if (is_listed && told) || (!is_listed && closed) {
            return;
        }
        if !self.under_way.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone()) {
            return;
        }
        let this = self.clone();
        tokio::spawn(async move {
            match this.bring_in(&node, &group).await {
                Ok(()) => drop(this.told.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), knows)),
                Err(e) => tracing::info!("{e}"),
            }
            this.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        });
    }

    /// Puts a node on the list and tells its guard what it must know of the group.
    async fn bring_in(&self, node: &NodeName, group: &GroupKey) -> Result<(), NodesError> {
        let mut told = None;
        loop {
            let mut listed = Ok(false);
            let list = |s: &mut ControlLeaseStatus| {
                listed = list_node(s, node, told);
                listed == Ok(true)
            };
            // Judged by what is written, not by what was watched: an end may just have been noted.
            self.leases.update(group, list).await?;
            match listed {
                Ok(_) => break,
                Err(None) => return Err(NodesError::Closed(group.clone())),
                Err(Some(epoch)) => {
                    self.tell(node, group, Instruction::Retire(epoch)).await?;
                    told = Some(epoch);
                }
            }
        }
        self.tell(node, group, Instruction::Listed).await?;
        let Some(plan) = self.plans.get(group) else { return Ok(()) };
        let limit = Duration::from_millis(plan.plan().thaw_limit_ms);
        self.tell(node, group, Instruction::Configure(limit)).await?;
        if plan.plan().protection == Protection::Protected {
            self.tell(node, group, Instruction::Protect).await?;
            self.note(group, node, |n| n.protects = true).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(text: &str) -> Epoch {
        text.parse().unwrap()
    }

    #[test]
    fn l12_a_node_is_listed_only_after_it_was_told_the_newest_epoch_that_ended() {
        let node = NodeName("new".into());
        // Nobody was listed when it ended: the next node must know all the same.
        let mut status = ControlLeaseStatus { nodes_closed: true, ..ControlLeaseStatus::default() };
        end(&mut status, epoch("3.1"));
        assert_eq!(list_node(&mut status, &node, None), Err(Some(epoch("3.1"))));
        assert_eq!(list_node(&mut status, &node, Some(epoch("1.1"))), Err(Some(epoch("3.1"))));
        assert!(status.nodes.is_empty());
        assert_eq!(list_node(&mut status, &node, Some(epoch("3.1"))), Ok(true));
        assert_eq!(list_node(&mut status, &node, None), Ok(false));
    }

    #[test]
    fn l12_a_closed_list_takes_nobody_and_a_new_group_s_takes_everybody() {
        let node = NodeName("new".into());
        let mut closed = ControlLeaseStatus { nodes_closed: true, ..ControlLeaseStatus::default() };
        assert_eq!(list_node(&mut closed, &node, None), Err(None));
        assert_eq!(list_node(&mut ControlLeaseStatus::default(), &node, None), Ok(true));
    }

    #[test]
    fn a_late_note_of_an_earlier_end_takes_back_no_later_one() {
        let mut status = ControlLeaseStatus::default();
        for (ended, newest) in [("3.1", "3.1"), ("2.1", "3.1"), ("4.1", "4.1")] {
            end(&mut status, epoch(ended));
            assert_eq!(status.retired.as_deref(), Some(newest));
        }
    }
}
