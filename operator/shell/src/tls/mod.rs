//! Who is at the other end.
//!
//! Every site has a CA of its own, which the charter names as its anchor. There is no
//! common root: a certificate counts only if the CA of the very site whose name it
//! carries issued it.
//!
//! ```text
//!   SITE.site.regent.dev              the site to other sites, as server and as client
//!   hub.SITE.site.regent.dev          the site to its agents
//!   NODE.node.SITE.site.regent.dev    an agent to its site's hub
//! ```

mod client;
mod identity;
mod issue;
mod names;
mod server;
mod verifier;

pub use client::{ChannelTiming, ClientIdentity, channel_to_hub, channel_to_site};
pub use identity::SiteIdentity;
pub use issue::{NewCa, certificate_expiry, issue_node, issue_site, make_ca, make_node_request, request_name};
pub use names::{hub_name, node_name, site_name};
pub use server::{
    PartyConfig, Peer, PeerInfo, PeerStream, federation_config, grpc_server, hub_config, incoming, peer_node, peer_site,
};

/// Why a certificate, a key or a configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing or unreadable.
    #[error("{path}: {error}; it should hold {what}")]
    File {
        /// Which file.
        path: String,
        /// What it should hold.
        what: &'static str,
        /// What the system says.
        error: std::io::Error,
    },
    /// Text that should be PEM or a key.
    #[error("{what}: {why}")]
    Unreadable {
        /// What it should be.
        what: String,
        /// What is wrong.
        why: String,
    },
    /// A certificate could not be made.
    #[error("making {what}: {error}")]
    Issue {
        /// Which certificate.
        what: String,
        /// Why not.
        error: rcgen::Error,
    },
    /// rustls refuses the configuration.
    #[error("TLS configuration of {what}: {error}")]
    Config {
        /// Of what.
        what: String,
        /// Why.
        error: String,
    },
    /// The charter does not name the site.
    #[error("charter {charter:?} names no site {site}; check --site, or add the site to the charter")]
    UnknownSite {
        /// The charter's name.
        charter: String,
        /// The site.
        site: String,
    },
    /// The files are another site's.
    #[error(
        "the identity in {place} is not the one that the charter names for site {site}: {what} differs; mount the Secret regent-site of that site"
    )]
    NotThatSite {
        /// Where the identity was read.
        place: String,
        /// The site.
        site: String,
        /// Key or anchor.
        what: &'static str,
    },
    /// A name that can't be a host name.
    #[error("{what} {value:?} can't be part of a host name of at most 253 characters; rename it")]
    BadName {
        /// Whose name.
        what: &'static str,
        /// The name.
        value: String,
    },
    /// Not `IP:PORT`.
    #[error("address {0:?} is not IP:PORT; Regent looks up no names, so that no DNS is needed when it matters")]
    BadAddress(String),
}

/// Makes ring the process's TLS provider: first thing in every `main`.
pub fn install_provider() {
    // A second call in one process finds the first one's provider in place.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
