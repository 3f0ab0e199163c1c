//! Carries out what the core asks for while it releases a group (L12). Only the leader
//! of the replicas begins releases, so only it gets these jobs.

use std::sync::Arc;
use std::time::Duration;

use regent_core::ids::{Epoch, GroupKey, SiteName};
use regent_lease::contender::ReleaseEvent;
use regent_proto::v1;
use regent_shell::retry::{RetryPolicy, seed};
use tokio_util::sync::CancellationToken;

use super::nodes::NodeLists;
use super::{LeaseShell, ReleaseJob, ReleaseJobs};
use crate::federation::client::Peers;

/// The successor asks each P anyway: telling it saves half of that.
const TELL_SUCCESSOR: Duration = Duration::from_secs(1);

/// Does jobs until cancelled.
pub(super) async fn work(
    shell: Arc<LeaseShell>,
    lists: Arc<NodeLists>,
    peers: Peers,
    ReleaseJobs(mut jobs): ReleaseJobs,
    stop: CancellationToken,
) {
    loop {
        let job = tokio::select! {
            () = stop.cancelled() => return,
            job = jobs.recv() => job,
        };
        match job {
            Some(ReleaseJob::CloseNodeList { group, epoch }) => {
                tokio::spawn(close(shell.clone(), lists.clone(), group, epoch));
            }
            Some(ReleaseJob::StopNodes { group, epoch }) => stop_nodes(&shell, &lists, &group, epoch),
            Some(ReleaseJob::Released { group, epoch, successor }) => {
                tokio::spawn(released(shell.clone(), lists.clone(), peers.clone(), group, epoch, successor));
            }
            None => return,
        }
    }
}

async fn close(shell: Arc<LeaseShell>, lists: Arc<NodeLists>, group: GroupKey, epoch: Epoch) {
    let event = match lists.close(&group).await {
        Ok(nodes) => ReleaseEvent::ListClosed(nodes),
        Err(e) => {
            tracing::warn!(%group, %epoch, "the release is called off, the holder goes on: {e}");
            ReleaseEvent::CallOff
        }
    };
    if let Err(e) = shell.report(&group, event) {
        tracing::warn!("{e}");
    }
}

/// Every node is told at once. One that doesn't answer holds the release up for Dmax at
/// most; it is told until then and for as long again.
fn stop_nodes(shell: &Arc<LeaseShell>, lists: &Arc<NodeLists>, group: &GroupKey, epoch: Epoch) {
    let patience = shell.context.charter.lease_duration() * 2;
    for node in lists.at_closing(group) {
        let (shell, lists, group) = (shell.clone(), lists.clone(), group.clone());
        tokio::spawn(async move {
            match tokio::time::timeout(patience, lists.stop(&group, &node, epoch)).await {
                Ok(Ok(())) => {
                    if let Err(e) = shell.report(&group, ReleaseEvent::NodeStopped { node: node.clone(), epoch }) {
                        tracing::debug!("{e}");
                    }
                }
                Ok(Err(e)) => tracing::warn!("{e}"),
                Err(_) => {
                    tracing::warn!(%group, %node, "has not confirmed that the group is stopped; its lease has run out")
                }
            }
        });
    }
}

async fn released(
    shell: Arc<LeaseShell>,
    lists: Arc<NodeLists>,
    peers: Peers,
    group: GroupKey,
    epoch: Epoch,
    successor: SiteName,
) {
    tracing::info!(%group, %epoch, %successor, "released");
    if let Some(peer) = peers.get(&successor) {
        let notice = v1::ReleasedNotice { group: group.to_string(), epoch: epoch.to_string() };
        if let Err(e) = peer.call(TELL_SUCCESSOR, |mut client| async move { client.released(notice).await }).await {
            tracing::debug!("telling the successor: {e}");
        }
    }
    let mut retry = RetryPolicy::new(Duration::from_millis(200), Duration::from_secs(5), seed(group.name.as_str()));
    while let Err(e) = lists.open_released(&group, epoch).await {
        tracing::warn!("the list of nodes stays closed for now: {e}");
        retry.wait().await;
    }
    shell.wake.notify_one();
}
