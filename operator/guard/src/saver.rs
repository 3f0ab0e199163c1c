//! The thread that writes the journal, so that a slow disk delays no deadline.

use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use regent_core::guard::{Journal, PodUid};
use regent_core::ids::{NodeName, SiteName};
use tokio::sync::mpsc;

use crate::journal::{Record, Store, Volume};

/// Between two attempts to write to a disk that refuses.
const RETRY: Duration = Duration::from_millis(100);

/// Writes one journal at a time.
pub struct Saver {
    site: SiteName,
    node: NodeName,
    saves: SyncSender<(Record, bool)>,
    done: mpsc::Receiver<()>,
}

impl Saver {
    /// Starts the thread.
    pub fn start(store: Store, site: SiteName, node: NodeName) -> io::Result<Self> {
        let (saves, queue) = sync_channel(1);
        let (tell, done) = mpsc::channel(1);
        std::thread::Builder::new().name("journal".into()).spawn(move || run(&store, &queue, &tell))?;
        Ok(Self { site, node, saves, done })
    }

    /// Begins to write. One save at a time: [`Self::done`] tells when the next can begin.
    pub fn begin(&self, journal: Journal, volumes: BTreeMap<PodUid, Volume>, durable: bool) {
        let record = Record { site: self.site.clone(), node: self.node.clone(), journal, volumes };
        if self.saves.send((record, durable)).is_err() {
            tracing::error!("the journal's thread is gone; nothing that needs the journal is done any more");
        }
    }

    /// Returns when what was begun is written.
    pub async fn done(&mut self) {
        if self.done.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

fn run(store: &Store, queue: &Receiver<(Record, bool)>, tell: &mpsc::Sender<()>) {
    while let Ok((record, durable)) = queue.recv() {
        let mut told = false;
        // What must be journaled first is not done until it is; fences don't wait for this.
        while let Err(error) = store.save(&record, durable) {
            if !told {
                tracing::error!(%error, "the journal can't be written; no gate opens until it can");
                told = true;
            }
            std::thread::sleep(RETRY);
        }
        if tell.blocking_send(()).is_err() {
            return;
        }
    }
}
