//! What people changed at the site that holds a group, carried to the other standbys.
//!
//! ```text
//!   holder:   home's copies, what lives --differ--> changes --signed under its epoch--> Amendment
//!   standby:  home's Bundle + Amendment --amended--> Bundle --admit--> as any other
//! ```
//!
//! Home's bundle stays as home signed it. The holder signs beside it only what differs, field
//! by field, so that a standby knows of each value whose it is: what runs at the holder starts
//! there if the holder is lost too, and what was changed against home's revision can be shown
//! for as long as it runs anywhere. A standby lets it in as it lets home's in.

use std::collections::BTreeSet;

use regent_api::SiteSpec;
use regent_api::site::Mapping;
use regent_core::charter::SiteEntry;
use regent_core::ids::{Epoch, GroupKey};
use regent_core::sign::{Digest, Envelope, SignError, Statement};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::bundle::Bundle;
use crate::differ::{COMPARED, Changed, OURS, changed};
use crate::images::back;
use crate::object::{object_of, text};
use crate::pin::pin;
use crate::pods::{Live, is_ready};
use crate::pointer::{self, PointerError, tokens};
use crate::settle::{Verdict, settle};

/// The most changes that are carried.
pub const MAX_CHANGES: usize = 256;
/// The largest amendment, in bytes of its signed content: a Secret holds it beside its bundle.
pub const MAX_AMENDMENT: usize = 32 << 10;

/// One place of an object of home's revision, as people have it at the holder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Change {
    /// The object, as `Kind NAMESPACE/NAME`.
    pub object: String,
    /// Where in home's object (JSON pointer, RFC 6901); `-` is behind a list's last item.
    pub path: String,
    /// What is there now; none: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
}

/// What the holder runs otherwise than home's revision says; it may be nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Amendment {
    /// The group.
    pub group: GroupKey,
    /// Under which epoch the holder runs it.
    pub epoch: Epoch,
    /// The digest of home's bundle that is changed.
    pub bundle: Digest,
    /// What is changed of it.
    pub changes: Vec<Change>,
}

impl Statement for Amendment {
    const PAYLOAD_TYPE: &'static str = "application/vnd.regent.amendment.v1+json";
}

/// Why a holder's changes are not taken, or not carried.
#[derive(Debug, thiserror::Error)]
pub enum AmendError {
    /// There are more than is carried.
    #[error(
        "group {group}: what people changed at the holder has {changes} places and {bytes} bytes; {MAX_CHANGES} and {MAX_AMENDMENT} are carried to other standbys, so none is: take it home with `kubectl regent adopt`, or keep large changes in an image"
    )]
    TooMuch {
        /// The group.
        group: GroupKey,
        /// How many places.
        changes: usize,
        /// How many bytes, signed.
        bytes: usize,
    },
    /// The signature is missing or wrong, or what it signs is no amendment.
    #[error("changes of group {group}: field signatures: {error}; they are not taken")]
    BadSignature {
        /// The group.
        group: GroupKey,
        /// Why.
        #[source]
        error: SignError,
    },
    /// It is about something else.
    #[error("changes of group {group}: field {field} is {found}, {wanted} is expected; they are not taken")]
    Other {
        /// The group.
        group: GroupKey,
        /// The field.
        field: &'static str,
        /// What it says.
        found: String,
        /// What it should say.
        wanted: String,
    },
    /// A change reaches what is not the group's, or not compared.
    #[error(
        "changes of group {group}: {object} {path}: no place of an object of home's revision that people may change; they are not taken"
    )]
    Foreign {
        /// The group.
        group: GroupKey,
        /// The object.
        object: String,
        /// The place.
        path: String,
    },
    /// A change has no place in home's object.
    #[error("changes of group {group}: {object}: {error}; they are not taken")]
    NoPlace {
        /// The group.
        group: GroupKey,
        /// The object.
        object: String,
        /// Why.
        #[source]
        error: Box<PointerError>,
    },
}

/// What people changed of one object: what lives here against home's copy. Images are named as
/// home names them, with the digests that the pods run: a standby has a table of its own, and a
/// tag may name another image there. An object that is gone here is no change to carry: what
/// vanished is kept by those who have it.
pub fn changes(home: &Value, live: &Value, pods: &[&Value], tables: &SiteSpec) -> Vec<Change> {
    // What home could not pin either is no change.
    let places: BTreeSet<String> = changed(home, live).into_iter().map(|(path, ..)| path).collect();
    let mut here = live.clone();
    leave_ours_out(&mut here);
    // What has no digest is said where the image is pulled.
    drop(pin(&mut here, pods));
    let carried = |(path, _, value): Changed| {
        let field = path.rsplit('/').next().unwrap_or_default();
        let value = value.map(|value| named_as_home(value, field, &tables.registries));
        Change { object: object_of(home), path, value }
    };
    changed(home, &here).into_iter().filter(|(path, ..)| places.contains(path)).map(carried).collect()
}

