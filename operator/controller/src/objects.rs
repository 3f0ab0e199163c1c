//! `ControlLease` objects: read, and changed by compare-and-swap.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::api::{Api, ListParams, ObjectMeta, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Resource, ResourceExt};
use regent_api::{ControlLease, ControlLeaseSpec, ControlLeaseStatus};
use regent_core::ids::GroupKey;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A call that hasn't been answered by then is of unknown outcome.
pub const CALL: Duration = Duration::from_secs(3);
/// Other owners of parts of the status may be first this often.
const CONFLICTS: usize = 16;

/// Why an object could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// The API server said no.
    #[error("{object}: {}", words(error))]
    Api {
        /// The object.
        object: String,
        /// What it said.
        #[source]
        error: Box<kube::Error>,
    },
    /// The API server said nothing.
    #[error("{object}: the API server has not answered for {} ms; whether it was written is unknown", CALL.as_millis())]
    Silent {
        /// The object.
        object: String,
    },
    /// Others write it all the time.
    #[error("{object}: another writer was first {CONFLICTS} times; see who writes its status besides Regent")]
    Contended {
        /// The object.
        object: String,
    },
    /// The object is not what it should be.
    #[error("{object}: {why}")]
    Unusable {
        /// The object.
        object: String,
        /// What is wrong, and what to do.
        why: String,
    },
}

/// What an API server said, without what only a program wants to know of it.
fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

impl ObjectError {
    /// Whether another writer was first, or made the object first.
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }

    /// Whether there is no such object.
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// Whether the operator has no right to it.
    pub fn is_forbidden(&self) -> bool {
        self.code() == Some(403)
    }

    /// Whether the API server refuses what it was sent.
    pub fn is_invalid(&self) -> bool {
        self.code() == Some(422)
    }

    /// Whether the API server refuses the object itself, and not for now or for who asks.
    pub fn is_refusal(&self) -> bool {
        self.code().is_some_and(|code| (400..500).contains(&code) && ![401, 404, 408, 409, 429].contains(&code))
    }

    /// Whether a field of the object can't be changed once it is there.
    pub fn is_immutable(&self) -> bool {
        let words = ["immutable", "updates to statefulset spec", "may not change", "may not be changed"];
        self.is_invalid() && words.iter().any(|w| self.said().contains(w))
    }

    /// Whether the namespace in which something was to be done is missing.
    pub fn is_missing_namespace(&self) -> bool {
        self.is_not_found() && self.said().contains("namespaces")
    }

    /// Whether it is the operator's Role that lacks something, and not a policy that refuses.
    pub fn is_rbac(&self) -> bool {
        self.said().contains("cannot ")
    }

    /// What the API server said, in its own words.
    pub fn said(&self) -> String {
        match self.status() {
            Some(status) => status.message.clone(),
            None => self.to_string(),
        }
    }

    fn code(&self) -> Option<u16> {
        self.status().map(|status| status.code)
    }

    fn status(&self) -> Option<&kube::core::Status> {
        match self {
            Self::Api { error, .. } => match &**error {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            Self::Silent { .. } | Self::Contended { .. } | Self::Unusable { .. } => None,
        }
    }
}

