//! One guard from its start to its end.

use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener as StdListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use regent_core::charter::{Charter, SignedCharter};
use regent_core::event::{Actor, Event, names};
use regent_core::ids::{NodeName, SiteName};
use regent_lease::guard::{Guard, GuardConfig, GuardError};
use regent_proto::csi::identity_server::IdentityServer;
use regent_proto::csi::node_server::NodeServer;
use regent_proto::registration::registration_server::RegistrationServer;
use regent_proto::v1::guard_server::GuardServer;
use serde_json::json;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::transport::server::Router;

use crate::agent::Agent;
use crate::cgroup::{CgroupError, Tree};
use crate::clock::{Alarm, now, realtime_ns};
use crate::csi::Kubelet;
use crate::disk::Disk;
use crate::fence::Fence;
use crate::gates::Gates;
use crate::input::Input;
use crate::journal::{JournalError, OWN_RETRY, Record, Store};
use crate::node::Node;
use crate::output::Output;
use crate::sockets::{self, Sockets};
use crate::volume::Volumes;

/// Between two signs of life to the supervisor.
pub const BEAT: Duration = Duration::from_millis(100);
/// Inputs that may wait; who sends more waits too.
const INPUTS: usize = 256;

/// What a guard is started with.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// The signed charter (DSSE envelope in JSON) that this guard is pinned to
    #[arg(long, default_value = "/etc/regent/charter/charter.json")]
    pub charter: PathBuf,
    /// The name of this node's site in the charter
    #[arg(long, env = "REGENT_SITE")]
    pub site: SiteName,
    /// The name of this node
    #[arg(long, env = "NODE_NAME")]
    pub node: String,
    /// Where the journal is kept; it must outlive the container
    #[arg(long, default_value = "/var/lib/regent/guard")]
    pub state: PathBuf,
    /// The socket for the agent beside this guard
    #[arg(long, default_value = "/run/regent/guard.sock")]
    pub agent_socket: PathBuf,
    /// The kubelet's root folder, under the same path as on the node
    #[arg(long, default_value = "/var/lib/kubelet")]
    pub kubelet_dir: PathBuf,
    /// The regent-gate program [default: beside this program]
    #[arg(long)]
    pub gate: Option<PathBuf>,
    /// The node's cgroup v2 tree, or a folder with one mounted below it [default: every one in the mount table]
    #[arg(long)]
    pub cgroup_root: Option<PathBuf>,
    /// How long before a lease's end freezing begins, in milliseconds
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(5..=500))]
    pub freeze_margin_ms: u64,
}

/// Why a guard can't start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The charter can't be used.
    #[error("charter {path}: {why}")]
    Charter {
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The charter and the journal don't make a guard.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The cgroups.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// Something else of the node.
    #[error("{what}: {cause}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        cause: io::Error,
    },
    /// A server ended.
    #[error("serving {what}: {cause}")]
    Serve {
        /// Which socket.
        what: &'static str,
        /// Why.
        cause: tonic::transport::Error,
    },
}

impl ServeError {
    /// Whether another attempt would end the same way until a person changes something.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Charter { .. } | Self::Guard(_) | Self::Cgroup(CgroupError::NoTree(_)) => true,
            Self::Journal(e) => !matches!(e, JournalError::Io { .. }),
            Self::Cgroup(_) | Self::Io { .. } | Self::Serve { .. } => false,
        }
    }
}

pub(crate) fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> ServeError {
    let what = what.into();
    move |cause| ServeError::Io { what, cause }
}

/// The signs of life that a supervisor waits for: bytes over standard input's socket.
pub struct Heart {
    supervisor: Option<UnixStream>,
}

impl Heart {
    /// Beats over standard input, if a supervisor started this process.
    pub fn new(supervised: bool) -> Result<Self, ServeError> {
        let take = || -> io::Result<UnixStream> {
            let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
            stream.set_nonblocking(true)?;
            Ok(stream)
        };
        let supervisor = supervised.then(take).transpose().map_err(io_error("the supervisor's socket"))?;
        Ok(Self { supervisor })
    }

