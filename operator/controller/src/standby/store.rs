//! A standby's bundles: fetched from home, verified, kept in Secrets.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DeleteParams, ObjectMeta, Patch, PatchParams};
use regent_api::{FIELD_MANAGER, GROUP_LABEL, NAMESPACE, group_label, object_name};
use regent_core::charter::Charter;
use regent_core::ids::GroupKey;
use regent_proto::v1;

use crate::federation::client::{CallError, Peer};
use crate::mirror::bundle::{Bundle, BundleError, MAX_PACKED, unpack};
use crate::objects::{ObjectError, bounded};

/// How long a bundle may take to arrive.
const FETCH: Duration = Duration::from_secs(5);
const DATA: &str = "bundle.json.gz";
const DIGEST: &str = "digest";

/// Why there is no bundle.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Home can't be asked.
    #[error(transparent)]
    Call(#[from] CallError),
    /// What came is no bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// It can't be kept or read.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// The charter does not name the group's home.
    #[error("group {0}: its home is no site of the charter; nothing is taken from it")]
    UnknownHome(GroupKey),
    /// The stream broke.
    #[error("bundle of group {group}: broken off: {error}; it is fetched again")]
    Broken {
        /// The group.
        group: GroupKey,
        /// Why.
        error: String,
    },
}

/// A verified bundle with its digest.
#[derive(Debug, Clone, PartialEq)]
pub struct Held {
    /// Its digest: the group's revision.
    pub digest: String,
    /// What it says.
    pub bundle: Bundle,
}

/// Keeps bundles.
#[derive(Clone)]
pub struct Store {
    api: Api<Secret>,
    charter: Charter,
}

fn secret_name(group: &GroupKey) -> String {
    format!("regent-bundle-{}", object_name(group))
}

impl Store {
    /// In this cluster; bundles are believed as the charter says.
    pub fn new(client: kube::Client, charter: Charter) -> Self {
        Self { api: Api::namespaced(client, NAMESPACE), charter }
    }

    fn open(&self, group: &GroupKey, packed: &[u8], digest: &str) -> Result<Held, StoreError> {
        let home = self.charter.site(&group.home).ok_or_else(|| StoreError::UnknownHome(group.clone()))?;
        let bundle = unpack(group, packed, digest, &home.name, &home.key)?;
        Ok(Held { digest: digest.to_owned(), bundle })
    }

    /// The bundle that is kept, verified again: whoever can write Secrets here signs
    /// nothing in home's name.
    pub async fn load(&self, group: &GroupKey) -> Result<Option<Held>, StoreError> {
        let name = secret_name(group);
        let Some(secret) = bounded(&format!("Secret {name}"), self.api.get_opt(&name)).await? else { return Ok(None) };
        let data = secret.data.unwrap_or_default();
        let (Some(packed), Some(digest)) = (data.get(DATA), data.get(DIGEST)) else { return Ok(None) };
        self.open(group, &packed.0, &String::from_utf8_lossy(&digest.0)).map(Some)
    }

    /// Asks home for a bundle that differs from `have`. Verified, then kept, then returned.
    pub async fn fetch(&self, group: &GroupKey, home: &Peer, have: &str) -> Result<Option<Held>, StoreError> {
        let request = v1::BundleRequest { group: group.to_string(), have_digest: have.to_owned() };
        let mut stream = home.call(FETCH, |mut client| async move { client.bundle(request).await }).await?;
        let broken = |error: String| StoreError::Broken { group: group.clone(), error };
        let (mut packed, mut digest) = (Vec::new(), String::new());
        loop {
            let next = tokio::time::timeout(FETCH, stream.message()).await.map_err(|_| broken("timed out".into()))?;
            let Some(chunk) = next.map_err(|e| broken(e.message().to_owned()))? else { break };
            if packed.len() + chunk.data.len() > MAX_PACKED {
                let bytes = packed.len() + chunk.data.len();
                return Err(BundleError::TooLarge { group: group.clone(), bytes }.into());
            }
            packed.extend_from_slice(&chunk.data);
            digest = chunk.digest;
        }
        if packed.is_empty() {
            return Ok(None);
        }
        let held = self.open(group, &packed, &digest)?;
        self.keep(group, packed, &digest).await?;
        Ok(Some(held))
    }

    async fn keep(&self, group: &GroupKey, packed: Vec<u8>, digest: &str) -> Result<(), ObjectError> {
        let name = secret_name(group);
        let data = [(DATA.to_owned(), ByteString(packed)), (DIGEST.to_owned(), ByteString(digest.as_bytes().to_vec()))];
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                labels: Some(BTreeMap::from([(GROUP_LABEL.to_owned(), group_label(group))])),
                ..ObjectMeta::default()
            },
            type_: Some("regent.dev/bundle".to_owned()),
            data: Some(data.into()),
            ..Secret::default()
        };
        let params = PatchParams::apply(FIELD_MANAGER).force();
        bounded(&format!("Secret {name}"), self.api.patch(&name, &params, &Patch::Apply(&secret))).await.map(drop)
    }

    /// Forgets a bundle: this site may not hold the group any more.
    pub async fn forget(&self, group: &GroupKey) -> Result<(), ObjectError> {
        let name = secret_name(group);
        match bounded(&format!("Secret {name}"), self.api.delete(&name, &DeleteParams::default())).await {
            Err(e) if !e.is_not_found() => Err(e),
            _ => Ok(()),
        }
    }
}
