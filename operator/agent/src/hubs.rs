//! A stream to each hub of the site.
//!
//! Hubs tell their addresses ([`v1::Peers`]); a stream is kept to each. The Service's
//! address leads to any one of them, so it is used only while no other stream stands: a
//! second stream to a hub would bring everything twice.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use regent_core::sign::Digest;
use regent_proto::v1;
use regent_shell::retry::{RetryPolicy, seed};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use crate::config::Config;
use crate::state::{Identity, State};
use crate::stream::{self, Links, StreamError};

/// A site has two hubs, and for a moment three or four while they are replaced.
const MAX_HUBS: usize = 8;
/// How long streams to the known hubs have before the Service is tried beside them.
const GRACE: Duration = Duration::from_millis(700);
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LONGEST_RETRY: Duration = Duration::from_secs(1);

/// The set of hubs to which a stream stands.
type Standing = Arc<watch::Sender<BTreeSet<SocketAddr>>>;

/// Takes a hub off the set when its stream ends, however it ends.
struct Stand {
    hub: SocketAddr,
    standing: Standing,
}

impl Stand {
    fn new(hub: SocketAddr, standing: Standing) -> Self {
        standing.send_if_modified(|s| s.insert(hub));
        Self { hub, standing }
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        self.standing.send_if_modified(|s| s.remove(&self.hub));
    }
}

/// Everything that the streams share.
#[derive(Debug, Clone)]
struct Shared {
    config: Arc<Config>,
    links: Links,
    identity: watch::Receiver<Option<Identity>>,
    standing: Standing,
}

/// Keeps the streams for ever. `known` is the set of hubs, at first as it was kept.
pub async fn keep(
    config: Arc<Config>,
    state: &State,
    links: Links,
    mut told: mpsc::Receiver<v1::Peers>,
    identity: watch::Receiver<Option<Identity>>,
    known: &watch::Sender<BTreeSet<SocketAddr>>,
) {
    let standing = Arc::new(watch::Sender::new(BTreeSet::new()));
    let shared = Shared { config, links, identity, standing };
    let mut tasks = JoinSet::new();
    let mut streams: BTreeMap<SocketAddr, AbortHandle> = BTreeMap::new();
    tasks.spawn(fallback(shared.clone(), known.subscribe()));
    loop {
        let wanted = known.borrow().clone();
        streams.retain(|hub, task| {
            let keep = wanted.contains(hub);
            if !keep {
                task.abort();
            }
            keep
        });
        for hub in wanted {
            streams.entry(hub).or_insert_with(|| tasks.spawn(hold(hub, shared.clone())));
        }
        tokio::select! {
            peers = told.recv() => match peers {
                Some(peers) => learn(peers, known, state),
                None => return,
            },
            // Tasks end only when they are aborted; this frees what they were.
            Some(_) = tasks.join_next() => {}
        }
    }
}

/// What a hub says of its peers replaces what was known. A hub that knows of none says
/// nothing.
fn learn(peers: v1::Peers, known: &watch::Sender<BTreeSet<SocketAddr>>, state: &State) {
    let new: BTreeSet<SocketAddr> = peers.hubs.iter().filter_map(|h| h.parse().ok()).take(MAX_HUBS).collect();
    if new.is_empty() || *known.borrow() == new {
        return;
    }
    tracing::info!(hubs = ?new, "hubs of the site");
    let list: Vec<SocketAddr> = new.iter().copied().collect();
    if let Err(error) = state.keep_peers(&list) {
        tracing::warn!(%error, "the hubs' addresses are not kept for the next start");
    }
    known.send_replace(new);
}

fn retry_for(config: &Config, hub: SocketAddr) -> RetryPolicy {
    RetryPolicy::new(FIRST_RETRY, LONGEST_RETRY, seed(&format!("{} {hub}", config.node)))
}

/// A stream to one hub, again and again.
async fn hold(hub: SocketAddr, mut shared: Shared) {
    let mut retry = retry_for(&shared.config, hub);
    loop {
        once(hub, &mut shared, &mut retry, std::future::pending()).await;
        retry.wait().await;
    }
}

/// A stream to the Service's address, while no other stands.
async fn fallback(mut shared: Shared, mut known: watch::Receiver<BTreeSet<SocketAddr>>) {
    let hub = shared.config.fallback;
    let mut retry = retry_for(&shared.config, hub);
    loop {
        let nothing_known = known.borrow_and_update().is_empty();
        if !nothing_known {
            lonely(&mut shared.standing.subscribe()).await;
        }
        if known.borrow().contains(&hub) {
            // It is one of the hubs itself, with a stream of its own.
            let _ = known.changed().await;
            continue;
        }
        let mut standing = shared.standing.subscribe();
        let other_stands = async move { drop(standing.wait_for(|s| s.iter().any(|h| *h != hub)).await) };
        once(hub, &mut shared, &mut retry, other_stands).await;
        retry.wait().await;
    }
}

/// Returns when no stream has stood for [`GRACE`].
async fn lonely(standing: &mut watch::Receiver<BTreeSet<SocketAddr>>) {
    loop {
        if standing.wait_for(BTreeSet::is_empty).await.is_err() {
            return std::future::pending().await;
        }
        tokio::select! {
            () = tokio::time::sleep(GRACE) => return,
            _ = standing.wait_for(|s| !s.is_empty()) => {}
        }
    }
}

/// One stream from its beginning to its end, or until `until`, or until the certificate
/// was renewed.
async fn once(hub: SocketAddr, shared: &mut Shared, retry: &mut RetryPolicy, until: impl Future<Output = ()>) {
    let Ok(identity) = shared.identity.wait_for(Option::is_some).await.map(|i| i.clone()) else { return };
    let Some(identity) = identity else { return };
    let used = Digest::of(identity.certificate_pem.as_bytes());
    let mut renewed = shared.identity.clone();
    let is_new = |i: &Option<Identity>| i.as_ref().is_some_and(|i| Digest::of(i.certificate_pem.as_bytes()) != used);
    let mut stand = None;
    let standing = shared.standing.clone();
    let attached = || {
        retry.reset();
        tracing::info!(%hub, "attached");
        stand = Some(Stand::new(hub, standing));
    };
    let ended = tokio::select! {
        ended = stream::serve(hub, &shared.config, &identity, &shared.links, attached) => ended,
        _ = renewed.wait_for(is_new) => Ok(()),
        () = until => Ok(()),
    };
    drop(stand);
    match ended {
        Ok(()) => {}
        Err(StreamError::Ended) => tracing::info!(%hub, "the hub ended the stream"),
        Err(error) => tracing::debug!(%hub, %error, "no stream to the hub"),
    }
}
