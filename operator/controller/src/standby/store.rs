//! A standby's revisions: fetched from home or the holder, verified, kept in Secrets.
//!
//! A Secret for each revision: home's bundle, and what people changed of it at the site that
//! held the group then. Three are kept: the good one, which was held whole last, the next, and
//! the one before. Each says when it came and when it was last held whole, so that another
//! replica goes on where this one died. Where the group runs, the Secret of what runs says too
//! what people changed here, for whichever replica the other standbys ask.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, Patch, PatchParams};
use regent_api::{FIELD_MANAGER, GROUP_LABEL, NAMESPACE, group_label, group_selector, object_name};
use regent_core::charter::{Charter, SiteEntry};
use regent_core::ids::{Epoch, GroupKey, SiteName};
use regent_core::sign::{Digest, Envelope};
use regent_kinds::amend::{AmendError, Amendment};
use regent_kinds::bundle::{Bundle, BundleError, MAX_PACKED, unpack};
use regent_kinds::object::shortened;
use regent_kinds::report::MAX_TEXT;
use regent_proto::v1;

use crate::federation::client::{CallError, Peer};
use crate::federation::server::Bundle as Served;
use crate::objects::{ObjectError, bounded};

/// How long a bundle may take to arrive.
const FETCH: Duration = Duration::from_secs(5);
/// Revisions that are kept of a group.
const KEPT: usize = 3;
/// Home's bundle, packed.
const DATA: &str = "bundle.json.gz";
/// What names the revision.
const DIGEST: &str = "digest";
/// What was changed of home's bundle where the group ran when this came; signed there.
const AMENDMENT: &str = "amendment.json";
/// What is changed of home's bundle here, while the group runs here; signed by this site.
const OFFER: &str = "offer.json";
/// When home last said that this is the newest.
const CAME: &str = "regent.dev/came";
/// When all of it was first held, the last time that it became the good one.
const ARMED: &str = "regent.dev/armed";
/// Hexadecimal digits of a digest in a Secret's name, and in messages.
pub const SHORT: usize = 12;

/// Why there is no bundle.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Home can't be asked.
    #[error(transparent)]
    Call(#[from] CallError),
    /// What came is no bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// What came of a holder's changes is not taken.
    #[error(transparent)]
    Amend(#[from] AmendError),
    /// It can't be kept or read.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// The charter does not name who says it.
    #[error("group {0}: its home, or the site that held it, is no site of the charter; nothing is taken from it")]
    UnknownSite(GroupKey),
    /// The stream broke.
    #[error("bundle of group {group}: broken off: {error}; it is fetched again")]
    Broken {
        /// The group.
        group: GroupKey,
        /// Why.
        error: String,
    },
}

/// A verified revision.
#[derive(Debug, Clone, PartialEq)]
pub struct Held {
    /// What names it: the digest of home's bundle, or of that and what is changed of it.
    pub digest: String,
    /// What is held, or runs.
    pub bundle: Bundle,
    /// Where that is not home's own: whose changes are in it.
    pub amended: Option<Box<Amended>>,
}

/// What people changed of a revision of home's.
#[derive(Debug, Clone, PartialEq)]
pub struct Amended {
    /// Home's own.
    pub home: Bundle,
    /// Its digest.
    pub digest: String,
    /// Where they changed it.
    pub by: SiteName,
    /// In how many places.
    pub places: usize,
}

impl Held {
    /// Home's own revision, without what anybody changed.
    pub fn home(&self) -> &Bundle {
        self.amended.as_ref().map_or(&self.bundle, |a| &a.home)
    }

    /// The digest of home's own bundle.
    pub fn home_digest(&self) -> &str {
        self.amended.as_ref().map_or(&self.digest, |a| &a.digest)
    }
}

/// Whom a standby asks what to hold: who holds the group says it.
#[derive(Clone, Copy)]
pub enum Source<'a> {
    /// Home, while nobody else is known to hold the group.
    Home(&'a Peer),
    /// Another site, under this epoch.
    Holder(&'a Peer, Epoch),
}

impl<'a> Source<'a> {
    /// Who that is.
    pub fn peer(&self) -> &'a Peer {
        let (Self::Home(peer) | Self::Holder(peer, _)) = self;
        peer
    }
}

/// What was answered.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// A revision that differs from the newest that is kept.
    New(Box<Held>),
    /// Nothing new, and why, where that is said.
    Nothing(String),
}

