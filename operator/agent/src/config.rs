//! What an agent is started with.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use regent_core::charter::{Charter, SignedCharter};
use regent_core::ids::{NodeName, SiteName};
use regent_shell::tls::ChannelTiming;

/// Carries nonces up and certificates down between this node's guard and its site's hubs.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "regent-agent", version)]
pub struct Options {
    /// The name of this node's site in the charter
    #[arg(long, env = "REGENT_SITE")]
    pub site: SiteName,
    /// The name of this node
    #[arg(long, env = "NODE_NAME")]
    pub node: String,
    /// Where a hub answers, IP:PORT [default: the Service of the hub, from its environment variables]
    #[arg(long)]
    pub hub: Option<SocketAddr>,
    /// The signed charter (DSSE envelope in JSON)
    #[arg(long, default_value = "/etc/regent/charter/charter.json")]
    pub charter: PathBuf,
    /// The agent's projected ServiceAccount token, of audience regent-hub
    #[arg(long, default_value = "/var/run/secrets/regent/token")]
    pub token: PathBuf,
    /// Where the certificate, its key and the hubs' addresses are kept
    #[arg(long, default_value = "/var/lib/regent/agent")]
    pub state: PathBuf,
    /// The guard's socket
    #[arg(long, default_value = "/run/regent/guard.sock")]
    pub guard: PathBuf,
    #[command(flatten)]
    service: ServiceAddress,
}

/// How Kubernetes tells a pod where the Service `regent-hub` is, without DNS.
#[derive(Debug, Clone, clap::Args)]
struct ServiceAddress {
    #[arg(long, env = "REGENT_HUB_SERVICE_HOST", hide = true)]
    service_host: Option<IpAddr>,
    #[arg(long, env = "REGENT_HUB_SERVICE_PORT", hide = true)]
    service_port: Option<u16>,
}

/// Why an agent can't start.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The charter can't be used.
    #[error("charter {path}: {why}")]
    Charter {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The charter does not name the site.
    #[error("charter {charter} version {version} names no site {site}; pass --site with one of: {known}")]
    UnknownSite {
        /// The charter's name.
        charter: String,
        /// Its version.
        version: u64,
        /// The site.
        site: SiteName,
        /// The sites that it names.
        known: String,
    },
    /// Nobody says where a hub is.
    #[error(
        "no hub is named: pass --hub IP:PORT, or start the pod after the Service regent-hub exists (REGENT_HUB_SERVICE_HOST and _PORT)"
    )]
    NoHub,
    /// The node's name can't be in a certificate.
    #[error(transparent)]
    Name(#[from] regent_shell::tls::TlsError),
}

/// What every part of the agent knows.
#[derive(Debug, Clone)]
pub struct Config {
    /// This site.
    pub site: SiteName,
    /// This node.
    pub node: NodeName,
    /// The site's CA, PEM: what a hub must prove.
    pub anchor_pem: String,
    /// P: how often a fresh nonce is taken.
    pub period: Duration,
    /// The Service of the hub, or what stands for it.
    pub fallback: SocketAddr,
    /// The token's file.
    pub token: PathBuf,
    /// The state folder.
    pub state: PathBuf,
    /// The guard's socket.
    pub guard: PathBuf,
    /// How soon a lost hub is noticed.
    pub timing: ChannelTiming,
}

fn load_charter(path: &Path) -> Result<Charter, ConfigError> {
    let bad = |why: String| ConfigError::Charter { path: path.to_owned(), why };
    let text = std::fs::read(path).map_err(|e| bad(format!("{e}; mount the ConfigMap regent-charter there")))?;
    let signed: SignedCharter = serde_json::from_slice(&text)
        .map_err(|e| bad(format!("not a signed envelope in JSON ({e}); `kubectl regent charter init` makes one")))?;
    signed.verify_pinned().map_err(|e| bad(e.to_string()))
}

impl Options {
    /// Reads the charter and checks everything that can be checked before a hub is met.
    pub fn load(self) -> Result<Config, ConfigError> {
        let charter = load_charter(&self.charter)?;
        let unknown = || ConfigError::UnknownSite {
            charter: charter.name.clone(),
            version: charter.version,
            site: self.site.clone(),
            known: charter.sites.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(", "),
        };
        let entry = charter.site(&self.site).ok_or_else(unknown)?;
        let service = self.service.service_host.zip(self.service.service_port).map(SocketAddr::from);
        let node = NodeName(self.node);
        regent_shell::tls::node_name(&node, &self.site)?;
        Ok(Config {
            anchor_pem: entry.tls_anchor.clone(),
            period: charter.renewal_period(),
            fallback: self.hub.or(service).ok_or(ConfigError::NoHub)?,
            site: self.site,
            node,
            token: self.token,
            state: self.state,
            guard: self.guard,
            timing: ChannelTiming::default(),
        })
    }
}