/// Waits for the API server, but not for ever.
pub async fn bounded<T>(object: &str, call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, ObjectError> {
    match tokio::time::timeout(CALL, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(ObjectError::Api { object: object.to_owned(), error: Box::new(error) }),
        Err(_) => Err(ObjectError::Silent { object: object.to_owned() }),
    }
}

/// The group of a `ControlLease`.
pub fn group_of(object: &ControlLease) -> Option<GroupKey> {
    object.spec.key().ok()
}

/// The `ControlLease` objects of one API server.
#[derive(Clone)]
pub struct ControlLeases {
    api: Api<ControlLease>,
}

impl ControlLeases {
    /// Those that this client reaches.
    pub fn new(client: kube::Client) -> Self {
        Self { api: Api::all(client) }
    }

    /// All of them.
    pub async fn list(&self) -> Result<Vec<ControlLease>, ObjectError> {
        Ok(bounded("ControlLeases", self.api.list(&ListParams::default())).await?.items)
    }

    /// A group's, if there is one.
    pub async fn get(&self, group: &GroupKey) -> Result<Option<ControlLease>, ObjectError> {
        bounded(&object_name(group), self.api.get_opt(&regent_api::object_name(group))).await
    }

    /// A group's, made if there is none.
    pub async fn ensure(&self, group: &GroupKey) -> Result<ControlLease, ObjectError> {
        for _ in 0..CONFLICTS {
            if let Some(object) = self.get(group).await? {
                return Ok(object);
            }
            let fresh = ControlLease {
                metadata: ObjectMeta { name: Some(regent_api::object_name(group)), ..ObjectMeta::default() },
                spec: ControlLeaseSpec { group: group.to_string() },
                status: None,
            };
            match bounded(&object_name(group), self.api.create(&PostParams::default(), &fresh)).await {
                Err(e) if e.is_conflict() => {}
                made => return made,
            }
        }
        Err(ObjectError::Contended { object: object_name(group) })
    }

    /// Changes a group's status by compare-and-swap: `change` sees the newest status and
    /// says whether it changed it. Returns the status as it is then.
    pub async fn update<F>(&self, group: &GroupKey, mut change: F) -> Result<ControlLeaseStatus, ObjectError>
    where
        F: FnMut(&mut ControlLeaseStatus) -> bool,
    {
        for _ in 0..CONFLICTS {
            let mut object = self.ensure(group).await?;
            let mut status = object.status.take().unwrap_or_default();
            if !change(&mut status) {
                return Ok(status);
            }
            object.status = Some(status);
            match self.replace(group, &object).await {
                Err(e) if e.is_conflict() => {}
                Err(e) => return Err(e),
                Ok(written) => return Ok(written.status.unwrap_or_default()),
            }
        }
        Err(ObjectError::Contended { object: object_name(group) })
    }

    /// Writes a status over exactly the version of the object that was read.
    async fn replace(&self, group: &GroupKey, object: &ControlLease) -> Result<ControlLease, ObjectError> {
        let (name, params) = (regent_api::object_name(group), PostParams::default());
        bounded(&object_name(group), self.api.replace_status(&name, &params, object)).await
    }
}

/// How messages name the object.
pub fn object_name(group: &GroupKey) -> String {
    format!("ControlLease {}", regent_api::object_name(group))
}

/// All objects of a kind, by name, as they are now. Shared one by one: a change copies names and
/// no objects.
pub type Snapshot<K> = Arc<BTreeMap<String, Arc<K>>>;

/// Follows all objects of a kind, until cancelled. What was seen last stays when the API
/// server is gone.
pub async fn follow<K>(api: Api<K>, out: watch::Sender<Snapshot<K>>, stop: CancellationToken)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let kind = K::kind(&()).to_string();
    // Who set which field is read by nobody here, and is as long as the rest.
    let watched = watcher(api, watcher::Config::default()).default_backoff();
    let mut events = std::pin::pin!(watched.modify(|object: &mut K| object.managed_fields_mut().clear()));
    let mut listing: BTreeMap<String, Arc<K>> = BTreeMap::new();
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return,
            event = events.next() => event,
        };
        match event {
            Some(Ok(watcher::Event::Apply(object))) => {
                out.send_modify(|all| drop(Arc::make_mut(all).insert(object.name_any(), Arc::new(object))));
            }
            Some(Ok(watcher::Event::Delete(object))) => {
                out.send_modify(|all| drop(Arc::make_mut(all).remove(&object.name_any())));
            }
            Some(Ok(watcher::Event::Init)) => listing.clear(),
            Some(Ok(watcher::Event::InitApply(object))) => drop(listing.insert(object.name_any(), Arc::new(object))),
            Some(Ok(watcher::Event::InitDone)) => drop(out.send_replace(Arc::new(std::mem::take(&mut listing)))),
            Some(Err(e)) => tracing::debug!("watching {kind}: {e}"),
            None => return,
        }
    }
}
