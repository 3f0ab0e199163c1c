//! A standby's bundles: fetched from home, verified, kept in Secrets.
//!
//! A Secret for each revision. Three are kept: the good one, which was held whole last, the
//! next, and the one before. Each says when it came and when it was last held whole, so that
//! another replica goes on where this one died.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, Patch, PatchParams};
use regent_api::{FIELD_MANAGER, GROUP_LABEL, NAMESPACE, group_label, group_selector, object_name};
use regent_core::charter::Charter;
use regent_core::ids::GroupKey;
use regent_kinds::bundle::{Bundle, BundleError, MAX_PACKED, unpack};
use regent_kinds::object::shortened;
use regent_kinds::report::MAX_TEXT;
use regent_proto::v1;

use crate::federation::client::{CallError, Peer};
use crate::objects::{ObjectError, bounded};

/// How long a bundle may take to arrive.
const FETCH: Duration = Duration::from_secs(5);
/// Revisions that are kept of a group.
const KEPT: usize = 3;
const DATA: &str = "bundle.json.gz";
const DIGEST: &str = "digest";
/// When home last said that this is the newest.
const CAME: &str = "regent.dev/came";
/// When all of it was first held, the last time that it became the good one.
const ARMED: &str = "regent.dev/armed";
/// Hexadecimal digits of a digest in a Secret's name.
const SHORT: usize = 12;

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

/// What home answered.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// A bundle that is newer than the one that is kept.
    New(Box<Held>),
    /// Nothing new, and why, where home says why.
    Nothing(String),
}

/// The revisions of a group that are kept.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Revisions {
    /// Held whole last.
    pub good: Option<Held>,
    /// Home's newest.
    pub next: Option<Held>,
    /// The others.
    pub older: Vec<Held>,
}

impl Revisions {
    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Held> {
        self.next.iter().chain(&self.good).chain(&self.older)
    }

    /// The namespaces in which copies of any of them may be.
    pub fn namespaces(&self) -> Vec<String> {
        let mut names: Vec<String> = self.all().flat_map(|h| h.bundle.spec.namespaces.clone()).collect();
        names.sort();
        names.dedup();
        names
    }

    /// The next is held whole.
    pub fn arm(&mut self) {
        let good = std::mem::replace(&mut self.good, self.next.clone());
        self.older.extend(good.filter(|g| Some(&g.digest) != self.next.as_ref().map(|n| &n.digest)));
        self.trim();
    }

    /// Home has a newer one.
    pub fn take(&mut self, new: Held) {
        let before = self.next.replace(new);
        let is_good = |h: &Held| self.good.as_ref().is_some_and(|g| g.digest == h.digest);
        self.older.extend(before.filter(|h| !is_good(h)));
        self.trim();
    }

    fn trim(&mut self) {
        let used = [self.good.as_ref(), self.next.as_ref()].map(|h| h.map(|h| h.digest.clone()));
        self.older.retain(|h| !used.contains(&Some(h.digest.clone())));
        let room = KEPT.saturating_sub(1);
        if self.older.len() > room {
            self.older.drain(..self.older.len() - room);
        }
    }
}

/// Keeps bundles.
#[derive(Clone)]
pub struct Store {
    api: Api<Secret>,
    charter: Charter,
}

