//! The pods' gates: one socket in each volume, and whoever waits at it.

use std::collections::BTreeMap;
use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use regent_core::ids::Epoch;
use regent_lease::guard::PodUid;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use crate::input::Input;

/// How many may wait at one pod's gate; any container of the pod can connect to it.
const MOST_WAITING: usize = 16;
/// A gate says nothing; whoever says more than this is none.
const MOST_SAID: usize = 64;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// Somebody who waits at a gate.
#[derive(Debug, Clone)]
pub struct Asker {
    /// Tells it from others at the same gate.
    pub id: u64,
    stream: Arc<UnixStream>,
}

/// All gates of a node.
#[derive(Debug)]
pub struct Gates {
    inputs: mpsc::Sender<Input>,
    listeners: BTreeMap<PodUid, JoinHandle<()>>,
    waiting: BTreeMap<PodUid, Vec<Asker>>,
    /// Those whose pod's cgroup is not found (yet): the gate of a pod that can't be fenced stays closed.
    unreachable: Vec<(PodUid, Asker)>,
}

impl Gates {
    /// No gates yet; what happens at them is sent to `inputs`.
    pub fn new(inputs: mpsc::Sender<Input>) -> Self {
        Self { inputs, listeners: BTreeMap::new(), waiting: BTreeMap::new(), unreachable: Vec::new() }
    }

    /// Answers at a pod's socket from now on, in place of an older one of the same pod.
    pub fn listen(&mut self, uid: &PodUid, listener: StdListener) -> std::io::Result<()> {
        let listener = UnixListener::from_std(listener)?;
        let task = tokio::spawn(accept(uid.clone(), listener, self.inputs.clone()));
        if let Some(old) = self.listeners.insert(uid.clone(), task) {
            old.abort();
        }
        Ok(())
    }

    /// The pod's volume is gone.
    pub fn remove(&mut self, uid: &PodUid) {
        if let Some(task) = self.listeners.remove(uid) {
            task.abort();
        }
        self.close(uid);
    }

    /// Has whoever waits there ask again.
    pub fn close(&mut self, uid: &PodUid) {
        for asker in self.waiting.remove(uid).unwrap_or_default() {
            asker.hang_up();
        }
        self.unreachable.retain(|(u, asker)| {
            if u == uid {
                asker.hang_up();
            }
            u != uid
        });
    }

    /// Somebody waits until the core lets the pod's gate open.
    pub fn wait(&mut self, uid: PodUid, asker: Asker) {
        self.waiting.entry(uid).or_default().push(asker);
    }

    /// Somebody waits until the pod's cgroup is found.
    pub fn wait_unreachable(&mut self, uid: PodUid, asker: Asker) {
        self.unreachable.push((uid, asker));
    }

    /// Those who wait for their cgroup to be found.
    pub fn take_unreachable(&mut self) -> Vec<(PodUid, Asker)> {
        std::mem::take(&mut self.unreachable)
    }

    /// Whether anybody waits for that.
    pub fn has_unreachable(&self) -> bool {
        !self.unreachable.is_empty()
    }

    /// Somebody went away. Whether nobody is left of those who waited for the core.
    pub fn gone(&mut self, uid: &PodUid, id: u64) -> bool {
        self.unreachable.retain(|(_, asker)| asker.id != id);
        let Some(waiting) = self.waiting.get_mut(uid) else { return false };
        waiting.retain(|asker| asker.id != id);
        let empty = waiting.is_empty();
        if empty {
            self.waiting.remove(uid);
        }
        empty
    }

    /// Lets everybody at the gate go on. Whether anybody was there.
    pub fn open(&mut self, uid: &PodUid, epoch: Epoch) -> bool {
        let answer = format!("open {epoch}\n");
        let waiting = self.waiting.remove(uid).unwrap_or_default();
        // A few bytes fit into every fresh socket; to one that is gone nothing needs to be said.
        waiting.iter().filter(|a| a.stream.try_write(answer.as_bytes()).is_ok()).count() > 0
    }
}

impl Asker {
    fn hang_up(&self) {
        // The reading task owns the stream as well and ends with it.
        let _ = rustix::net::shutdown(&*self.stream, rustix::net::Shutdown::Both);
    }
}

async fn accept(uid: PodUid, listener: UnixListener, inputs: mpsc::Sender<Input>) {
    let places = Arc::new(Semaphore::new(MOST_WAITING));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => Arc::new(stream),
            Err(error) => {
                tracing::warn!(pod = uid.0, %error, "a gate can't be answered");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            }
        };
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let asker = Asker { id, stream: stream.clone() };
        let (uid, inputs) = (uid.clone(), inputs.clone());
        tokio::spawn(async move {
            let asked = Input::Gate { uid: uid.clone(), asker };
            if inputs.send(asked).await.is_ok() {
                until_gone(&stream).await;
                let _ = inputs.send(Input::GateGone { uid, id }).await;
            }
            drop(place);
        });
    }
}

async fn until_gone(stream: &UnixStream) {
    let mut said = 0;
    let mut buffer = [0u8; MOST_SAID];
    while stream.readable().await.is_ok() {
        match stream.try_read(&mut buffer) {
            Ok(0) => return,
            Ok(n) => said += n,
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
        if said > MOST_SAID {
            return;
        }
    }
}