    /// One sign of life. An error: the supervisor is gone, and another guard may start.
    fn beat(&mut self) -> Result<(), ServeError> {
        match self.supervisor.as_mut().map_or(Ok(()), |s| s.write_all(b".")) {
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => Err(io_error("the supervisor is gone")(e)),
            _ => Ok(()),
        }
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        if let Some(stream) = &self.supervisor {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn load_charter(path: &Path) -> Result<Charter, ServeError> {
    let fail = |why: String| ServeError::Charter { path: path.to_owned(), why };
    let text = std::fs::read(path).map_err(|e| fail(format!("{e}; mount the ConfigMap regent-charter there")))?;
    let signed: SignedCharter = serde_json::from_slice(&text).map_err(|e| fail(format!("is no DSSE envelope: {e}")))?;
    signed.verify_pinned().map_err(|e| fail(e.to_string()))
}

/// Waits until no other guard of this node owns the state folder.
async fn own(dir: &Path, heart: &mut Heart) -> Result<Store, ServeError> {
    let mut told = false;
    loop {
        if let Some(store) = Store::try_own(dir)? {
            return Ok(store);
        }
        if !told {
            tracing::info!("another guard of this node is at work; this one goes on when it ends");
            told = true;
        }
        heart.beat()?;
        tokio::time::sleep(OWN_RETRY).await;
    }
}

/// Runs a guard until it is told to end. Pods are left as they are: their deadlines are
/// in the journal.
pub async fn serve(options: Options, output: Output, mut heart: Heart) -> Result<(), ServeError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(io_error("waiting for SIGTERM"))?;
    let charter = load_charter(&options.charter)?;
    let store = tokio::select! {
        store = own(&options.state, &mut heart) => store?,
        _ = terminate.recv() => return Ok(()),
    };
    let node_name = NodeName(options.node.clone());
    let record = store.load(&options.site, &node_name)?;
    let (inputs, received) = mpsc::channel(INPUTS);
    let disk = Disk::start(store, &record).map_err(io_error("the disk's thread"))?;
    let volumes = Volumes::new(&options.kubelet_dir, gate_program(&options)?);
    let states = watch::Sender::default();
    let mut node = make_node(&options, charter, record, disk, &output, &inputs, &states)?;
    node.find(volumes.found());
    let mut guard = Running { node, options, volumes, inputs, states, output };
    tokio::select! {
        ended = guard.run(received, heart) => ended,
        _ = terminate.recv() => Ok(()),
    }
}

fn boot_id() -> Result<String, ServeError> {
    let path = "/proc/sys/kernel/random/boot_id";
    Ok(std::fs::read_to_string(path).map_err(io_error(path))?.trim().to_owned())
}

fn make_node(
    options: &Options,
    charter: Charter,
    record: Record,
    disk: Disk,
    output: &Output,
    inputs: &mpsc::Sender<Input>,
    states: &watch::Sender<regent_proto::v1::GuardState>,
) -> Result<Node, ServeError> {
    let config = GuardConfig {
        site: options.site.clone(),
        node: NodeName(options.node.clone()),
        charter: charter.into(),
        boot_id: boot_id()?,
        freeze_margin: Duration::from_millis(options.freeze_margin_ms),
    };
    let tree = match &options.cgroup_root {
        Some(root) => Tree::below(root)?,
        None => Tree::mounted()?,
    };
    let guard = Guard::new(config, record.journal)?;
    let (fence, gates) = (Fence::new(tree), Gates::new(inputs.clone()));
    Ok(Node::new(guard, record.volumes, fence, gates, disk, output.clone(), states.clone()))
}

struct Running {
    node: Node,
    options: Options,
    volumes: Volumes,
    inputs: mpsc::Sender<Input>,
    states: watch::Sender<regent_proto::v1::GuardState>,
    output: Output,
}

impl Running {
    async fn run(&mut self, mut received: mpsc::Receiver<Input>, mut heart: Heart) -> Result<(), ServeError> {
        let alarm = Alarm::new().map_err(io_error("a timer on CLOCK_BOOTTIME"))?;
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let (failures, mut failed) = mpsc::channel(1);
        self.report_start();
        // The state comes before the sockets. They don't wait for its journal: whatever is
        // asked over them does.
        self.node.resume();
        let mut opening = Some(self.open());
        loop {
            self.node.work();
            let deadline = self.node.next_deadline();
            let pace = self.node.pace();
            tokio::select! {
                biased;
                () = alarm.reached(deadline) => {
                    self.node.tick();
                    // A deadline that stays is looked at again, but lets others speak.
                    if self.node.next_deadline() == deadline {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                }
                () = self.node.written() => {}
                sockets = opened(&mut opening) => {
                    opening = None;
                    self.serve(sockets?, &failures)?;
                }
                () = tokio::time::sleep(pace.unwrap_or_default()), if pace.is_some() => self.node.poll(),
                _ = beat.tick() => heart.beat()?,
                Some(error) = failed.recv() => return Err(error),
                Some(input) = received.recv() => self.node.on_input(input),
            }
        }
    }

    fn report_start(&self) {
        self.output.event(&Event {
            boot_ns: now().boot_ns,
            site: self.options.site.clone(),
            actor: Actor::Guard,
            event: names::STARTED.to_owned(),
            group: None,
            epoch: None,
            node: Some(self.options.node.clone()),
            detail: json!({ "realtime_ns": realtime_ns(), "version": env!("CARGO_PKG_VERSION") }),
        });
    }

    /// Opens every socket, on a thread that may wait for the disk.
    fn open(&self) -> JoinHandle<Result<Sockets, ServeError>> {
        let (options, volumes) = (self.options.clone(), self.node.volumes().clone());
        tokio::task::spawn_blocking(move || Sockets::open(&options, &volumes))
    }

    /// Serves what was opened: the gates first, for pods may be waiting.
    fn serve(&mut self, sockets: Sockets, failures: &mpsc::Sender<ServeError>) -> Result<(), ServeError> {
        for (uid, listener) in sockets.gates {
            self.node.reopen(&uid, listener);
        }
        let agent = Agent { inputs: self.inputs.clone(), states: self.states.clone() };
        spawn("the agent's socket", Server::builder().add_service(GuardServer::new(agent)), sockets.agent, failures)?;
        let kubelet = Kubelet {
            volumes: self.volumes.clone(),
            inputs: self.inputs.clone(),
            node: self.options.node.clone(),
            endpoint: sockets::csi_endpoint(&self.options),
        };
        let csi = Server::builder()
            .add_service(IdentityServer::new(kubelet.clone()))
            .add_service(NodeServer::new(kubelet.clone()));
        spawn("the CSI socket", csi, sockets.csi, failures)?;
        let registration = Server::builder().add_service(RegistrationServer::new(kubelet));
        spawn("the registration socket", registration, sockets.registration, failures)
    }
}

/// What came of opening the sockets; nothing, if that is over.
async fn opened(opening: &mut Option<JoinHandle<Result<Sockets, ServeError>>>) -> Result<Sockets, ServeError> {
    match opening {
        Some(task) => task.await.map_err(io::Error::from).map_err(io_error("opening the sockets"))?,
        None => std::future::pending().await,
    }
}

fn gate_program(options: &Options) -> Result<PathBuf, ServeError> {
    let own = || -> io::Result<PathBuf> { Ok(std::env::current_exe()?.with_file_name("regent-gate")) };
    let path = options.gate.clone().map_or_else(own, Ok).map_err(io_error("this program's own path"))?;
    std::fs::metadata(&path)
        .map_err(io_error(format!("{}: give the regent-gate program with --gate", path.display())))?;
    Ok(path)
}

fn spawn(
    what: &'static str,
    router: Router,
    listener: StdListener,
    failures: &mpsc::Sender<ServeError>,
) -> Result<(), ServeError> {
    let listener = UnixListener::from_std(listener).map_err(io_error(what))?;
    let failures = failures.clone();
    tokio::spawn(async move {
        if let Err(cause) = router.serve_with_incoming(UnixListenerStream::new(listener)).await {
            let _ = failures.send(ServeError::Serve { what, cause }).await;
        }
    });
    Ok(())
}
