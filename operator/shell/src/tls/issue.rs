//! Making certificates.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, DnValue, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, PublicKeyData,
};
use regent_core::ids::{NodeName, SiteName};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{TlsError, hub_name, node_name, site_name};
use crate::clock;

const DAY: Duration = Duration::from_secs(24 * 3600);
const CA_LIFE: Duration = Duration::from_secs(3650 * 24 * 3600);
const SITE_LIFE: Duration = Duration::from_secs(730 * 24 * 3600);
/// An agent's: long enough to outlive an API server that is gone for days.
const NODE_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// A certificate and its private key, in PEM.
#[derive(Clone)]
pub struct NewCa {
    /// The certificate.
    pub certificate_pem: String,
    /// The key (PKCS #8).
    pub key_pem: String,
}

impl std::fmt::Debug for NewCa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewCa").finish_non_exhaustive()
    }
}

/// Valid from a day ago (wall clocks may differ, I8) for `life` from now.
fn lived(mut params: CertificateParams, life: Duration) -> CertificateParams {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let now = Duration::from_secs(clock::realtime_ns() / 1_000_000_000);
    params.not_before = epoch + now.saturating_sub(DAY);
    params.not_after = epoch + now + life;
    params
}

/// Maps an error to what was being made.
fn making(what: &str) -> impl Fn(rcgen::Error) -> TlsError {
    move |error| TlsError::Issue { what: what.to_owned(), error }
}

fn named(common_name: &str, names: Vec<String>, what: &str) -> Result<CertificateParams, TlsError> {
    let mut params = CertificateParams::new(names).map_err(making(what))?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.distinguished_name.push(DnType::OrganizationName, "Regent");
    Ok(params)
}

