//! What a site keeps for itself: the files of Secret `regent-site`.

use std::path::Path;

use ed25519_dalek::SigningKey;
use regent_core::charter::Charter;
use regent_core::ids::SiteName;
use regent_core::sign::PublicKey;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::{NewCa, TlsError};

/// The keys of a site: its voice to other sites and to its agents.
#[derive(Clone)]
pub struct SiteIdentity {
    /// Whose they are.
    pub site: SiteName,
    /// Signs what the site says.
    pub key: SigningKey,
    /// The site's CA.
    pub ca: NewCa,
    /// The site's own certificate chain, PEM.
    pub certificate_pem: String,
    /// Its key, PEM.
    pub key_pem: String,
}

impl std::fmt::Debug for SiteIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SiteIdentity").field("site", &self.site).finish_non_exhaustive()
    }
}

fn read(dir: &Path, name: &str, what: &'static str) -> Result<String, TlsError> {
    let path = dir.join(name);
    std::fs::read_to_string(&path).map_err(|error| TlsError::File { path: path.display().to_string(), what, error })
}

fn signing_key(text: &str, place: &Path) -> Result<SigningKey, TlsError> {
    let mut seed = [0; 32];
    hex::decode_to_slice(text.trim(), &mut seed).map_err(|e| TlsError::Unreadable {
        what: format!("{}", place.join("site.key").display()),
        why: format!("not 64 hexadecimal digits, the seed of an Ed25519 key: {e}"),
    })?;
    Ok(SigningKey::from_bytes(&seed))
}

impl SiteIdentity {
    /// Reads `site.key`, `ca.crt`, `ca.key`, `tls.crt` and `tls.key` in `dir`, and holds
    /// them against the charter: another site's Secret is refused here, not at the
    /// first handshake.
    pub fn load(dir: &Path, site: &SiteName, charter: &Charter) -> Result<Self, TlsError> {
        let unknown = || TlsError::UnknownSite { charter: charter.name.clone(), site: site.to_string() };
        let entry = charter.site(site).ok_or_else(unknown)?;
        let identity = Self {
            site: site.clone(),
            key: signing_key(&read(dir, "site.key", "the seed of the site's Ed25519 key in hexadecimal")?, dir)?,
            ca: NewCa {
                certificate_pem: read(dir, "ca.crt", "the certificate of the site's CA")?,
                key_pem: read(dir, "ca.key", "the key of the site's CA")?,
            },
            certificate_pem: read(dir, "tls.crt", "the site's TLS certificate")?,
            key_pem: read(dir, "tls.key", "the key of the site's TLS certificate")?,
        };
        let differs = |what| TlsError::NotThatSite { place: dir.display().to_string(), site: site.to_string(), what };
        if PublicKey::of(&identity.key) != entry.key {
            return Err(differs("the signing key"));
        }
        if chain(&identity.ca.certificate_pem, "ca.crt")? != chain(&entry.tls_anchor, "tlsAnchor")? {
            return Err(differs("the TLS anchor"));
        }
        if chain(&identity.certificate_pem, "tls.crt")?.first().and_then(super::names::site_of).as_ref() != Some(site) {
            return Err(differs("the name in tls.crt"));
        }
        Ok(identity)
    }

    pub(super) fn chain(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        chain(&self.certificate_pem, "the site's certificate")
    }

    pub(super) fn private_key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        private_key(&self.key_pem, "the key of the site's certificate")
    }
}

pub(super) fn chain(pem: &str, what: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bad = |why: String| TlsError::Unreadable { what: what.to_owned(), why };
    let list: Vec<_> =
        CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(|e| bad(format!("{e:?}")))?;
    if list.is_empty() { Err(bad("no PEM certificate in it".into())) } else { Ok(list) }
}

pub(super) fn private_key(pem: &str, what: &str) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes())
        .map_err(|e| TlsError::Unreadable { what: what.to_owned(), why: format!("{e:?}") })
}