/// Whether all of it runs by its controllers' own numbers: in the middle of a roll-out, and of
/// one that never gets ready, nothing is carried.
pub fn works<'a>(mut live: impl Iterator<Item = &'a Live>) -> bool {
    live.all(|l| {
        let ready = l.pods.iter().filter(|p| is_ready(p)).count();
        !matches!(settle(&l.workload, ready), Verdict::Unsettled(_))
    })
}

/// Only people's containers have images that are carried.
fn leave_ours_out(workload: &mut Value) {
    let list = workload.pointer_mut("/spec/template/spec/initContainers").and_then(Value::as_array_mut);
    list.into_iter().for_each(|list| list.retain(|c| !text(c, "/name").starts_with(OURS)));
}

/// With home's registries in the place of this site's.
fn named_as_home(value: Value, field: &str, registries: &[Mapping]) -> Value {
    match value {
        Value::String(image) if matches!(field, "image" | "reference") => back(&image, registries).into(),
        Value::Object(map) => map
            .into_iter()
            .map(|(key, value)| {
                let named = named_as_home(value, &key, registries);
                (key, named)
            })
            .collect(),
        Value::Array(list) => list.into_iter().map(|item| named_as_home(item, "", registries)).collect(),
        other => other,
    }
}

impl Amendment {
    /// What a holder may sign: within what is carried.
    pub fn new(group: GroupKey, epoch: Epoch, bundle: Digest, changes: Vec<Change>) -> Result<Self, AmendError> {
        let count = changes.len();
        let amendment = Self { group, epoch, bundle, changes };
        let bytes = serde_json::to_vec(&amendment).map_or(usize::MAX, |json| json.len());
        if count > MAX_CHANGES || bytes > MAX_AMENDMENT {
            return Err(AmendError::TooMuch { group: amendment.group, changes: count, bytes });
        }
        Ok(amendment)
    }

    /// Believes an amendment that `site` signed, under an epoch of its own, and nothing before that.
    pub fn open(group: &GroupKey, envelope: &Envelope, site: &SiteEntry) -> Result<Self, AmendError> {
        let bytes = envelope.payload.len();
        if bytes > MAX_AMENDMENT {
            return Err(AmendError::TooMuch { group: group.clone(), changes: 0, bytes });
        }
        let amendment: Self = envelope
            .open(site.name.as_str(), &site.key)
            .map_err(|error| AmendError::BadSignature { group: group.clone(), error })?;
        let other = |field, found: String, wanted: String| {
            Err(AmendError::Other { group: group.clone(), field, found, wanted })
        };
        if &amendment.group != group {
            return other("group", amendment.group.to_string(), group.to_string());
        }
        if amendment.epoch.site != site.number {
            return other("epoch", amendment.epoch.to_string(), format!("an epoch of site {}", site.name));
        }
        if amendment.changes.len() > MAX_CHANGES {
            return Err(AmendError::TooMuch { group: group.clone(), changes: amendment.changes.len(), bytes });
        }
        Ok(amendment)
    }

    /// Whether it is said under the epoch in force, of the bundle that came with it.
    pub fn is_about(&self, epoch: Epoch, bundle: &str) -> Result<(), AmendError> {
        let other = |field, found, wanted| Err(AmendError::Other { group: self.group.clone(), field, found, wanted });
        if self.epoch != epoch {
            return other("epoch", self.epoch.to_string(), epoch.to_string());
        }
        if self.bundle.to_string() != bundle {
            return other("bundle", self.bundle.to_string(), bundle.to_owned());
        }
        Ok(())
    }

    /// Names what comes of it: home's own bundle where nothing is changed. Under which epoch it
    /// is said makes no difference: a holder that acquires again has nobody hold the same anew.
    pub fn revision(&self) -> Digest {
        if self.changes.is_empty() {
            return self.bundle;
        }
        let changes = serde_json::to_string(&self.changes).unwrap_or_default();
        Digest::of(format!("{}\n{changes}", self.bundle).as_bytes())
    }