/// A new CA for a site, for ten years: it can only issue names of that site.
pub fn make_ca(site: &SiteName) -> Result<NewCa, TlsError> {
    let what = format!("the CA of site {site}");
    let key = KeyPair::generate().map_err(making(&what))?;
    let mut params = named(&format!("{site} Regent CA"), Vec::new(), &what)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let own = GeneralSubtree::DnsName(site_name(site));
    params.name_constraints = Some(NameConstraints { permitted_subtrees: vec![own], excluded_subtrees: vec![] });
    let certificate = lived(params, CA_LIFE).self_signed(&key).map_err(making(&what))?;
    Ok(NewCa { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
}

fn issuer(ca: &NewCa, what: &str) -> Result<Issuer<'static, KeyPair>, TlsError> {
    let key = KeyPair::from_pem(&ca.key_pem).map_err(making(what))?;
    Issuer::from_ca_cert_pem(&ca.certificate_pem, key).map_err(making(what))
}

fn signed(
    mut params: CertificateParams,
    usages: Vec<ExtendedKeyUsagePurpose>,
    life: Duration,
    key: &impl PublicKeyData,
    ca: &NewCa,
    what: &str,
) -> Result<String, TlsError> {
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = usages;
    params.use_authority_key_identifier_extension = true;
    let issuer = issuer(ca, what)?;
    Ok(lived(params, life).signed_by(key, &issuer).map_err(making(what))?.pem())
}

/// The certificate by which a site is server and client to other sites and server to
/// its agents, for two years, with a new key.
pub fn issue_site(site: &SiteName, ca: &NewCa) -> Result<NewCa, TlsError> {
    let what = format!("the certificate of site {site}");
    let key = KeyPair::generate().map_err(making(&what))?;
    let params = named(&site_name(site), vec![site_name(site), hub_name(site)], &what)?;
    let usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let certificate_pem = signed(params, usages, SITE_LIFE, &key, ca, &what)?;
    Ok(NewCa { certificate_pem, key_pem: key.serialize_pem() })
}

/// An agent's certificate for seven days. Only the public key is taken from the request:
/// the issuer names the node, whatever the request asks for.
pub fn issue_node(request_pem: &str, node: &NodeName, site: &SiteName, ca: &NewCa) -> Result<String, TlsError> {
    let what = format!("the certificate of node {node} of site {site}");
    let request = CertificateSigningRequestParams::from_pem(request_pem).map_err(making(&what))?;
    let name = node_name(node, site)?;
    let params = named("Regent agent", vec![name], &what)?;
    let usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    signed(params, usages, NODE_LIFE, &request.public_key, ca, &what)
}

/// A certificate request of a node's agent, and its key: the one given, or a new one that
/// never leaves the node.
pub fn make_node_request(node: &NodeName, key_pem: Option<&str>) -> Result<(String, String), TlsError> {
    let what = "the agent's certificate request";
    let key = match key_pem {
        Some(pem) => KeyPair::from_pem(pem),
        None => KeyPair::generate(),
    }
    .map_err(making(what))?;
    let params = named(&node.0, Vec::new(), what)?;
    let request = params.serialize_request(&key).and_then(|r| r.pem()).map_err(making(what))?;
    Ok((request, key.serialize_pem()))
}

/// The node that a certificate request says it is of. A claim, to be held against what
/// is known otherwise.
pub fn request_name(request_pem: &str) -> Result<String, TlsError> {
    let what = "certificate request";
    let request = CertificateSigningRequestParams::from_pem(request_pem).map_err(making(what))?;
    match request.params.distinguished_name.get(&DnType::CommonName) {
        Some(DnValue::Utf8String(name)) => Ok(name.clone()),
        _ => Err(TlsError::Unreadable { what: what.to_owned(), why: "its subject has no common name (UTF-8)".into() }),
    }
}

/// When the first certificate of a PEM text begins and ends, in seconds since 1970.
pub fn certificate_expiry(pem: &str) -> Result<(u64, u64), TlsError> {
    let bad = |why: String| TlsError::Unreadable { what: "certificate".into(), why };
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| bad(format!("{e:?}")))?;
    let (_, parsed) = X509Certificate::from_der(&der).map_err(|e| bad(e.to_string()))?;
    let seconds = |t: i64| u64::try_from(t).unwrap_or(0);
    Ok((seconds(parsed.validity().not_before.timestamp()), seconds(parsed.validity().not_after.timestamp())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::names::{node_of, site_of};

    fn der(pem: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
    }

    #[test]
    fn a_site_certificate_names_the_site_and_its_hub() {
        let site: SiteName = "ireland".parse().unwrap();
        let ca = make_ca(&site).unwrap();
        let certificate = issue_site(&site, &ca).unwrap();
        assert_eq!(site_of(&der(&certificate.certificate_pem)), Some(site.clone()));
        assert_eq!(node_of(&der(&certificate.certificate_pem), &site), None);
    }

    #[test]
    fn the_issuer_names_the_node_and_ignores_the_request() {
        let site: SiteName = "ireland".parse().unwrap();
        let ca = make_ca(&site).unwrap();
        let key = KeyPair::generate().unwrap();
        let greedy = CertificateParams::new(vec!["ireland.site.regent.dev".into()]).unwrap();
        let request = greedy.serialize_request(&key).unwrap().pem().unwrap();
        let pem = issue_node(&request, &NodeName("n1".into()), &site, &ca).unwrap();
        assert_eq!(node_of(&der(&pem), &site), Some(NodeName("n1".into())));
        assert_eq!(site_of(&der(&pem)), None);
        let (from, until) = certificate_expiry(&pem).unwrap();
        assert_eq!(until - from, 8 * 24 * 3600, "seven days from now, from a day ago");
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let site: SiteName = "ireland".parse().unwrap();
        let ca = make_ca(&site).unwrap();
        let error = issue_node("nonsense", &NodeName("n1".into()), &site, &ca).unwrap_err().to_string();
        assert!(error.contains("node n1") && error.contains("ireland"), "{error}");
    }
}
