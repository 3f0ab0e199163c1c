//! One kind of the cache: one watch for all namespaces, or one for each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use kube::api::{Api, DynamicObject};
use kube::core::{ApiResource, DynamicResourceScope, PartialObjectMeta};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Resource, ResourceExt};
use regent_shell::clock;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::space::slim;
use super::{Cache, Kind};
use crate::objects::ObjectError;

/// Groups are made in bursts, and a watch that is to show further namespaces lists anew.
const SETTLE: Duration = Duration::from_millis(500);

/// Listing anew takes no more than this part of the time, however fast groups come.
const LISTING_SHARE: u32 = 5;

type Event = watcher::Result<watcher::Event<DynamicObject>>;

/// Why a watch of all namespaces ended.
enum Ended {
    /// Further namespaces are wanted. Its first list took so long.
    Grown(Duration),
    /// The kind may not be read in all namespaces.
    Forbidden,
    /// It is over.
    Stopped,
}

/// Follows one kind until `stop`.
pub(super) async fn run(cache: Cache, kind: &'static Kind, stop: CancellationToken) {
    let mut wanted = cache.inner.wanted.subscribe();
    loop {
        let namespaces = wanted.borrow_and_update().clone();
        let took = if namespaces.is_empty() {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = wanted.changed() => if changed.is_err() { return },
            }
            Duration::ZERO
        } else {
            match follow_all(&cache, kind, &namespaces, wanted.clone(), &stop).await {
                Ended::Grown(took) => took,
                Ended::Forbidden => return each(&cache, kind, &stop).await,
                Ended::Stopped => return,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(SETTLE.max(took * (LISTING_SHARE - 1))) => {}
        }
    }
}

/// One watch for all namespaces, until further ones are wanted.
async fn follow_all(
    cache: &Cache,
    kind: &'static Kind,
    namespaces: &BTreeSet<String>,
    mut wanted: tokio::sync::watch::Receiver<BTreeSet<String>>,
    stop: &CancellationToken,
) -> Ended {
    let (begun, mut took) = (clock::now(), Duration::ZERO);
    let mut events = stream(&cache.inner.client, None, kind);
    let mut listing: BTreeMap<String, BTreeMap<String, Arc<Value>>> = BTreeMap::new();
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return Ended::Stopped,
            changed = wanted.changed() => match changed {
                Err(_) => return Ended::Stopped,
                Ok(()) if wanted.borrow().is_subset(namespaces) => continue,
                Ok(()) => return Ended::Grown(took),
            },
            event = events.next() => event,
        };
        match event {
            None => return Ended::Stopped,
            Some(Err(e)) if is_forbidden(&e) => return Ended::Forbidden,
            Some(Err(e)) => failed(cache, kind, namespaces, e),
            Some(Ok(watcher::Event::Init)) => {
                listing = namespaces.iter().map(|n| (n.clone(), BTreeMap::new())).collect()
            }
            Some(Ok(watcher::Event::InitApply(object))) => {
                if let Some(of) = object.namespace().and_then(|n| listing.get_mut(&n)) {
                    let (name, value) = slim(kind, object);
                    of.insert(name, value);
                }
            }
            Some(Ok(watcher::Event::InitDone)) => {
                took = Duration::from_nanos(clock::now().raw_ns.saturating_sub(begun.raw_ns));
                for (namespace, objects) in std::mem::take(&mut listing) {
                    cache.change(&namespace, |space| space.replace(kind, objects));
                }
            }
            Some(Ok(watcher::Event::Apply(object))) => applied(cache, kind, namespaces, object),
            Some(Ok(watcher::Event::Delete(object))) => deleted(cache, kind, &object),
        }
    }
}

fn applied(cache: &Cache, kind: &'static Kind, namespaces: &BTreeSet<String>, object: DynamicObject) {
    let Some(namespace) = object.namespace().filter(|n| namespaces.contains(n)) else { return };
    let (name, value) = slim(kind, object);
    cache.change(&namespace, |space| space.put(kind, name, value));
}

fn deleted(cache: &Cache, kind: &'static Kind, object: &DynamicObject) {
    if let Some(namespace) = object.namespace() {
        cache.change(&namespace, |space| space.remove(kind, &object.name_any()));
    }
}

