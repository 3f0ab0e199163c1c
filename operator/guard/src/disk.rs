//! The thread that writes to the node's disk, so that one that is slow, full or hung delays
//! no deadline: the journal, and the epoch that a pod reads.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use regent_core::ids::Epoch;
use regent_lease::guard::{Journal, PodUid};
use tokio::sync::mpsc;

use crate::journal::{Record, Store, Volume};
use crate::volume::{VolumeError, Volumes};

/// Between two attempts to write the journal to a disk that refuses.
const RETRY: Duration = Duration::from_millis(100);

enum Job {
    Save { record: Record, durable: bool },
    WriteEpoch { uid: PodUid, epoch: Epoch, target: PathBuf },
}

/// What has come of what was begun.
pub enum Done {
    /// The journal is written.
    Saved,
    /// The epoch is in the pod's volume, or can't be written.
    WroteEpoch(PodUid, Epoch, Result<(), VolumeError>),
}

/// Writes one thing at a time: [`Self::done`] tells when the next can begin.
pub struct Disk {
    /// All of the journal's file but what changes.
    blank: Record,
    jobs: SyncSender<Job>,
    done: mpsc::Receiver<Done>,
}

impl Disk {
    /// Starts the thread. `record` is what was loaded from the store.
    pub fn start(store: Store, record: &Record) -> io::Result<Self> {
        let (jobs, queue) = sync_channel(1);
        let (tell, done) = mpsc::channel(1);
        std::thread::Builder::new().name("disk".into()).spawn(move || run(&store, &queue, &tell))?;
        let blank = Record { journal: Journal::default(), volumes: BTreeMap::new(), ..record.clone() };
        Ok(Self { blank, jobs, done })
    }

    /// The name of the journal that is written.
    pub fn journal_id(&self) -> &str {
        &self.blank.id
    }

    /// Begins to write the journal.
    pub fn save(&self, journal: Journal, volumes: BTreeMap<PodUid, Volume>, durable: bool) {
        self.begin(Job::Save { record: Record { journal, volumes, ..self.blank.clone() }, durable });
    }

    /// Begins to write an epoch into the volume at `target`.
    pub fn write_epoch(&self, uid: PodUid, epoch: Epoch, target: PathBuf) {
        self.begin(Job::WriteEpoch { uid, epoch, target });
    }

    fn begin(&self, job: Job) {
        if self.jobs.send(job).is_err() {
            tracing::error!("the disk's thread is gone; nothing that needs the journal is done any more");
        }
    }

    /// Returns when what was begun is done.
    pub async fn done(&mut self) -> Done {
        match self.done.recv().await {
            Some(done) => done,
            None => std::future::pending().await,
        }
    }
}

fn run(store: &Store, queue: &Receiver<Job>, tell: &mpsc::Sender<Done>) {
    while let Ok(job) = queue.recv() {
        let done = match job {
            Job::Save { record, durable } => {
                save(store, &record, durable);
                Done::Saved
            }
            Job::WriteEpoch { uid, epoch, target } => {
                let written = Volumes::write_epoch(&target, epoch);
                Done::WroteEpoch(uid, epoch, written)
            }
        };
        if tell.blocking_send(done).is_err() {
            return;
        }
    }
}

/// What must be journaled first is not done until it is; fences don't wait for this.
fn save(store: &Store, record: &Record, durable: bool) {
    let mut told = false;
    while let Err(error) = store.save(record, durable) {
        if !told {
            tracing::error!(%error, "the journal can't be written; no gate opens until it can");
            told = true;
        }
        std::thread::sleep(RETRY);
    }
}