fn secret_name(group: &GroupKey, digest: &str) -> String {
    format!("regent-bundle-{}-{}", object_name(group), digest.get(..SHORT).unwrap_or(digest))
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

    async fn secrets(&self, group: &GroupKey) -> Result<Vec<Secret>, ObjectError> {
        let params = ListParams::default().labels(&group_selector(group));
        let mut secrets = bounded(&format!("bundles of group {group}"), self.api.list(&params)).await?.items;
        secrets.sort_by_key(|s| s.annotations().get(CAME).cloned());
        Ok(secrets)
    }

    /// The revisions that are kept, verified again: whoever can write Secrets here signs
    /// nothing in home's name. What can't be verified is left out.
    pub async fn load(&self, group: &GroupKey) -> Result<Revisions, StoreError> {
        let mut revisions = Revisions::default();
        let mut armed: Option<String> = None;
        for secret in self.secrets(group).await? {
            let at = secret.annotations().get(ARMED).cloned();
            let data = secret.data.clone().unwrap_or_default();
            let (Some(packed), Some(digest)) = (data.get(DATA), data.get(DIGEST)) else { continue };
            match self.open(group, &packed.0, &String::from_utf8_lossy(&digest.0)) {
                Ok(held) => {
                    revisions.take(held.clone());
                    if at.is_some() && at > armed {
                        revisions.good = Some(held);
                        armed = at;
                    }
                }
                Err(e) => tracing::warn!("Secret {} is left out: {e}", secret.name_any()),
            }
        }
        revisions.trim();
        Ok(revisions)
    }

    /// Asks home for a bundle that differs from `have`. Verified, then kept, then returned.
    pub async fn fetch(&self, group: &GroupKey, home: &Peer, have: &str) -> Result<Answer, StoreError> {
        let request = v1::BundleRequest { group: group.to_string(), have_digest: have.to_owned() };
        let mut stream = home.call(FETCH, |mut client| async move { client.bundle(request).await }).await?;
        let broken = |error: String| StoreError::Broken { group: group.clone(), error };
        let (mut packed, mut digest, mut notice) = (Vec::new(), String::new(), String::new());
        loop {
            let next = tokio::time::timeout(FETCH, stream.message()).await.map_err(|_| broken("timed out".into()))?;
            let Some(chunk) = next.map_err(|e| broken(e.message().to_owned()))? else { break };
            if packed.len() + chunk.data.len() > MAX_PACKED {
                let bytes = packed.len() + chunk.data.len();
                return Err(BundleError::TooLarge { group: group.clone(), bytes }.into());
            }
            packed.extend_from_slice(&chunk.data);
            digest = chunk.digest;
            notice = shortened(&chunk.notice, MAX_TEXT).to_owned();
        }
        if packed.is_empty() {
            return Ok(Answer::Nothing(notice));
        }
        let held = self.open(group, &packed, &digest)?;
        self.keep(group, packed, &digest).await?;
        Ok(Answer::New(Box::new(held)))
    }

    async fn keep(&self, group: &GroupKey, packed: Vec<u8>, digest: &str) -> Result<(), ObjectError> {
        let name = secret_name(group, digest);
        let data = [(DATA.to_owned(), ByteString(packed)), (DIGEST.to_owned(), ByteString(digest.as_bytes().to_vec()))];
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                labels: Some(BTreeMap::from([(GROUP_LABEL.to_owned(), group_label(group))])),
                annotations: Some(BTreeMap::from([(CAME.to_owned(), Timestamp::now().to_string())])),
                ..ObjectMeta::default()
            },
            type_: Some("regent.dev/bundle".to_owned()),
            data: Some(data.into()),
            ..Secret::default()
        };
        let params = PatchParams::apply(FIELD_MANAGER).force();
        bounded(&format!("Secret {name}"), self.api.patch(&name, &params, &Patch::Apply(&secret))).await.map(drop)
    }

    /// Notes that a revision is held whole: the good one from now on.
    pub async fn mark_armed(&self, group: &GroupKey, digest: &str) -> Result<(), ObjectError> {
        let name = secret_name(group, digest);
        let patch = serde_json::json!({ "metadata": { "annotations": { ARMED: Timestamp::now().to_string() } } });
        let params = PatchParams::default();
        match bounded(&format!("Secret {name}"), self.api.patch(&name, &params, &Patch::Merge(&patch))).await {
            // Somebody deleted it: after a restart home is asked for it again.
            Err(e) if e.is_not_found() => Ok(()),
            marked => marked.map(drop),
        }
    }

    /// Removes what is kept of other revisions than these.
    pub async fn trim(&self, group: &GroupKey, revisions: &Revisions) -> Result<(), ObjectError> {
        let wanted: Vec<String> = revisions.all().map(|h| secret_name(group, &h.digest)).collect();
        for secret in self.secrets(group).await?.iter().filter(|s| !wanted.contains(&s.name_any())) {
            self.remove(&secret.name_any()).await?;
        }
        Ok(())
    }

    /// Forgets a group: this site may not hold it any more.
    pub async fn forget(&self, group: &GroupKey) -> Result<(), ObjectError> {
        self.trim(group, &Revisions::default()).await
    }

    async fn remove(&self, name: &str) -> Result<(), ObjectError> {
        match bounded(&format!("Secret {name}"), self.api.delete(name, &DeleteParams::default())).await {
            Err(e) if !e.is_not_found() => Err(e),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(digest: &str) -> Held {
        let spec = serde_json::json!({ "home": "ireland", "namespaces": [digest] });
        let bundle = Bundle::new("ireland/shop".parse().unwrap(), serde_json::from_value(spec).unwrap(), vec![]);
        Held { digest: digest.to_owned(), bundle }
    }

    #[test]
    fn the_good_revision_is_kept_however_many_come_and_fail_after_it() {
        let mut revisions = Revisions::default();
        revisions.take(held("a"));
        revisions.arm();
        for digest in ["b", "c", "d", "e"] {
            revisions.take(held(digest));
        }
        let digests = |r: &Revisions| r.older.iter().map(|h| h.digest.clone()).collect::<Vec<_>>();
        assert_eq!(revisions.good.as_ref().map(|h| h.digest.as_str()), Some("a"));
        assert_eq!(revisions.next.as_ref().map(|h| h.digest.as_str()), Some("e"));
        assert_eq!(digests(&revisions), ["c", "d"]);
        revisions.arm();
        assert_eq!(revisions.good, revisions.next);
        assert_eq!(digests(&revisions), ["d", "a"], "three are kept");
        revisions.take(held("a"));
        assert_eq!(
            (revisions.next.as_ref().map(|h| h.digest.as_str()), digests(&revisions)),
            (Some("a"), vec!["d".to_owned()])
        );
        assert_eq!(revisions.namespaces(), ["a", "d", "e"]);
    }
}
