//! Where a witness's records live: `ControlLease` objects, and a marker that was written
//! once at installation (L8).
//!
//! A record is written over exactly the record that was read or written last: a JSON
//! patch whose first operation tests it. So two processes can't both succeed, and other
//! owners of the same object's status don't get in the way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ObjectMeta, PostParams};
use regent_api::{ControlLease, ControlLeaseStatus, NAMESPACE};
use regent_core::ids::GroupKey;
use regent_lease::witness::{Record, Start};
use regent_shell::clock;

use crate::objects::{ControlLeases, ObjectError, bounded, group_of, object_name};

/// The marker's ConfigMap.
pub const MARKER: &str = "regent-witness";
const STARTS: &str = "starts";
const OBJECTS: &str = "objects";
const CONFLICTS: usize = 16;

/// What a witness starts with.
pub struct Loaded {
    /// Its count of starts, this one included.
    pub start: u64,
    /// How it starts: first, restarted, or stale.
    pub how: Start,
    /// The groups' records.
    pub records: BTreeMap<GroupKey, Record>,
}

/// The records of one start of a witness.
pub struct RecordStore {
    client: kube::Client,
    leases: ControlLeases,
    markers: Api<ConfigMap>,
    /// The exact text of each record as it was read or written last.
    known: Mutex<BTreeMap<GroupKey, String>>,
    /// What the marker lists.
    marked: tokio::sync::Mutex<BTreeSet<String>>,
    start: u64,
}

struct Marker {
    object: ConfigMap,
    starts: u64,
    objects: BTreeSet<String>,
}

impl Marker {
    fn of(object: ConfigMap) -> Self {
        let data = object.data.clone().unwrap_or_default();
        let starts = data.get(STARTS).and_then(|s| s.parse().ok()).unwrap_or(0);
        let objects = data.get(OBJECTS).map(|s| s.split_whitespace().map(str::to_owned).collect()).unwrap_or_default();
        Self { object, starts, objects }
    }

    fn into_object(self) -> ConfigMap {
        let objects = self.objects.into_iter().collect::<Vec<_>>().join("\n");
        let data = BTreeMap::from([(STARTS.to_owned(), self.starts.to_string()), (OBJECTS.to_owned(), objects)]);
        ConfigMap { data: Some(data), ..self.object }
    }

    fn empty() -> Self {
        let metadata = ObjectMeta { name: Some(MARKER.to_owned()), ..ObjectMeta::default() };
        Self { object: ConfigMap { metadata, ..ConfigMap::default() }, starts: 0, objects: BTreeSet::new() }
    }
}

fn marker_name() -> String {
    format!("ConfigMap {MARKER} in namespace {NAMESPACE}")
}

/// Writes the marker of a new witness: once, when it is installed. Nothing happens if
/// there is one, or if there are records, whose marker must then have been lost.
pub async fn install(client: &kube::Client) -> Result<(), ObjectError> {
    let markers: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    if bounded(&marker_name(), markers.get_opt(MARKER)).await?.is_some() {
        return Ok(());
    }
    let voted = |o: &ControlLease| o.status.as_ref().is_some_and(|s| s.record.is_some());
    if ControlLeases::new(client.clone()).list().await?.iter().any(voted) {
        tracing::warn!("records without a marker: this is no first start, so no marker is written");
        return Ok(());
    }
    match bounded(&marker_name(), markers.create(&PostParams::default(), &Marker::empty().into_object())).await {
        Err(e) if !e.is_conflict() => Err(e),
        _ => Ok(()),
    }
}