/// The revisions of a group that are kept.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Revisions {
    /// Held whole last.
    pub good: Option<Held>,
    /// The newest.
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

fn field<'a>(secret: &'a Secret, name: &str) -> Option<&'a [u8]> {
    Some(secret.data.as_ref()?.get(name)?.0.as_slice())
}

fn envelope_of(secret: &Secret, name: &str) -> Option<Envelope> {
    serde_json::from_slice(field(secret, name)?).ok()
}

fn json_of(envelope: &Envelope) -> ByteString {
    // An envelope is plain data with text keys: serialising it to memory can't fail.
    ByteString(serde_json::to_vec(envelope).unwrap_or_default())
}

impl Store {
    /// In this cluster; bundles are believed as the charter says.
    pub fn new(client: kube::Client, charter: Charter) -> Self {
        Self { api: Api::namespaced(client, NAMESPACE), charter }
    }

    fn site(&self, group: &GroupKey, name: &SiteName) -> Result<&SiteEntry, StoreError> {
        self.charter.site(name).ok_or_else(|| StoreError::UnknownSite(group.clone()))
    }

    /// Home's bundle, with what people changed of it at a site.
    fn open(
        &self,
        group: &GroupKey,
        packed: &[u8],
        digest: &str,
        amendment: Option<(&Amendment, &SiteEntry)>,
    ) -> Result<Held, StoreError> {
        let home = self.site(group, &group.home)?;
        let bundle = unpack(group, packed, digest, &home.name, &home.key)?;
        let digest = digest.to_owned();
        let Some((amendment, by)) = amendment.filter(|(a, _)| !a.changes.is_empty()) else {
            return Ok(Held { digest, bundle, amended: None });
        };
        let (by, places) = (by.name.clone(), amendment.changes.len());
        let amended = Amended { digest, by, places, home: bundle };
        let bundle = amendment.amended(&amended.home)?;
        Ok(Held { digest: amendment.revision().to_string(), bundle, amended: Some(Box::new(amended)) })
    }

