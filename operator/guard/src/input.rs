//! What can happen to a guard.

use std::os::unix::net::UnixListener;

use regent_core::ids::GroupKey;
use regent_core::instruction::Instruction;
use regent_core::message::NodeCertificate;
use regent_lease::guard::{GuardError, Nonce, PodUid};
use tokio::sync::oneshot;

use crate::gates::Asker;
use crate::volume::Published;

/// Everything that can happen to a guard but time.
#[derive(Debug)]
pub enum Input {
    /// The kubelet publishes a pod's volume; its folder is made and its socket listens.
    Publish {
        /// Whose, and where.
        published: Published,
        /// The socket in it.
        listener: UnixListener,
        /// Answered when it is journaled.
        reply: oneshot::Sender<Result<(), PublishError>>,
    },
    /// The kubelet takes a volume away.
    Unpublish {
        /// Its name.
        id: String,
        /// Answered when it is journaled, and the folder can be removed; or refused while the
        /// pod lives.
        reply: oneshot::Sender<Result<(), GuardError>>,
    },
    /// Somebody waits at a pod's gate.
    Gate {
        /// Whose gate.
        uid: PodUid,
        /// Who waits.
        asker: Asker,
    },
    /// And went away.
    GateGone {
        /// From whose gate.
        uid: PodUid,
        /// Who.
        id: u64,
    },
    /// The agent asks for a nonce.
    Nonce {
        /// The nonce.
        reply: oneshot::Sender<std::io::Result<Nonce>>,
    },
    /// The agent shows a certificate.
    Certify {
        /// What it shows.
        certificate: Box<NodeCertificate>,
        /// For which groups it counts, and why not for others.
        reply: oneshot::Sender<(Vec<GroupKey>, Vec<String>)>,
    },
    /// The agent brings an instruction of the hub's.
    Instruct {
        /// For which group.
        group: GroupKey,
        /// What to do.
        instruction: Instruction,
        /// Answered when it is done and journaled.
        reply: oneshot::Sender<Result<(), GuardError>>,
    },
    /// Somebody watches the state.
    Watch,
}

/// Why a volume can't be published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The pod has its gate already, for another group.
    #[error(
        "pod {pod} already carries the gate of group {has}: a pod belongs to one group, remove the volume of {wants}"
    )]
    TwoGroups {
        /// The pod's name.
        pod: String,
        /// The group of its gate.
        has: GroupKey,
        /// The group of the other volume.
        wants: GroupKey,
    },
    /// The pod has its gate already.
    #[error(
        "pod {0} carries two gate.regent.dev volumes: mount one of them, named regent-gate, into every container that needs it"
    )]
    TwoVolumes(String),
    /// The socket can't be served.
    #[error("answering at the gate's socket: {0}")]
    Socket(String),
}