impl RecordStore {
    /// Counts one more start, and reads every record.
    pub async fn load(client: &kube::Client) -> Result<(Self, Loaded), ObjectError> {
        let leases = ControlLeases::new(client.clone());
        let markers: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
        let mut stale = false;
        let mut known = BTreeMap::new();
        let mut records = BTreeMap::new();
        for object in leases.list().await? {
            let Some((group, text)) = group_of(&object).zip(object.status.and_then(|s| s.record)) else { continue };
            match serde_json::from_str::<Record>(&text) {
                Ok(record) => drop(records.insert(group.clone(), record)),
                Err(error) => {
                    tracing::error!(%group, "the witness's record is unreadable ({error}); its state counts as stale");
                    stale = true;
                }
            }
            known.insert(group, text);
        }
        let latest = records.values().map(|r| r.start).max().unwrap_or(0);
        let (marker, lost) = count_start(&markers, latest).await?;
        for name in marker.objects.iter().filter(|n| !known.keys().any(|g| regent_api::object_name(g) == **n)) {
            tracing::error!(
                "ControlLease {name} has no record, but this witness has written it; its state counts as stale"
            );
            stale = true;
        }
        let first = marker.starts == 1 && known.is_empty();
        let how = match (stale || lost, first) {
            (true, _) => Start::Stale,
            (false, true) => Start::First,
            (false, false) => Start::Restarted,
        };
        let (start, marked) = (marker.starts, tokio::sync::Mutex::new(marker.objects));
        let store = Self { client: client.clone(), leases, markers, known: Mutex::new(known), marked, start };
        let unmarked: Vec<GroupKey> = store.lock().keys().cloned().collect();
        for group in unmarked {
            store.mark(&group).await?;
        }
        Ok((store, Loaded { start, how, records }))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<GroupKey, String>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a record over the one that was read or written last.
    pub async fn write(&self, group: &GroupKey, record: &Record) -> Result<(), ObjectError> {
        let text = self.text(group, record)?;
        let before = self.lock().get(group).cloned();
        match before {
            Some(before) => self.patch(group, &before, &text, record).await?,
            None => self.write_first(group, &text, record).await?,
        }
        self.mark(group).await?;
        self.lock().insert(group.clone(), text);
        Ok(())
    }

    /// Writes a recovered record over whatever its object holds (L8).
    pub async fn overwrite(&self, group: &GroupKey, record: &Record) -> Result<(), ObjectError> {
        self.read(group).await?;
        self.write(group, record).await
    }

    /// Reads a record again: the next write goes over it. None if there is no object or
    /// no record in it.
    pub async fn read(&self, group: &GroupKey) -> Result<Option<Record>, ObjectError> {
        let object = self.leases.get(group).await?;
        let Some(text) = object.and_then(|o| o.status).and_then(|s| s.record) else {
            self.lock().remove(group);
            return Ok(None);
        };
        let record = serde_json::from_str(&text).map_err(|e| ObjectError::Unusable {
            object: object_name(group),
            why: format!(
                "its witness record is unreadable: {e}; restart the witness, which then recovers it from others"
            ),
        })?;
        self.lock().insert(group.clone(), text);
        Ok(Some(record))
    }

    fn text(&self, group: &GroupKey, record: &Record) -> Result<String, ObjectError> {
        serde_json::to_string(record)
            .map_err(|e| ObjectError::Unusable { object: object_name(group), why: format!("its record: {e}") })
    }

    async fn patch(&self, group: &GroupKey, before: &str, text: &str, record: &Record) -> Result<(), ObjectError> {
        let unusable = |why: String| ObjectError::Unusable { object: object_name(group), why };
        let patch = serde_json::json!([
            { "op": "test", "path": "/status/record", "value": before },
            { "op": "replace", "path": "/status/record", "value": text },
            { "op": "add", "path": "/status/leaderTerm", "value": record.start },
        ]);
        let url = <ControlLease as kube::Resource>::url_path(&(), None);
        let request = http::Request::patch(format!("{url}/{}/status", regent_api::object_name(group)))
            .header(http::header::CONTENT_TYPE, "application/json-patch+json")
            .header(http::header::ACCEPT, "application/json")
            .body(patch.to_string().into_bytes())
            .map_err(|e| unusable(e.to_string()))?;
        bounded(&object_name(group), self.client.request::<serde_json::Value>(request)).await.map(drop)
    }

    async fn write_first(&self, group: &GroupKey, text: &str, record: &Record) -> Result<(), ObjectError> {
        let change = |status: &mut ControlLeaseStatus| {
            let free = status.record.is_none();
            if free {
                status.record = Some(text.to_owned());
                status.leader_term = i64::try_from(record.start).ok();
            }
            free
        };
        let status = self.leases.update(group, change).await?;
        if status.record.as_deref() == Some(text) {
            return Ok(());
        }
        let why = "another witness process has written its record; run one process only, or two with leader election";
        Err(ObjectError::Unusable { object: object_name(group), why: why.to_owned() })
    }

    /// Lists an object in the marker: it must never be missing again.
    async fn mark(&self, group: &GroupKey) -> Result<(), ObjectError> {
        let name = regent_api::object_name(group);
        let mut marked = self.marked.lock().await;
        if marked.contains(&name) {
            return Ok(());
        }
        for _ in 0..CONFLICTS {
            let mut marker = Marker::of(bounded(&marker_name(), self.markers.get(MARKER)).await?);
            if marker.starts != self.start {
                let why = format!("start {} of the witness has taken over from start {}", marker.starts, self.start);
                return Err(ObjectError::Unusable { object: marker_name(), why });
            }
            marker.objects.insert(name.clone());
            let objects = marker.objects.clone();
            match replace(&self.markers, marker).await {
                Err(e) if e.is_conflict() => {}
                Err(e) => return Err(e),
                Ok(_) => {
                    *marked = objects;
                    return Ok(());
                }
            }
        }
        Err(ObjectError::Contended { object: marker_name() })
    }
}

async fn replace(markers: &Api<ConfigMap>, marker: Marker) -> Result<ConfigMap, ObjectError> {
    bounded(&marker_name(), markers.replace(MARKER, &PostParams::default(), &marker.into_object())).await
}

/// Adds one to the count of starts. A marker that is lost, or whose count is behind the
/// records, was not written by the last start: the second value says so.
async fn count_start(markers: &Api<ConfigMap>, latest: u64) -> Result<(Marker, bool), ObjectError> {
    for _ in 0..CONFLICTS {
        let found = bounded(&marker_name(), markers.get_opt(MARKER)).await?;
        let exists = found.is_some();
        let mut marker = found.map_or_else(Marker::empty, Marker::of);
        let lost = !exists || marker.starts < latest;
        if lost {
            tracing::error!(
                "{} is missing or behind its records: the state counts as stale. At the first start of a new witness pass --install",
                marker_name()
            );
            // Above every count that there can have been, so that no tag shows a later start.
            marker.starts = latest.max(clock::realtime_ns() / 1_000_000_000);
        }
        marker.starts += 1;
        let (starts, objects) = (marker.starts, marker.objects.clone());
        let written = if exists {
            replace(markers, marker).await
        } else {
            bounded(&marker_name(), markers.create(&PostParams::default(), &marker.into_object())).await
        };
        match written {
            Err(e) if e.is_conflict() => {}
            Err(e) => return Err(e),
            Ok(object) => return Ok((Marker { object, starts, objects }, lost)),
        }
    }
    Err(ObjectError::Contended { object: marker_name() })
}