    /// What a Secret holds, verified again.
    fn read(&self, group: &GroupKey, secret: &Secret) -> Result<Option<Held>, StoreError> {
        let Some((packed, digest)) = field(secret, DATA).zip(field(secret, DIGEST)) else { return Ok(None) };
        let Some(envelope) = envelope_of(secret, AMENDMENT) else {
            return self.open(group, packed, &String::from_utf8_lossy(digest), None).map(Some);
        };
        let signer = envelope.signatures.first().and_then(|s| self.charter.site(&s.keyid.parse().ok()?));
        let signer = signer.ok_or_else(|| StoreError::UnknownSite(group.clone()))?;
        let amendment = Amendment::open(group, &envelope, signer)?;
        self.open(group, packed, &amendment.bundle.to_string(), Some((&amendment, signer))).map(Some)
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
            match self.read(group, &secret) {
                Ok(Some(held)) => {
                    revisions.take(held.clone());
                    if at.is_some() && at > armed {
                        revisions.good = Some(held);
                        armed = at;
                    }
                }
                Ok(None) => {}
                Err(e) => tracing::warn!("Secret {} is left out: {e}", secret.name_any()),
            }
        }
        revisions.trim();
        Ok(revisions)
    }

    /// Asks for a revision that differs from `have`. Verified, then kept, then returned.
    pub async fn fetch(&self, group: &GroupKey, source: Source<'_>, have: &str) -> Result<Answer, StoreError> {
        let peer = source.peer();
        let request = v1::BundleRequest { group: group.to_string(), have_digest: have.to_owned() };
        let mut stream = peer.call(FETCH, |mut client| async move { client.bundle(request).await }).await?;
        let broken = |error: String| StoreError::Broken { group: group.clone(), error };
        let (mut packed, mut last, mut amendment) = (Vec::new(), v1::BundleChunk::default(), None);
        loop {
            let next = tokio::time::timeout(FETCH, stream.message()).await.map_err(|_| broken("timed out".into()))?;
            let Some(chunk) = next.map_err(|e| broken(e.message().to_owned()))? else { break };
            if packed.len() + chunk.data.len() > MAX_PACKED {
                let bytes = packed.len() + chunk.data.len();
                return Err(BundleError::TooLarge { group: group.clone(), bytes }.into());
            }
            packed.extend_from_slice(&chunk.data);
            amendment = amendment.or(chunk.amendment.clone());
            last = chunk;
        }
        if packed.is_empty() {
            return Ok(Answer::Nothing(shortened(&last.notice, MAX_TEXT).to_owned()));
        }
        let (held, amendment) = match source {
            Source::Home(_) => (self.open(group, &packed, &last.digest, None)?, None),
            Source::Holder(peer, epoch) => {
                let envelope = Envelope::from(amendment.ok_or_else(|| broken("no amendment came".into()))?);
                let holder = self.site(group, peer.site())?;
                let said = Amendment::open(group, &envelope, holder)?;
                said.is_about(epoch, &last.digest)?;
                (self.open(group, &packed, &last.digest, Some((&said, holder)))?, Some(envelope))
            }
        };
        if held.digest == have {
            return Ok(Answer::Nothing(String::new()));
        }
        self.keep(group, packed, &held, amendment).await?;
        Ok(Answer::New(Box::new(held)))
    }

    async fn keep(
        &self,
        group: &GroupKey,
        packed: Vec<u8>,
        held: &Held,
        amendment: Option<Envelope>,
    ) -> Result<(), ObjectError> {
        let name = secret_name(group, &held.digest);
        let mut data = BTreeMap::from([
            (DATA.to_owned(), ByteString(packed)),
            (DIGEST.to_owned(), ByteString(held.digest.as_bytes().to_vec())),
        ]);
        if let Some(envelope) = amendment.filter(|_| held.amended.is_some()) {
            data.insert(AMENDMENT.to_owned(), json_of(&envelope));
        }
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                labels: Some(BTreeMap::from([(GROUP_LABEL.to_owned(), group_label(group))])),
                annotations: Some(BTreeMap::from([(CAME.to_owned(), Timestamp::now().to_string())])),
                ..ObjectMeta::default()
            },
            type_: Some("regent.dev/bundle".to_owned()),
            data: Some(data),
            ..Secret::default()
        };
        let params = PatchParams::apply(FIELD_MANAGER).force();
        bounded(&format!("Secret {name}"), self.api.patch(&name, &params, &Patch::Apply(&secret))).await.map(drop)
    }

    /// Says what is changed of the revision that runs here, for the other standbys. What was said
    /// of another revision is taken back.
    pub async fn offer(&self, group: &GroupKey, digest: &str, envelope: &Envelope) -> Result<(), ObjectError> {
        let runs = secret_name(group, digest);
        for secret in self.secrets(group).await? {
            let name = secret.name_any();
            let said = if name == runs { Some(json_of(envelope)) } else { None };
            if said.as_ref().map(|s| s.0.as_slice()) != field(&secret, OFFER) {
                let patch = serde_json::json!({ "data": { OFFER: said } });
                let params = PatchParams::default();
                bounded(&format!("Secret {name}"), self.api.patch(&name, &params, &Patch::Merge(&patch))).await?;
            }
        }
        Ok(())
    }

    /// What runs here under this epoch, for another standby, and what names it.
    pub async fn offered(
        &self,
        group: &GroupKey,
        site: &SiteName,
        epoch: Epoch,
    ) -> Result<Option<(Digest, Served)>, StoreError> {
        let here = self.site(group, site)?;
        for secret in self.secrets(group).await? {
            let Some((envelope, packed)) = envelope_of(&secret, OFFER).zip(field(&secret, DATA)) else { continue };
            let said = Amendment::open(group, &envelope, here)?;
            if said.epoch == epoch {
                let data = std::sync::Arc::new(packed.to_vec());
                return Ok(Some((said.revision(), Served { digest: said.bundle, data, amendment: Some(envelope) })));
            }
        }
        Ok(None)
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
        Held { digest: digest.to_owned(), bundle, amended: None }
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
