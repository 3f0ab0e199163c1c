//! What agents report of their nodes.

use std::net::SocketAddr;
use std::time::Duration;

use regent_core::ids::{Epoch, GroupKey};
use regent_core::time::Moment;
use regent_proto::v1;

/// A kubelet runs 110 pods by default and rarely over 500.
const MAX_PODS: usize = 2048;
/// A kubelet reports 50 images unless told otherwise.
const MAX_IMAGES: usize = 4096;

/// How a pod stands at its guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodState {
    /// Held before its program.
    Gated,
    /// Its program may run.
    Running,
    /// Stopped in place, to go on under the same epoch.
    Frozen,
    /// Being stopped for good.
    Killing,
}

/// One pod at its guard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodReport {
    /// Its UID.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its group.
    pub group: GroupKey,
    /// How it stands.
    pub state: PodState,
    /// Under which epoch it runs or ran.
    pub epoch: Option<Epoch>,
    /// What is left of its lease.
    pub lease_left: Duration,
}

/// A node as its agent last reported it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeReport {
    /// The guard's pods.
    pub pods: Vec<PodReport>,
    /// Whether the node's own status says `Ready`.
    pub ready: bool,
    /// Allocatable CPU, in thousandths.
    pub allocatable_cpu_milli: u64,
    /// Allocatable memory, in bytes.
    pub allocatable_memory_bytes: u64,
    /// Allocatable pods.
    pub allocatable_pods: u32,
    /// Names of the images that the node has.
    pub images: Vec<String>,
    /// Whether the agent reaches its guard.
    pub guard_alive: bool,
}

/// What the hub knows of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// Whether its stream is open now.
    pub attached: bool,
    /// From where it last attached.
    pub address: Option<SocketAddr>,
    /// When it was last heard.
    pub heard: Moment,
    /// The agent's version.
    pub agent_version: String,
    /// Which journal its guard keeps: another one knows nothing of what was told before.
    pub guard_journal_id: String,
    /// Its last report.
    pub report: Option<NodeReport>,
}

fn pod(p: v1::GatePod) -> Result<PodReport, String> {
    let state = match p.state() {
        v1::PodState::Gated => PodState::Gated,
        v1::PodState::Running => PodState::Running,
        v1::PodState::Frozen => PodState::Frozen,
        v1::PodState::Killing => PodState::Killing,
        v1::PodState::Unspecified => return Err(format!("GatePod, field state: {} is no state of a pod", p.state)),
    };
    let epoch = if p.epoch.is_empty() {
        None
    } else {
        Some(p.epoch.parse().map_err(|e| format!("GatePod, field epoch: {e}"))?)
    };
    Ok(PodReport {
        group: p.group.parse().map_err(|e| format!("GatePod, field group: {e}"))?,
        uid: p.uid,
        namespace: p.namespace,
        name: p.name,
        state,
        epoch,
        lease_left: Duration::from_millis(p.lease_left_ms),
    })
}

impl TryFrom<v1::NodeReport> for NodeReport {
    type Error = String;
    fn try_from(r: v1::NodeReport) -> Result<Self, String> {
        if r.pods.len() > MAX_PODS || r.images.len() > MAX_IMAGES {
            let (pods, images) = (r.pods.len(), r.images.len());
            return Err(format!("NodeReport: {pods} pods and {images} images; at most {MAX_PODS} and {MAX_IMAGES}"));
        }
        Ok(Self {
            pods: r.pods.into_iter().map(pod).collect::<Result<_, _>>()?,
            ready: r.node_ready,
            allocatable_cpu_milli: r.allocatable_cpu_milli,
            allocatable_memory_bytes: r.allocatable_memory_bytes,
            allocatable_pods: r.allocatable_pods,
            images: r.images,
            guard_alive: r.guard_alive,
        })
    }
}