/// A watch for each namespace: where the operator has nothing but its Roles.
async fn each(cache: &Cache, kind: &'static Kind, stop: &CancellationToken) {
    let mut wanted = cache.inner.wanted.subscribe();
    let mut tasks: BTreeMap<String, CancellationToken> = BTreeMap::new();
    loop {
        let namespaces = wanted.borrow_and_update().clone();
        tasks.retain(|name, task| {
            let is_wanted = namespaces.contains(name);
            if !is_wanted {
                task.cancel();
            }
            is_wanted
        });
        for name in namespaces {
            tasks.entry(name.clone()).or_insert_with(|| {
                let token = stop.child_token();
                tokio::spawn(follow_one(cache.clone(), kind, name, token.clone()));
                token
            });
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = wanted.changed() => if changed.is_err() { return },
        }
    }
}

async fn follow_one(cache: Cache, kind: &'static Kind, namespace: String, stop: CancellationToken) {
    let mut events = stream(&cache.inner.client, Some(&namespace), kind);
    let only = BTreeSet::from([namespace.clone()]);
    let mut listing = BTreeMap::new();
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return,
            event = events.next() => event,
        };
        match event {
            None => return,
            Some(Err(e)) => failed(&cache, kind, &only, e),
            Some(Ok(watcher::Event::Init)) => listing.clear(),
            Some(Ok(watcher::Event::InitApply(object))) => {
                let (name, value) = slim(kind, object);
                listing.insert(name, value);
            }
            Some(Ok(watcher::Event::InitDone)) => {
                let objects = std::mem::take(&mut listing);
                cache.change(&namespace, |space| space.replace(kind, objects));
            }
            Some(Ok(watcher::Event::Apply(object))) => applied(&cache, kind, &only, object),
            Some(Ok(watcher::Event::Delete(object))) => deleted(&cache, kind, &object),
        }
    }
}

/// Pages its lists, and goes on by itself after errors, each time a little later.
fn stream(client: &kube::Client, namespace: Option<&str>, kind: &'static Kind) -> BoxStream<'static, Event> {
    let (client, resource) = (client.clone(), kind.resource());
    let config = if kind.labels.is_empty() {
        watcher::Config::default()
    } else {
        watcher::Config::default().labels(kind.labels)
    };
    if kind.whole {
        return watcher(api::<DynamicObject>(client, namespace, &resource), config).default_backoff().boxed();
    }
    let bare = move |object: PartialObjectMeta<DynamicObject>| DynamicObject {
        types: None,
        metadata: object.metadata,
        data: Value::Null,
    };
    let events = watcher(api::<PartialObjectMeta<DynamicObject>>(client, namespace, &resource), config);
    events.default_backoff().map(move |event| event.map(|e| map(e, bare))).boxed()
}

fn api<K>(client: kube::Client, namespace: Option<&str>, resource: &ApiResource) -> Api<K>
where
    K: Resource<DynamicType = ApiResource>,
    K: Resource<Scope = DynamicResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, resource),
        None => Api::all_with(client, resource),
    }
}

fn map<A, B>(event: watcher::Event<A>, f: impl Fn(A) -> B) -> watcher::Event<B> {
    match event {
        watcher::Event::Apply(object) => watcher::Event::Apply(f(object)),
        watcher::Event::Delete(object) => watcher::Event::Delete(f(object)),
        watcher::Event::Init => watcher::Event::Init,
        watcher::Event::InitApply(object) => watcher::Event::InitApply(f(object)),
        watcher::Event::InitDone => watcher::Event::InitDone,
    }
}

fn status_of(error: &watcher::Error) -> Option<&kube::Error> {
    match error {
        watcher::Error::InitialListFailed(e) | watcher::Error::WatchStartFailed(e) => Some(e),
        _ => None,
    }
}

fn is_forbidden(error: &watcher::Error) -> bool {
    matches!(status_of(error), Some(kube::Error::Api(status)) if status.code == 403)
}

/// A list that is refused is said of each namespace. A watch that broke, or an API server that
/// can't be asked, takes nothing from what is known.
fn failed(cache: &Cache, kind: &'static Kind, namespaces: &BTreeSet<String>, error: watcher::Error) {
    tracing::debug!(kind = kind.kind, "watching: {error}");
    let watcher::Error::InitialListFailed(kube::Error::Api(status)) = error else { return };
    if !matches!(status.code, 403 | 404) {
        return;
    }
    for namespace in namespaces {
        let error = ObjectError::Api {
            object: format!("{}s in namespace {namespace}", kind.kind),
            error: Box::new(kube::Error::Api(status.clone())),
        };
        cache.change(namespace, |space| space.refuse(kind, Arc::new(error)));
    }
}
