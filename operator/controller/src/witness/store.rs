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
/// Its state may be stale, until it has been read from others.
const STALE: &str = "stale";
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

#[derive(Debug, Default)]
struct Marker {
    object: ConfigMap,
    starts: u64,
    objects: BTreeSet<String>,
    stale: bool,
}

/// What the objects of a witness say when it starts.
#[derive(Debug, Default)]
struct Found {
    /// The exact text of each record.
    texts: BTreeMap<GroupKey, String>,
    /// The records that can be read.
    records: BTreeMap<GroupKey, Record>,
}

impl Marker {
    fn of(object: ConfigMap) -> Self {
        let data = object.data.clone().unwrap_or_default();
        let starts = data.get(STARTS).and_then(|s| s.parse().ok()).unwrap_or(0);
        let objects = data.get(OBJECTS).map(|s| s.split_whitespace().map(str::to_owned).collect()).unwrap_or_default();
        let stale = data.contains_key(STALE);
        Self { object, starts, objects, stale }
    }

    fn into_object(self) -> ConfigMap {
        let objects = self.objects.into_iter().collect::<Vec<_>>().join("\n");
        let mut data = BTreeMap::from([(STARTS.to_owned(), self.starts.to_string()), (OBJECTS.to_owned(), objects)]);
        if self.stale {
            data.insert(STALE.to_owned(), "until its state has been read from other witnesses".to_owned());
        }
        ConfigMap { data: Some(data), ..self.object }
    }

    /// Counts one more start, and keeps in the marker whether the state may be stale (L8): it is
    /// until it has been read from others, however often the witness starts before that.
    fn next_start(found: &Found, marker: Option<Self>, realtime_s: u64) -> Self {
        let latest = found.records.values().map(|r| r.start).max().unwrap_or(0);
        let known = marker.filter(|marker| marker.starts >= latest);
        let lost = known.is_none();
        let mut marker = known.unwrap_or_else(Self::empty);
        if lost {
            tracing::error!(
                "{} is missing or behind its records: the state counts as stale. At the first start of a new witness pass --install",
                marker_name()
            );
            // Above every count that there can have been, so that no tag shows a later start.
            marker.starts = latest.max(realtime_s);
        }
        let unreadable = found.texts.keys().filter(|group| !found.records.contains_key(group));
        for name in unreadable.map(regent_api::object_name) {
            tracing::error!("ControlLease {name}: its witness record is unreadable; the state counts as stale");
            marker.stale = true;
        }
        let held: BTreeSet<String> = found.texts.keys().map(regent_api::object_name).collect();
        for name in marker.objects.difference(&held) {
            tracing::error!(
                "ControlLease {name} has no record, but this witness has written it; its state counts as stale"
            );
            marker.stale = true;
        }
        marker.stale |= lost;
        marker.starts += 1;
        marker
    }

