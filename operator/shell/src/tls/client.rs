//! Clients that know their servers.

use std::net::SocketAddr;
use std::time::Duration;

use regent_core::charter::SiteEntry;
use regent_core::ids::SiteName;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::{SiteIdentity, TlsError, hub_name, site_name};

/// How soon a channel notices that its other end is gone.
#[derive(Debug, Clone, Copy)]
pub struct ChannelTiming {
    /// For TCP and TLS together.
    pub connect: Duration,
    /// A ping is sent when nothing was heard for so long, idle or not. Without one a
    /// channel does not recover after a partition heals.
    pub keep_alive: Duration,
    /// Without an answer to it the connection is given up.
    pub keep_alive_timeout: Duration,
}

impl Default for ChannelTiming {
    fn default() -> Self {
        Self {
            connect: Duration::from_millis(600),
            keep_alive: Duration::from_millis(400),
            keep_alive_timeout: Duration::from_millis(800),
        }
    }
}

/// A client's certificate and key, PEM.
#[derive(Clone)]
pub struct ClientIdentity {
    /// The certificate chain.
    pub certificate_pem: String,
    /// Its key.
    pub key_pem: String,
}

impl std::fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientIdentity").finish_non_exhaustive()
    }
}

fn channel(
    address: &str,
    server_name: String,
    anchor_pem: &str,
    identity: Option<&ClientIdentity>,
    timing: ChannelTiming,
) -> Result<Channel, TlsError> {
    let address: SocketAddr = address.parse().map_err(|_| TlsError::BadAddress(address.to_owned()))?;
    let what = format!("the connection to {server_name} at {address}");
    let bad = |error: tonic::transport::Error| TlsError::Config { what: what.clone(), error: format!("{error:?}") };
    let mut tls =
        ClientTlsConfig::new().domain_name(server_name.clone()).ca_certificate(Certificate::from_pem(anchor_pem));
    if let Some(own) = identity {
        tls = tls.identity(Identity::from_pem(&own.certificate_pem, &own.key_pem));
    }
    let endpoint = Endpoint::from_shared(format!("https://{address}"))
        .map_err(bad)?
        .connect_timeout(timing.connect)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(timing.keep_alive)
        .keep_alive_timeout(timing.keep_alive_timeout)
        .keep_alive_while_idle(true)
        .tls_config(tls)
        .map_err(bad)?;
    Ok(endpoint.connect_lazy())
}

/// A channel to another site's operator at one of its addresses: it must prove that it
/// is that site, under that site's anchor. Connects with the first call, and again with
/// the next after a loss.
pub fn channel_to_site(
    address: &str,
    site: &SiteEntry,
    identity: &SiteIdentity,
    timing: ChannelTiming,
) -> Result<Channel, TlsError> {
    let own = ClientIdentity { certificate_pem: identity.certificate_pem.clone(), key_pem: identity.key_pem.clone() };
    channel(address, site_name(&site.name), &site.tls_anchor, Some(&own), timing)
}

/// A channel of an agent to a hub of its site; without an identity it can only enrol.
pub fn channel_to_hub(
    address: &str,
    site: &SiteName,
    anchor_pem: &str,
    identity: Option<&ClientIdentity>,
    timing: ChannelTiming,
) -> Result<Channel, TlsError> {
    channel(address, hub_name(site), anchor_pem, identity, timing)
}
