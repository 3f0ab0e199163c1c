//! Whose client certificates count.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use regent_core::charter::Charter;
use regent_core::ids::SiteName;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore, SignatureScheme,
};

use super::TlsError;
use super::identity::chain;
use super::names::{node_of, site_of};

/// Why a client is refused in the handshake. The client sees a TLS alert; this goes to
/// the server's log.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("client certificate names no single site (SITE.site.regent.dev); use the site's own tls.crt")]
    NoSite,
    #[error("client certificate names site {0}, which the charter does not name")]
    UnknownSite(SiteName),
    #[error(
        "client certificate names no single node of site {0} (NODE.node.{0}.site.regent.dev); let the agent enrol again"
    )]
    NoNode(SiteName),
}

fn refuse(reason: Refusal) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(reason))))
}

pub(super) fn roots(pem: &str, what: &str) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for der in chain(pem, what)? {
        store.add(der).map_err(|e| TlsError::Unreadable { what: what.to_owned(), why: e.to_string() })?;
    }
    Ok(store)
}

fn webpki(pem: &str, what: &str) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    WebPkiClientVerifier::builder(Arc::new(roots(pem, what)?))
        .build()
        .map_err(|e| TlsError::Config { what: what.to_owned(), error: e.to_string() })
}

enum Whom {
    /// Sites of the charter, each under its own anchor alone.
    Sites(BTreeMap<SiteName, Arc<dyn ClientCertVerifier>>),
    /// Nodes of one site, under that site's CA; or nobody, who may only enrol.
    Nodes(SiteName, Arc<dyn ClientCertVerifier>),
}

/// Accepts a certificate only from the CA of the very site whose name it carries.
pub(super) struct PartyVerifier {
    whom: Whom,
    /// Signature schemes are the provider's, the same under every anchor.
    any: Arc<dyn ClientCertVerifier>,
}

impl fmt::Debug for PartyVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whom = match &self.whom {
            Whom::Sites(sites) => format!("{} sites", sites.len()),
            Whom::Nodes(site, _) => format!("nodes of {site}"),
        };
        f.debug_tuple("PartyVerifier").field(&whom).finish()
    }
}

impl PartyVerifier {
    /// For other sites of the charter; a certificate is required.
    pub(super) fn of_sites(charter: &Charter) -> Result<Self, TlsError> {
        let mut sites = BTreeMap::new();
        for site in &charter.sites {
            sites.insert(site.name.clone(), webpki(&site.tls_anchor, &format!("tlsAnchor of site {}", site.name))?);
        }
        let none = || TlsError::Config { what: "federation".into(), error: "the charter names no site".into() };
        let any = sites.values().next().cloned().ok_or_else(none)?;
        Ok(Self { whom: Whom::Sites(sites), any })
    }

    /// For the site's own nodes; without a certificate one may only enrol.
    pub(super) fn of_nodes(site: &SiteName, anchor_pem: &str) -> Result<Self, TlsError> {
        let verifier = webpki(anchor_pem, &format!("the CA of site {site}"))?;
        Ok(Self { whom: Whom::Nodes(site.clone(), verifier.clone()), any: verifier })
    }

    fn anchor_for(&self, certificate: &CertificateDer<'_>) -> Result<&Arc<dyn ClientCertVerifier>, Error> {
        match &self.whom {
            Whom::Sites(sites) => {
                let site = site_of(certificate).ok_or_else(|| refuse(Refusal::NoSite))?;
                sites.get(&site).ok_or_else(|| refuse(Refusal::UnknownSite(site)))
            }
            Whom::Nodes(site, verifier) => match node_of(certificate, site) {
                Some(_) => Ok(verifier),
                None => Err(refuse(Refusal::NoNode(site.clone()))),
            },
        }
    }
}

impl ClientCertVerifier for PartyVerifier {
    fn client_auth_mandatory(&self) -> bool {
        matches!(self.whom, Whom::Sites(_))
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Every client has one certificate: hints would only tell strangers who takes part.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.anchor_for(end_entity)?.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.any.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.any.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.any.supported_verify_schemes()
    }
}
