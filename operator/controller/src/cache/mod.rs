//! What the groups' namespaces hold, as the API server last said: watched, never polled.
//!
//! ```text
//!   kinds x namespaces --watch--> Space per namespace --read--> mirror, reconcilers, standby
//!                                    version --+--> what was made of a version isn't made again
//! ```
//!
//! One watch per kind serves all namespaces where the operator may read the kind everywhere, as
//! an optional ClusterRole lets it. Where it may not, each namespace has watches of its own: that
//! asks for nothing but the namespace's Role, and costs a connection for each of them.
//!
//! Only what a group can be made of is kept, and of it only what is read: not who set which field,
//! not the releases that Helm keeps of itself.

mod space;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

use kube::core::{ApiResource, GroupVersionKind};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::objects::ObjectError;
use space::Space;

/// A kind that is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// Its group and version, as objects write them.
    pub api_version: &'static str,
    /// Its name.
    pub kind: &'static str,
    /// Objects with these labels only; all, if empty.
    pub labels: &'static str,
    /// Whether more than its metadata is read.
    pub whole: bool,
}

impl Kind {
    /// All objects of a kind, whole.
    pub const fn whole(api_version: &'static str, kind: &'static str) -> Self {
        Self { api_version, kind, labels: "", whole: true }
    }

    /// The metadata of all objects of a kind.
    pub const fn metadata(api_version: &'static str, kind: &'static str) -> Self {
        Self { whole: false, ..Self::whole(api_version, kind) }
    }

    /// The same, of objects with these labels only.
    pub const fn labelled(self, labels: &'static str) -> Self {
        Self { labels, ..self }
    }

    fn resource(&self) -> ApiResource {
        let (group, version) = self.api_version.split_once('/').unwrap_or(("", self.api_version));
        ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, self.kind))
    }
}

/// Why a namespace's objects of a kind can't be read.
#[derive(Debug, Clone)]
pub enum Unread {
    /// The first list is still under way.
    Listing,
    /// The API server refuses it, or can't be asked.
    Refused(Arc<ObjectError>),
}

/// The objects of some kinds in some namespaces. Cheap to clone.
#[derive(Clone)]
pub struct Cache {
    inner: Arc<Inner>,
}

struct Inner {
    client: kube::Client,
    spaces: RwLock<BTreeMap<String, Space>>,
    wanted: tokio::sync::watch::Sender<BTreeSet<String>>,
    changed: tokio::sync::watch::Sender<u64>,
}

impl Cache {
    /// Watches these kinds until `stop`, in the namespaces that [`Self::follow`] names.
    pub fn start(client: kube::Client, kinds: &'static [Kind], stop: &CancellationToken) -> Self {
        let inner = Inner {
            client,
            spaces: RwLock::default(),
            wanted: tokio::sync::watch::Sender::default(),
            changed: tokio::sync::watch::Sender::new(0),
        };
        let cache = Self { inner: Arc::new(inner) };
        for kind in kinds {
            tokio::spawn(watch::run(cache.clone(), kind, stop.clone()));
        }
        cache
    }

    /// The API server that is watched.
    pub fn client(&self) -> kube::Client {
        self.inner.client.clone()
    }

    /// Names the namespaces, all of them; what is known of others is forgotten.
    pub fn follow(&self, namespaces: &BTreeSet<String>) {
        let mut spaces = self.inner.spaces.write().unwrap_or_else(PoisonError::into_inner);
        spaces.retain(|name, _| namespaces.contains(name));
        for name in namespaces {
            spaces.entry(name.clone()).or_default();
        }
        drop(spaces);
        self.inner.wanted.send_if_modified(|wanted| {
            let is_new = wanted != namespaces;
            wanted.clone_from(namespaces);
            is_new
        });
    }

    /// Wakes when something of any namespace changes.
    pub fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.inner.changed.subscribe()
    }

    /// A number that is another whenever something of these namespaces has changed. None while a
    /// kind is listed for the first time: what is read then is not yet what is there.
    pub fn version(&self, namespaces: &[String], kinds: &[Kind]) -> Option<u64> {
        let spaces = self.inner.spaces.read().unwrap_or_else(PoisonError::into_inner);
        let of = |name: &String| spaces.get(name).filter(|s| s.has_all(kinds)).map(Space::version);
        // Versions only grow, and a namespace that comes back goes on where none was before.
        namespaces.iter().map(of).sum()
    }

    /// A namespace's objects of a kind, by name, each with its kind and API version.
    pub fn read(&self, namespace: &str, kind: &Kind) -> Result<Vec<Arc<Value>>, Unread> {
        let spaces = self.inner.spaces.read().unwrap_or_else(PoisonError::into_inner);
        spaces.get(namespace).map_or(Err(Unread::Listing), |space| space.read(kind))
    }

    fn change<T>(&self, namespace: &str, change: impl FnOnce(&mut Space) -> T) {
        let mut spaces = self.inner.spaces.write().unwrap_or_else(PoisonError::into_inner);
        let Some(space) = spaces.get_mut(namespace) else { return };
        change(space);
        drop(spaces);
        self.inner.changed.send_modify(|n| *n += 1);
    }
}
