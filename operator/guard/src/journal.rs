//! The guard's journal on the node's disk.
//!
//! One JSON file, `journal.json`, in the state folder (`/var/lib/regent/guard`), replaced
//! as a whole by rename: what is read is always one complete state.
//!
//! ```text
//! { "id": "…",                                       made with the journal: another one is another journal
//!   "site": "ireland", "node": "ireland-1",
//!   "bootId": "…",                                   of the boot in which leases and states are valid
//!   "groups": { "ireland/shop": { "highest": "3.1", "retired": null, "protected": true, "listed": true,
//!                                 "lease": { "epoch": "3.1", "until": { "boot_ns": …, "raw_ns": … } },
//!                                 "observed": null, "thawLimitMs": 8000 } },
//!   "pods":   { "UID": { "pod": { "uid": "UID", "namespace": "shop", "name": "shop-0", "group": "ireland/shop" },
//!                        "state": { "Running": { "epoch": "3.1" } } } },    or Gated, Frozen, Killing
//!   "volumes": { "UID": { "id": "csi-…", "target": "/var/lib/kubelet/pods/UID/volumes/…/mount" } } }
//! ```
//!
//! The lease's end of a running pod is its group's `lease.until`, that of a frozen one
//! its own `since`: [`lease_ends`] reads both, also when nothing of the node is alive.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use regent_core::ids::{Epoch, GroupKey, NodeName, SiteName};
use regent_lease::guard::{Journal, PodState, PodUid};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

/// The journal's name in the state folder.
pub const FILE: &str = "journal.json";

/// Why the journal can't be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The disk refuses.
    #[error("journal {path}: {cause}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// It is there and says nothing that can be understood.
    #[error(
        "journal {path} does not parse: {cause}; if it can't be restored, move it away: the guard kills the node's pods and holds them at their gates until a certificate comes"
    )]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        cause: serde_json::Error,
    },
    /// It was written for another node.
    #[error(
        "journal {path} is of node {found}, this guard is of node {wanted}; give each node a state folder of its own"
    )]
    OtherNode {
        /// Which file.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Who reads.
        wanted: String,
    },
}

/// Where a pod's gate is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// The kubelet's name for it.
    pub id: String,
    /// The folder that the pod sees as `/regent`.
    pub target: PathBuf,
}

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// A random name that was made with the journal. Whoever told the guard something must
    /// tell it again when this is another: the journal was lost.
    pub id: String,
    /// The site of the node.
    pub site: SiteName,
    /// The node.
    pub node: NodeName,
    /// What the core decided.
    #[serde(flatten)]
    pub journal: Journal,
    /// Where the pods' gates are.
    #[serde(default)]
    pub volumes: BTreeMap<PodUid, Volume>,
}

/// The state folder, owned by one guard at a time.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    // Holds the lock while it is open.
    _lock: File,
}

impl Store {
    /// Owns the folder, or none while another guard of this node does: during an update
    /// two are there, and the new one goes on from what the old one wrote last.
    pub fn try_own(dir: &Path) -> Result<Option<Self>, JournalError> {
        let path = dir.join("lock");
        let fail = |cause| JournalError::Io { path: path.clone(), cause };
        fs::create_dir_all(dir).map_err(fail)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(fail)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { dir: dir.to_owned(), _lock: lock })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(fail(e.into())),
        }
    }

    /// What the guard before wrote; an empty record on a new node.
    pub fn load(&self, site: &SiteName, node: &NodeName) -> Result<Record, JournalError> {
        let path = self.dir.join(FILE);
        let Some(record) = read(&path)? else {
            let fail = |e: rustix::io::Errno| JournalError::Io { path: path.clone(), cause: e.into() };
            let (id, site, node) = (new_id().map_err(fail)?, site.clone(), node.clone());
            return Ok(Record { id, site, node, journal: Journal::default(), volumes: BTreeMap::new() });
        };
        if (&record.site, &record.node) != (site, node) {
            let (found, wanted) = (format!("{}/{}", record.site, record.node), format!("{site}/{node}"));
            return Err(JournalError::OtherNode { path, found, wanted });
        }
        Ok(record)
    }

    /// Replaces the file. `durable`: it survives the machine. Otherwise it survives the
    /// guard, which is enough for whatever is void after a reboot.
    pub fn save(&self, record: &Record, durable: bool) -> Result<(), JournalError> {
        let path = self.dir.join(FILE);
        let temporary = self.dir.join(".journal.json");
        let write = || -> io::Result<()> {
            let mut file = File::create(&temporary)?;
            file.write_all(&serde_json::to_vec(record)?)?;
            if durable {
                file.sync_all()?;
            }
            fs::rename(&temporary, &path)?;
            if durable {
                File::open(&self.dir)?.sync_all()?;
            }
            Ok(())
        };
        write().map_err(|cause| JournalError::Io { path: path.clone(), cause })
    }
}

fn new_id() -> rustix::io::Result<String> {
    let mut random = [0u8; 8];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    Ok(format!("{:016x}", u64::from_ne_bytes(random)))
}

fn read(path: &Path) -> Result<Option<Record>, JournalError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(JournalError::Io { path: path.to_owned(), cause }),
    };
    serde_json::from_slice(&text).map(Some).map_err(|cause| JournalError::Unreadable { path: path.to_owned(), cause })
}

/// Until when pods of one group may run, or could have run, on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseEnd {
    /// The site of the node.
    pub site: SiteName,
    /// The node.
    pub node: NodeName,
    /// The group.
    pub group: GroupKey,
    /// The epoch under which they run.
    pub epoch: Epoch,
    /// The lease's end: CLOCK_BOOTTIME in nanoseconds, of the boot `boot_id`.
    pub boot_ns: u64,
    /// The boot in which that clock counts.
    pub boot_id: String,
    /// The pods' names.
    pub pods: Vec<String>,
}

/// The lease ends in a journal on disk, for whoever must know them when no guard is left
/// to say (`path` is the file). Empty if the node has no journal.
///
/// # Errors
/// When the file is there and can't be read.
pub fn lease_ends(path: &Path) -> Result<Vec<LeaseEnd>, JournalError> {
    let Some(record) = read(path)? else { return Ok(Vec::new()) };
    let mut ends: BTreeMap<(GroupKey, Epoch, u64), Vec<String>> = BTreeMap::new();
    for pod in record.journal.pods.values() {
        let group = &pod.pod.group;
        let end = match pod.state {
            PodState::Running { epoch } => {
                record.journal.groups.get(group).and_then(|g| g.lease).map(|lease| (epoch, lease.until.boot_ns))
            }
            PodState::Frozen { epoch, since } => Some((epoch, since.boot_ns)),
            PodState::Gated | PodState::Killing => None,
        };
        if let Some((epoch, boot_ns)) = end {
            ends.entry((group.clone(), epoch, boot_ns)).or_default().push(pod.pod.name.clone());
        }
    }
    let list = ends.into_iter().map(|((group, epoch, boot_ns), pods)| LeaseEnd {
        site: record.site.clone(),
        node: record.node.clone(),
        group,
        epoch,
        boot_ns,
        boot_id: record.journal.boot_id.clone(),
        pods,
    });
    Ok(list.collect())
}

/// How often a guard that waits for the folder tries again.
pub const OWN_RETRY: Duration = Duration::from_millis(10);
