//! The bundle: what a standby needs of a group, signed and named by its content.

use std::collections::BTreeSet;
use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use regent_api::FailoverGroupSpec;
use regent_core::ids::{GroupKey, SiteName};
use regent_core::sign::{Digest, Envelope, PublicKey, SignError, Statement};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::kind::KINDS;
use crate::object::{canonical, object_of, text};

/// The largest bundle, unpacked: what is larger does not fit into a Secret packed either.
pub const MAX_UNPACKED: u64 = 32 << 20;
/// The largest bundle, packed: a Secret holds a mebibyte, and beside the bundle what the holder's
/// people changed of it, twice at most.
pub const MAX_PACKED: usize = (1 << 20) - (192 << 10);

/// Why a bundle is refused.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// It can't be unpacked.
    #[error("bundle of group {group}: {error}; it is fetched again from its home")]
    Unreadable {
        /// The group.
        group: GroupKey,
        /// What went wrong.
        error: String,
    },
    /// Too large to keep.
    #[error(
        "bundle of group {group}: {bytes} bytes packed, a Secret has room for {MAX_PACKED}; split the group, or move large ConfigMaps into images or volumes"
    )]
    TooLarge {
        /// The group.
        group: GroupKey,
        /// How many bytes it has, packed.
        bytes: usize,
    },
    /// Its content is not what its digest says.
    #[error(
        "bundle of group {group}: its content has digest {found}, {wanted} was announced; it is not stored, and fetched again from its home"
    )]
    WrongDigest {
        /// The group.
        group: GroupKey,
        /// What its content says.
        found: Digest,
        /// What was announced.
        wanted: String,
    },
    /// Home's signature is missing or wrong.
    #[error("bundle of group {group}: field signatures: {error}")]
    BadSignature {
        /// The group.
        group: GroupKey,
        /// Why.
        #[source]
        error: SignError,
    },
    /// Signed by home, but for another group.
    #[error("bundle of group {group}: field group is {found}; it is not stored")]
    OtherGroup {
        /// The group.
        group: GroupKey,
        /// What it says.
        found: GroupKey,
    },
    /// It holds something that doesn't belong into a bundle.
    #[error(
        "bundle of group {group}: object {object} is of no mirrored kind, or outside the group's namespaces {namespaces}; it is not stored"
    )]
    Foreign {
        /// The group.
        group: GroupKey,
        /// The object.
        object: String,
        /// The group's namespaces.
        namespaces: String,
    },
}

/// What a standby needs of a group. Nothing in it changes unless the group does, so its
/// digest is the group's revision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bundle {
    /// The group.
    pub group: GroupKey,
    /// What home says of it, for the read-only copy.
    pub spec: FailoverGroupSpec,
    /// Its objects, stripped of what only home's cluster knows; ordered.
    pub objects: Vec<Value>,
    /// Workloads that run nothing at home although they want pods, as `Kind NAMESPACE/NAME`:
    /// paused since they were made.
    #[serde(default)]
    pub idle: Vec<String>,
    /// Workloads of which a person has said that they are gone for good, as
    /// `Kind NAMESPACE/NAME`: what only vanished at home is kept.
    #[serde(default)]
    pub pruned: Vec<String>,
}

/// How many objects one annotation may take off the standbys.
const MAX_PRUNED: usize = 64;

/// Reads [`regent_api::PRUNE_ANNOTATION`]: ordered, each once.
pub fn pruned(annotation: &str) -> Vec<String> {
    let names: BTreeSet<&str> = annotation.split(',').map(str::trim).filter(|n| !n.is_empty()).collect();
    names.into_iter().take(MAX_PRUNED).map(str::to_owned).collect()
}

impl Statement for Bundle {
    const PAYLOAD_TYPE: &'static str = "application/vnd.regent.bundle.v1+json";
}

fn place(object: &Value) -> (usize, String, String) {
    let kind = KINDS.iter().position(|(_, kind)| *kind == text(object, "/kind")).unwrap_or(KINDS.len());
    (kind, text(object, "/metadata/namespace").to_owned(), text(object, "/metadata/name").to_owned())
}

impl Bundle {
    /// A bundle of these objects, in its one order.
    pub fn new(group: GroupKey, spec: FailoverGroupSpec, objects: Vec<Value>) -> Self {
        let mut objects: Vec<Value> = objects.into_iter().map(canonical).collect();
        objects.sort_by_cached_key(place);
        objects.dedup_by_key(|o| place(o));
        Self { group, spec, objects, idle: Vec::new(), pruned: Vec::new() }
    }

    fn foreign(&self) -> Option<&Value> {
        let known = |o: &&Value| {
            let kind = (text(o, "/apiVersion"), text(o, "/kind"));
            let namespace = text(o, "/metadata/namespace");
            KINDS.contains(&kind) && self.spec.namespaces.iter().any(|n| n == namespace)
        };
        self.objects.iter().find(|o| !known(o))
    }
}

/// The digest that names an envelope's bundle: of the signed bytes.
pub fn digest_of(envelope: &Envelope) -> Digest {
    Digest::of(&envelope.payload)
}

