//! Keeps the lists of nodes in the groups' `ControlLease`s by compare-and-swap, and tells
//! guards what follows from them (L12).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use regent_api::lease::ListedNode;
use regent_api::{ControlLease, ControlLeaseStatus};
use regent_core::ids::{Epoch, GroupKey, NodeName};
use regent_core::instruction::Instruction;
use regent_lease::nodes::{Admission, NodeList, introduction};
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

/// The list that an object keeps.
fn read(status: &ControlLeaseStatus) -> NodeList {
    NodeList {
        nodes: status.nodes.iter().map(|n| (NodeName(n.name.clone()), n.protects)).collect(),
        closed: status.nodes_closed,
        ended: status.retired.as_ref().and_then(|e| e.parse().ok()),
    }
}

/// Changes the list that an object keeps. Whether anything of it is new.
fn change<T>(status: &mut ControlLeaseStatus, change: impl FnOnce(&mut NodeList) -> T) -> (T, bool) {
    let before = read(status);
    let mut list = before.clone();
    let value = change(&mut list);
    let is_new = list != before;
    if is_new {
        let listed = |(node, protects): (&NodeName, &bool)| ListedNode { name: node.0.clone(), protects: *protects };
        status.nodes = list.nodes.iter().map(listed).collect();
        status.nodes_closed = list.closed;
        status.retired = list.ended.map(|e| e.to_string());
    }
    (value, is_new)
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

    /// A group's list, as last seen.
    pub fn listed(&self, group: &GroupKey) -> NodeList {
        let objects = self.objects.borrow();
        let status = objects.get(&regent_api::object_name(group)).and_then(|o| o.status.as_ref());
        status.map(read).unwrap_or_default()
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
        let list = self.change(group, |list| list.closed = true).await?;
        let nodes: BTreeSet<NodeName> = list.nodes.into_keys().collect();
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
        self.change(group, |list| list.end(epoch)).await.map(drop)
    }

    /// Opens it again.
    pub async fn open(&self, group: &GroupKey) -> Result<(), ObjectError> {
        self.change(group, |list| list.closed = false).await.map(drop)
    }

    /// Takes a node off the list: it is gone for good, as a person says.
    pub async fn strike(&self, group: &GroupKey, node: &NodeName) -> Result<(), ObjectError> {
        let strike = |list: &mut NodeList| {
            list.nodes.remove(node);
        };
        self.change(group, strike).await.map(drop)
    }

    /// Changes a list by compare-and-swap.
    async fn change(&self, group: &GroupKey, what: impl Fn(&mut NodeList)) -> Result<NodeList, ObjectError> {
        let status = self.leases.update(group, |s| change(s, &what).1).await?;
        Ok(read(&status))
    }

    /// Has the guard of every node that was listed when this replica closed the list journal
    /// that the group is protected. Returns what went wrong, node by node; nothing: all have
    /// confirmed.
    pub async fn protect(&self, group: &GroupKey) -> BTreeMap<NodeName, NodesError> {
        let each = self.at_closing(group).into_iter().map(|node| async move {
            let told = self.tell(&node, group, Instruction::Protect).await;
            let noted = match told {
                Ok(()) => {
                    self.change(group, |list| list.note_protects(&node)).await.map(drop).map_err(NodesError::from)
                }
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
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner).get(&key) == Some(&knows);
        if !self.listed(&group).misses(&node, told) {
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
            let mut admission = Admission::Closed;
            let admit = |s: &mut ControlLeaseStatus| {
                let (admitted, is_new) = change(s, |list| list.admit(node, told));
                admission = admitted;
                is_new
            };
            // Judged by what is written, not by what was watched: an end may just have been noted.
            self.leases.update(group, admit).await?;
            match admission {
                Admission::Listed => break,
                Admission::Closed => return Err(NodesError::Closed(group.clone())),
                Admission::TellFirst(epoch) => {
                    self.tell(node, group, Instruction::Retire(epoch)).await?;
                    told = Some(epoch);
                }
            }
        }
        let Some(plan) = self.plans.get(group) else { return Ok(()) };
        for instruction in introduction(plan.plan()) {
            self.tell(node, group, instruction).await?;
            if instruction == Instruction::Protect {
                self.change(group, |list| list.note_protects(node)).await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_written_as_it_is_read_and_what_changes_nothing_is_not_written() {
        let mut status = ControlLeaseStatus { plan_version: Some(3), ..ControlLeaseStatus::default() };
        let node = NodeName("n1".into());
        assert_eq!(change(&mut status, |list| list.admit(&node, None)), (Admission::Listed, true));
        assert_eq!(change(&mut status, |list| list.admit(&node, None)), (Admission::Listed, false));
        assert!(change(&mut status, |list| list.note_protects(&node)).1);
        assert!(change(&mut status, |list| list.closed = true).1);
        assert!(change(&mut status, |list| list.end("2.1".parse().unwrap())).1);
        let listed = vec![ListedNode { name: "n1".into(), protects: true }];
        let retired = Some("2.1".to_owned());
        assert_eq!(status, ControlLeaseStatus { nodes: listed, retired, plan_version: Some(3), ..Default::default() });
        assert_eq!(read(&status).ended, Some("2.1".parse().unwrap()));
    }
}