    /// Home's bundle with what is changed of it; or why it can't be.
    pub fn amended(&self, home: &Bundle) -> Result<Bundle, AmendError> {
        let mut bundle = home.clone();
        for object in &mut bundle.objects {
            let name = object_of(object);
            let mine: Vec<&Change> = self.changes.iter().filter(|c| c.object == name).collect();
            let places = mine.iter().map(|c| (c.path.as_str(), c.value.clone()));
            pointer::change(object, places).map_err(|error| AmendError::NoPlace {
                group: self.group.clone(),
                object: name.clone(),
                error: Box::new(error),
            })?;
        }
        match self.changes.iter().find(|c| !is_within(c, home)) {
            None => Ok(bundle),
            Some(Change { object, path, .. }) => {
                Err(AmendError::Foreign { group: self.group.clone(), object: object.clone(), path: path.clone() })
            }
        }
    }
}

/// Whether a change is about a field that is compared, of an object that home's bundle has.
fn is_within(change: &Change, home: &Bundle) -> bool {
    let field = tokens(&change.path).ok().and_then(|t| t.into_iter().next());
    field.is_some_and(|f| COMPARED.contains(&f.as_str())) && home.objects.iter().any(|o| object_of(o) == change.object)
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use regent_core::sign::PublicKey;
    use serde_json::json;

    use super::*;
    use crate::copies::{Copies, place};

    fn group() -> GroupKey {
        "ireland/case".parse().unwrap()
    }

    fn sha(c: char) -> String {
        format!("sha256:{}", String::from(c).repeat(64))
    }

    fn tables() -> SiteSpec {
        serde_json::from_value(
            json!({ "registries": [{ "from": "registry.ireland.example", "to": "registry.france.example/mirror" }] }),
        )
        .unwrap()
    }

    fn home() -> Bundle {
        let spec = json!({ "home": "ireland", "namespaces": ["case"], "standbys": ["france", "germany"] });
        let till = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "till", "namespace": "case" },
            "spec": { "replicas": 2, "selector": { "matchLabels": { "app": "case" } }, "template": {
                "metadata": { "labels": { "app": "case" } },
                "spec": { "containers": [{ "name": "till", "image": format!("registry.ireland.example/till:1@{}", sha('a')),
                                           "args": ["a", "b", "c"] }] } } } });
        let prices = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "prices", "namespace": "case" },
            "data": { "tea": "2" } });
        Bundle::new(group(), serde_json::from_value(spec).unwrap(), vec![till, prices])
    }

    /// Home's copies as they run in France, before anybody changes them.
    fn copies() -> Vec<Value> {
        let (bundle, tables, group) = (home(), tables(), group());
        Copies::of(&bundle, &tables).unwrap().running(&place(&bundle, &group, &tables))
    }

    fn amendment(changes: Vec<Change>) -> Amendment {
        Amendment::new(group(), "24.1".parse().unwrap(), Digest::of(b"home's"), changes).unwrap()
    }

    fn change(object: &str, path: &str, value: Value) -> Change {
        Change { object: object.into(), path: path.into(), value: Some(value).filter(|v| !v.is_null()) }
    }

    #[test]
    fn what_people_changed_at_the_holder_is_what_another_standby_holds() {
        let copies = copies();
        let mut live = copies.clone();
        let deployment = live.iter_mut().find(|o| o["kind"] == "Deployment").unwrap();
        deployment["spec"]["replicas"] = json!(6);
        let containers = &mut deployment["spec"]["template"]["spec"]["containers"];
        containers[0]["image"] = json!("registry.france.example/mirror/till:1-cve-fixed");
        containers[0]["args"] = json!(["a"]);
        containers
            .as_array_mut()
            .unwrap()
            .push(json!({ "name": "log", "image": "registry.france.example/mirror/log:2" }));
        let pod = json!({ "metadata": { "name": "p" }, "status": { "containerStatuses": [
            { "name": "till", "imageID": format!("x@{}", sha('b')) }, { "name": "log", "imageID": format!("x@{}", sha('c')) }] } });
        live.iter_mut().find(|o| o["kind"] == "ConfigMap").unwrap()["data"] = json!({ "tea": "3", "milk": "1" });
        let found: Vec<Change> =
            copies.iter().zip(&live).flat_map(|(home, live)| changes(home, live, &[&pod], &tables())).collect();

        let amended = amendment(found).amended(&home()).unwrap();
        let till = amended.objects.iter().find(|o| o["kind"] == "Deployment").unwrap();
        assert_eq!(till["spec"]["replicas"], 6);
        assert_eq!(
            till["spec"]["template"]["spec"]["containers"],
            json!([
                { "name": "till", "image": format!("registry.ireland.example/till:1-cve-fixed@{}", sha('b')), "args": ["a"] },
                { "name": "log", "image": format!("registry.ireland.example/log:2@{}", sha('c')) },
            ]),
            "images as home names them, by the digests that run"
        );
        let prices = amended.objects.iter().find(|o| o["kind"] == "ConfigMap").unwrap();
        assert_eq!(prices["data"], json!({ "tea": "3", "milk": "1" }));
    }

    #[test]
    fn where_nobody_changed_anything_home_s_own_revision_is_held() {
        let pod = json!({ "metadata": { "name": "p" }, "status": { "containerStatuses": [
            { "name": "till", "imageID": format!("x@{}", sha('a')) }] } });
        let found: Vec<Change> = copies().iter().flat_map(|o| changes(o, o, &[&pod], &tables())).collect();
        assert_eq!(found, vec![]);
        assert_eq!(amendment(found.clone()).revision(), Digest::of(b"home's"));
        assert_eq!(amendment(found).amended(&home()).unwrap(), home());
    }

    #[test]
    fn a_revision_is_named_by_what_is_changed_and_not_by_the_epoch() {
        let one = amendment(vec![change("Deployment case/till", "/spec/replicas", json!(6))]);
        let again = Amendment { epoch: "31.1".parse().unwrap(), ..one.clone() };
        let other = amendment(vec![change("Deployment case/till", "/spec/replicas", json!(7))]);
        assert_eq!(one.revision(), again.revision());
        assert_ne!(one.revision(), other.revision());
        assert_ne!(one.revision(), one.bundle);
    }

    #[test]
    fn changes_reach_nothing_but_fields_of_objects_of_the_revision() {
        for foreign in [
            change("Deployment case/other", "/spec/replicas", json!(1)),
            change("Secret kube-system/token", "/data/a", json!("YQ==")),
            change("Deployment case/till", "/metadata/namespace", json!("kube-system")),
            change("Deployment case/till", "/kind", json!("Pod")),
            change("Deployment case/till", "/status/replicas", json!(1)),
        ] {
            let error = amendment(vec![foreign.clone()]).amended(&home()).unwrap_err();
            assert!(matches!(&error, AmendError::Foreign { object, .. } if object == &foreign.object), "{error}");
        }
        let nowhere = change("Deployment case/till", "/spec/template/spec/containers/7/image", json!("x"));
        let error = amendment(vec![nowhere]).amended(&home()).unwrap_err().to_string();
        assert!(error.contains("ireland/case: Deployment case/till"), "{error}");
    }

    fn site(name: &str, number: u32, seed: u8) -> (SiteEntry, SigningKey) {
        let key = SigningKey::from_bytes(&[seed; 32]);
        let entry = SiteEntry {
            name: name.parse().unwrap(),
            number,
            party: "anybody".parse().unwrap(),
            country: "FR".into(),
            addresses: vec![],
            key: PublicKey::of(&key),
            tls_anchor: String::new(),
        };
        (entry, key)
    }

    #[test]
    fn only_the_site_of_the_epoch_signs_and_only_for_this_group() {
        let (france, key) = site("france", 1, 1);
        let said = amendment(vec![change("Deployment case/till", "/spec/replicas", json!(6))]);
        let envelope = Envelope::sign(&said, "france", &key);
        assert_eq!(Amendment::open(&group(), &envelope, &france).unwrap(), said);
        let (germany, _) = site("germany", 2, 2);
        let forged = Amendment::open(&group(), &envelope, &germany);
        assert!(matches!(forged, Err(AmendError::BadSignature { .. })));
        let other: GroupKey = "ireland/bank".parse().unwrap();
        let moved = Amendment::open(&other, &envelope, &france);
        assert!(matches!(moved, Err(AmendError::Other { field: "group", .. })));
        let under_another = Amendment::open(&group(), &envelope, &SiteEntry { number: 3, ..france });
        assert!(matches!(under_another, Err(AmendError::Other { field: "epoch", .. })));
    }

    #[test]
    fn more_than_is_carried_is_refused_before_it_is_read() {
        let many = vec![change("ConfigMap case/prices", "/data/a", json!("x")); MAX_CHANGES + 1];
        let made = Amendment::new(group(), "24.1".parse().unwrap(), Digest::of(b""), many);
        assert!(made.unwrap_err().to_string().contains("257 places"));
        let large = vec![change("ConfigMap case/prices", "/data/a", json!("x".repeat(MAX_AMENDMENT)))];
        assert!(Amendment::new(group(), "24.1".parse().unwrap(), Digest::of(b""), large.clone()).is_err());
        let (france, key) = site("france", 1, 1);
        let said = Amendment { changes: large, ..amendment(vec![]) };
        let opened = Amendment::open(&group(), &Envelope::sign(&said, "france", &key), &france);
        assert!(matches!(opened, Err(AmendError::TooMuch { .. })));
    }
}
