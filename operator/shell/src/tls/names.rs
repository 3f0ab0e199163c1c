//! Names in certificates.

use regent_core::ids::{NodeName, SiteName};
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::TlsError;

const ZONE: &str = ".site.regent.dev";
const NODE: &str = ".node.";

/// The name of a site to other sites.
pub fn site_name(site: &SiteName) -> String {
    format!("{site}{ZONE}")
}

/// The name of a site's hub to its agents.
pub fn hub_name(site: &SiteName) -> String {
    format!("hub.{site}{ZONE}")
}

/// The name of a node's agent to the hub of its site.
pub fn node_name(node: &NodeName, site: &SiteName) -> Result<String, TlsError> {
    let name = format!("{node}{NODE}{site}{ZONE}");
    if name.len() <= 253 && rustls::pki_types::DnsName::try_from(name.as_str()).is_ok() {
        Ok(name)
    } else {
        Err(TlsError::BadName { what: "node", value: node.0.clone() })
    }
}

/// The site of a name of the form `SITE.site.regent.dev`.
fn parse_site(name: &str) -> Option<SiteName> {
    name.strip_suffix(ZONE)?.parse().ok()
}

/// The node of a name of the form `NODE.node.SITE.site.regent.dev`, of that site.
fn parse_node(name: &str, site: &SiteName) -> Option<NodeName> {
    let node = name.strip_suffix(&format!("{NODE}{site}{ZONE}"))?;
    (!node.is_empty()).then(|| NodeName(node.to_owned()))
}

/// The DNS names of a certificate, as they are written in it.
fn dns_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let Ok(Some(san)) = parsed.subject_alternative_name() else { return Vec::new() };
    let dns = san.value.general_names.iter().filter_map(|n| match n {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    });
    dns.collect()
}

/// The one item, or none when there are several: a certificate speaks for one party.
fn only<T>(mut items: impl Iterator<Item = T>) -> Option<T> {
    let first = items.next()?;
    items.next().is_none().then_some(first)
}

/// The one site whose certificate this says it is.
pub(super) fn site_of(certificate: &CertificateDer<'_>) -> Option<SiteName> {
    only(dns_names(certificate).iter().filter_map(|n| parse_site(n)))
}

/// The one node of that site whose certificate this says it is.
pub(super) fn node_of(certificate: &CertificateDer<'_>, site: &SiteName) -> Option<NodeName> {
    only(dns_names(certificate).iter().filter_map(|n| parse_node(n, site)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(s: &str) -> SiteName {
        s.parse().unwrap()
    }

    #[test]
    fn a_name_says_one_thing_only() {
        assert_eq!(parse_site("ireland.site.regent.dev"), Some(site("ireland")));
        for other in ["hub.ireland.site.regent.dev", "a.node.ireland.site.regent.dev", ".site.regent.dev", "ireland"] {
            assert_eq!(parse_site(other), None, "{other}");
        }
        assert_eq!(parse_node("ip-10.eu.node.ireland.site.regent.dev", &site("ireland")).unwrap().0, "ip-10.eu");
        for other in ["a.node.france.site.regent.dev", "hub.ireland.site.regent.dev", ".node.ireland.site.regent.dev"] {
            assert_eq!(parse_node(other, &site("ireland")), None, "{other}");
        }
    }

    #[test]
    fn a_node_whose_name_is_too_long_is_refused_by_name() {
        let long = NodeName(vec!["a".repeat(60); 4].join("."));
        let error = node_name(&long, &site("ireland")).unwrap_err().to_string();
        assert!(error.contains("node") && error.contains("253"), "{error}");
    }
}