    fn empty() -> Self {
        let metadata = ObjectMeta { name: Some(MARKER.to_owned()), ..ObjectMeta::default() };
        Self { object: ConfigMap { metadata, ..ConfigMap::default() }, ..Self::default() }
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
        let mut found = Found::default();
        for object in leases.list().await? {
            let Some((group, text)) = group_of(&object).zip(object.status.and_then(|s| s.record)) else { continue };
            if let Ok(record) = serde_json::from_str::<Record>(&text) {
                found.records.insert(group.clone(), record);
            }
            found.texts.insert(group, text);
        }
        let marker = count_start(&markers, &found).await?;
        let Found { texts: known, records } = found;
        let how = match (marker.stale, marker.starts == 1 && known.is_empty()) {
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

    /// Writes a recovered record over whatever its object holds, readable or not (L8).
    pub async fn overwrite(&self, group: &GroupKey, record: &Record) -> Result<(), ObjectError> {
        self.read_text(group).await?;
        self.write(group, record).await
    }

    /// Keeps in the marker that the state may be stale, or that it has been read from others.
    pub async fn set_stale(&self, stale: bool) -> Result<(), ObjectError> {
        self.change_marker(|marker| std::mem::replace(&mut marker.stale, stale) != stale).await.map(drop)
    }

    /// Reads a record again: the next write goes over it. None if there is no object or
    /// no record in it.
    pub async fn read(&self, group: &GroupKey) -> Result<Option<Record>, ObjectError> {
        let Some(text) = self.read_text(group).await? else {
            return Ok(None);
        };
        let record = serde_json::from_str(&text).map_err(|e| ObjectError::Unusable {
            object: object_name(group),
            why: format!(
                "its witness record is unreadable: {e}; restart the witness, which then recovers it from others"
            ),
        })?;
        Ok(Some(record))
    }

    /// The next write goes over this text.
    async fn read_text(&self, group: &GroupKey) -> Result<Option<String>, ObjectError> {
        let object = self.leases.get(group).await?;
        let text = object.and_then(|o| o.status).and_then(|s| s.record);
        match &text {
            Some(text) => drop(self.lock().insert(group.clone(), text.clone())),
            None => drop(self.lock().remove(group)),
        }
        Ok(text)
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
        *marked = self.change_marker(|marker| marker.objects.insert(name.clone())).await?;
        Ok(())
    }

    /// Changes the marker while it is this start's; returns the objects that it lists then.
    async fn change_marker(&self, change: impl Fn(&mut Marker) -> bool) -> Result<BTreeSet<String>, ObjectError> {
        for _ in 0..CONFLICTS {
            let mut marker = Marker::of(bounded(&marker_name(), self.markers.get(MARKER)).await?);
            if marker.starts != self.start {
                let why = format!("start {} of the witness has taken over from start {}", marker.starts, self.start);
                return Err(ObjectError::Unusable { object: marker_name(), why });
            }
            if !change(&mut marker) {
                return Ok(marker.objects);
            }
            let objects = marker.objects.clone();
            match replace(&self.markers, marker).await {
                Err(e) if e.is_conflict() => {}
                Err(e) => return Err(e),
                Ok(_) => return Ok(objects),
            }
        }
        Err(ObjectError::Contended { object: marker_name() })
    }
}

async fn replace(markers: &Api<ConfigMap>, marker: Marker) -> Result<ConfigMap, ObjectError> {
    bounded(&marker_name(), markers.replace(MARKER, &PostParams::default(), &marker.into_object())).await
}

/// Counts one more start in the marker's object.
async fn count_start(markers: &Api<ConfigMap>, found: &Found) -> Result<Marker, ObjectError> {
    for _ in 0..CONFLICTS {
        let before = bounded(&marker_name(), markers.get_opt(MARKER)).await?;
        let object = before.clone().unwrap_or_else(|| Marker::empty().object);
        let counted = Marker::next_start(found, before.clone().map(Marker::of), clock::realtime_ns() / 1_000_000_000);
        let (starts, objects, stale) = (counted.starts, counted.objects.clone(), counted.stale);
        let marker = Marker { object, ..counted };
        let written = if before.is_some() {
            replace(markers, marker).await
        } else {
            bounded(&marker_name(), markers.create(&PostParams::default(), &marker.into_object())).await
        };
        match written {
            Err(e) if e.is_conflict() => {}
            Err(e) => return Err(e),
            Ok(object) => return Ok(Marker { object, starts, objects, stale }),
        }
    }
    Err(ObjectError::Contended { object: marker_name() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shop() -> GroupKey {
        "ireland/shop".parse().unwrap()
    }

    /// What a start finds whose predecessor had that number, and kept this record's text.
    fn found(start: u64, readable: bool) -> Found {
        let record = Record { start, ..Record::default() };
        let records = readable.then_some((shop(), record)).into_iter().collect();
        Found { texts: BTreeMap::from([(shop(), "{}".to_owned())]), records }
    }

    /// A start, and what the marker's object says afterwards.
    fn start(found: &Found, marker: Option<Marker>) -> Marker {
        Marker::of(Marker::next_start(found, marker, 1_800_000_000).into_object())
    }

    #[test]
    fn an_ordinary_start_adds_one_and_is_not_stale() {
        let marker = Marker { starts: 2, objects: BTreeSet::from(["ireland.shop".to_owned()]), ..Marker::empty() };
        let next = start(&found(2, true), Some(marker));
        assert_eq!((next.starts, next.stale), (3, false));
    }

    #[test]
    fn one_that_lost_its_marker_or_had_it_set_back_is_stale_however_often_it_starts() {
        for lost in [None, Some(Marker { starts: 1, ..Marker::empty() })] {
            let mut marker = start(&found(5, true), lost);
            for _ in 0..3 {
                assert!(marker.stale && marker.starts > 5, "{marker:?}");
                marker = start(&found(5, true), Some(marker));
            }
        }
    }

    #[test]
    fn a_record_that_is_unreadable_or_missing_makes_it_stale_until_it_has_recovered() {
        let marker = |stale| Marker {
            starts: 2,
            objects: BTreeSet::from(["ireland.shop".to_owned()]),
            stale,
            ..Marker::empty()
        };
        for found in [found(2, false), Found::default()] {
            assert!(start(&found, Some(marker(false))).stale);
        }
        // The record came back, as an older copy may; nothing was read from others.
        assert!(start(&found(2, true), Some(marker(true))).stale);
    }
}