/// Packs a signed bundle for the wire and for a Secret.
pub fn pack(group: &GroupKey, envelope: &Envelope) -> Result<Vec<u8>, BundleError> {
    let unreadable = |error: String| BundleError::Unreadable { group: group.clone(), error };
    let json = serde_json::to_vec(envelope).map_err(|e| unreadable(e.to_string()))?;
    let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
    let packed = packer.write_all(&json).and_then(|()| packer.finish()).map_err(|e| unreadable(e.to_string()))?;
    if packed.len() > MAX_PACKED {
        return Err(BundleError::TooLarge { group: group.clone(), bytes: packed.len() });
    }
    Ok(packed)
}

/// Unpacks a bundle and believes nothing of it before digest, signature, group and
/// contents are what they should be. `announced` is the digest that was promised.
pub fn unpack(
    group: &GroupKey,
    packed: &[u8],
    announced: &str,
    home: &SiteName,
    key: &PublicKey,
) -> Result<Bundle, BundleError> {
    let unreadable = |error: String| BundleError::Unreadable { group: group.clone(), error };
    if packed.len() > MAX_PACKED {
        return Err(BundleError::TooLarge { group: group.clone(), bytes: packed.len() });
    }
    let mut json = Vec::new();
    GzDecoder::new(packed).take(MAX_UNPACKED).read_to_end(&mut json).map_err(|e| unreadable(e.to_string()))?;
    let envelope: Envelope = serde_json::from_slice(&json).map_err(|e| unreadable(e.to_string()))?;
    let found = digest_of(&envelope);
    if found.to_string() != announced {
        return Err(BundleError::WrongDigest { group: group.clone(), found, wanted: announced.to_owned() });
    }
    let bundle: Bundle =
        envelope.open(home.as_str(), key).map_err(|error| BundleError::BadSignature { group: group.clone(), error })?;
    if &bundle.group != group {
        return Err(BundleError::OtherGroup { group: group.clone(), found: bundle.group });
    }
    if let Some(object) = bundle.foreign() {
        let (object, namespaces) = (object_of(object), bundle.spec.namespaces.join(", "));
        return Err(BundleError::Foreign { group: group.clone(), object, namespaces });
    }
    Ok(bundle)
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use serde_json::json;

    use super::*;

    fn group() -> GroupKey {
        "ireland/shop".parse().unwrap()
    }

    fn spec() -> FailoverGroupSpec {
        serde_json::from_value(json!({ "home": "ireland", "namespaces": ["shop"], "standbys": ["france"] })).unwrap()
    }

    fn object(kind: &str, namespace: &str, name: &str) -> Value {
        let version = if kind == "Deployment" { "apps/v1" } else { "v1" };
        json!({ "kind": kind, "apiVersion": version, "metadata": { "name": name, "namespace": namespace } })
    }

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[7; 32])
    }

    fn signed(bundle: &Bundle) -> (Vec<u8>, String) {
        let envelope = Envelope::sign(bundle, "ireland", &key());
        (pack(&group(), &envelope).unwrap(), digest_of(&envelope).to_string())
    }

    fn open(packed: &[u8], digest: &str, key: &SigningKey) -> Result<Bundle, BundleError> {
        unpack(&group(), packed, digest, &"ireland".parse().unwrap(), &PublicKey::of(key))
    }

    #[test]
    fn the_same_objects_in_any_order_make_the_same_bundle() {
        let one = object("Deployment", "shop", "a");
        let two = json!({ "metadata": { "namespace": "shop", "name": "c" }, "apiVersion": "v1", "kind": "ConfigMap" });
        let first = signed(&Bundle::new(group(), spec(), vec![one.clone(), two.clone()]));
        let second = signed(&Bundle::new(group(), spec(), vec![two.clone(), one, two]));
        assert_eq!(first, second);
        let opened = open(&first.0, &first.1, &key()).unwrap();
        assert_eq!(text(&opened.objects[0], "/kind"), "ConfigMap", "what pods need comes first");
    }

    #[test]
    fn a_bundle_with_a_wrong_digest_or_signature_is_refused_by_name() {
        let (packed, digest) = signed(&Bundle::new(group(), spec(), vec![object("Secret", "shop", "s")]));
        let wrong = Digest::of(b"other").to_string();
        let error = open(&packed, &wrong, &key()).unwrap_err();
        assert!(matches!(error, BundleError::WrongDigest { .. }), "{error}");
        assert!(error.to_string().contains("ireland/shop") && error.to_string().contains(&wrong), "{error}");
        let error = open(&packed, &digest, &SigningKey::from_bytes(&[8; 32])).unwrap_err();
        assert!(matches!(error, BundleError::BadSignature { .. }), "{error}");
        assert!(open(&packed[..packed.len() / 2], &digest, &key()).is_err());
        assert!(open(b"no gzip", &digest, &key()).is_err());
    }

    #[test]
    fn a_bundle_reaches_no_other_namespace_kind_or_group() {
        for foreign in [
            object("Secret", "kube-system", "s"),
            object("Role", "shop", "r"),
            json!({ "kind": "Secret", "apiVersion": "v1", "metadata": { "name": "s" } }),
        ] {
            let (packed, digest) = signed(&Bundle::new(group(), spec(), vec![foreign]));
            let error = open(&packed, &digest, &key()).unwrap_err();
            assert!(matches!(error, BundleError::Foreign { .. }), "{error}");
        }
        let other = Bundle::new("ireland/bank".parse().unwrap(), spec(), vec![]);
        let (packed, digest) = signed(&other);
        assert!(matches!(open(&packed, &digest, &key()).unwrap_err(), BundleError::OtherGroup { .. }));
    }
}
