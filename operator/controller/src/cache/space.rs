//! One namespace of the cache.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kube::ResourceExt;
use kube::api::DynamicObject;
use serde_json::Value;

use super::{Kind, Unread};
use crate::objects::ObjectError;

/// The last version that was given out. One count for all namespaces: one that is forgotten and
/// followed again must not come to a version that somebody remembers.
static VERSION: AtomicU64 = AtomicU64::new(0);

#[derive(Debug)]
enum Listed {
    Objects(BTreeMap<String, Arc<Value>>),
    Refused(Arc<ObjectError>),
}

/// What one namespace holds.
#[derive(Debug, Default)]
pub(super) struct Space {
    kinds: BTreeMap<&'static str, Listed>,
    version: u64,
}

impl Space {
    fn touch(&mut self) {
        self.version = VERSION.fetch_add(1, Ordering::Relaxed) + 1;
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn has_all(&self, kinds: &[Kind]) -> bool {
        kinds.iter().all(|k| self.kinds.contains_key(k.kind))
    }

    pub(super) fn read(&self, kind: &Kind) -> Result<Vec<Arc<Value>>, Unread> {
        match self.kinds.get(kind.kind) {
            None => Err(Unread::Listing),
            Some(Listed::Refused(error)) => Err(Unread::Refused(error.clone())),
            Some(Listed::Objects(objects)) => Ok(objects.values().cloned().collect()),
        }
    }

    /// A whole list: what is not in it is gone.
    pub(super) fn replace(&mut self, kind: &'static Kind, objects: BTreeMap<String, Arc<Value>>) {
        if matches!(self.kinds.get(kind.kind), Some(Listed::Objects(before)) if *before == objects) {
            return;
        }
        self.kinds.insert(kind.kind, Listed::Objects(objects));
        self.touch();
    }

    /// The list was refused. What was known is known no more: rights may have been taken away.
    pub(super) fn refuse(&mut self, kind: &'static Kind, error: Arc<ObjectError>) {
        let said = |e: &ObjectError| e.to_string();
        if matches!(self.kinds.get(kind.kind), Some(Listed::Refused(before)) if said(before) == said(&error)) {
            return;
        }
        self.kinds.insert(kind.kind, Listed::Refused(error));
        self.touch();
    }

    pub(super) fn put(&mut self, kind: &'static Kind, name: String, object: Arc<Value>) {
        if let Some(Listed::Objects(objects)) = self.kinds.get_mut(kind.kind)
            && objects.get(&name) != Some(&object)
        {
            objects.insert(name, object);
            self.touch();
        }
    }

    pub(super) fn remove(&mut self, kind: &'static Kind, name: &str) {
        if let Some(Listed::Objects(objects)) = self.kinds.get_mut(kind.kind)
            && objects.remove(name).is_some()
        {
            self.touch();
        }
    }
}

/// What is kept of an object: what somebody reads.
pub(super) fn slim(kind: &Kind, mut object: DynamicObject) -> (String, Arc<Value>) {
    // Of a Service they tell which ports a person has chosen.
    if kind.kind != "Service" {
        object.managed_fields_mut().clear();
    }
    // It grows with every write, also with those that change nothing that is read. But a pod is
    // deleted only as it was seen, and of what is not read whole it tells that it has changed.
    if kind.kind != "Pod" && kind.whole {
        object.metadata.resource_version = None;
    }
    // Helm keeps each release of a chart whole; none of them is a group's.
    if kind.kind == "Secret" && object.data.get("type").and_then(Value::as_str) == Some("helm.sh/release.v1") {
        object.data = serde_json::json!({ "type": "helm.sh/release.v1" });
    }
    let name = object.name_any();
    let mut value = serde_json::to_value(object).unwrap_or_default();
    if let Value::Object(map) = &mut value {
        map.insert("apiVersion".into(), kind.api_version.into());
        map.insert("kind".into(), kind.kind.into());
    }
    (name, Arc::new(value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    static MAPS: Kind = Kind::whole("v1", "ConfigMap");

    fn object(value: Value) -> (String, Arc<Value>) {
        slim(&MAPS, serde_json::from_value(value).unwrap())
    }

    #[test]
    fn a_write_that_changes_nothing_that_is_read_is_no_new_version() {
        let made = |rv: &str, colour: &str| {
            object(
                json!({ "metadata": { "name": "env", "resourceVersion": rv, "managedFields": [{ "manager": rv }] }, "data": { "COLOUR": colour } }),
            )
        };
        let mut space = Space::default();
        assert!(!space.has_all(&[MAPS]));
        space.replace(&MAPS, [made("1", "green")].into());
        let first = space.version();
        for (name, same) in [made("2", "green"), made("3", "green")] {
            space.put(&MAPS, name, same);
        }
        space.replace(&MAPS, [made("4", "green")].into());
        space.remove(&MAPS, "other");
        assert_eq!(space.version(), first);
        let (name, other) = made("5", "blue");
        space.put(&MAPS, name, other);
        assert!(space.version() > first);
        assert_eq!(space.read(&MAPS).unwrap()[0]["data"]["COLOUR"], "blue");
    }

    #[test]
    fn a_namespace_that_is_followed_again_never_comes_back_to_a_version_that_it_had() {
        let mut first = Space::default();
        first.replace(&MAPS, BTreeMap::new());
        let mut again = Space::default();
        again.replace(&MAPS, BTreeMap::new());
        assert_ne!(first.version(), again.version());
    }

    #[test]
    fn helm_keeps_its_releases_for_itself() {
        let secret = Kind::whole("v1", "Secret");
        let helm = json!({ "metadata": { "name": "sh.helm.release.v1.shop.v1" }, "type": "helm.sh/release.v1", "data": { "release": "H4sI" } });
        let (_, kept) = slim(&secret, serde_json::from_value(helm).unwrap());
        assert_eq!((kept["type"].as_str(), kept.get("data")), (Some("helm.sh/release.v1"), None));
    }
}
