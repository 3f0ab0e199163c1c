//! How an agent becomes known to its hubs, and stays so.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use regent_core::sign::Digest;
use regent_proto::v1;
use regent_proto::v1::hub_client::HubClient;
use regent_shell::retry::{RetryPolicy, seed};
use regent_shell::tls::{TlsError, channel_to_hub, make_node_request};
use tokio::sync::watch;

use crate::config::Config;
use crate::state::{Age, Identity, State, StateError};

/// A review by a slow API server.
const ENROLL_TIMEOUT: Duration = Duration::from_secs(10);
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LONGEST_RETRY: Duration = Duration::from_secs(5);
/// While the old certificate serves, for days.
const LONGEST_RENEWAL: Duration = Duration::from_secs(120);
/// How often the certificate's age is looked at: many times in the third that is left.
const CHECK: Duration = Duration::from_secs(600);

/// Why an agent got no certificate.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// No token.
    #[error("token {path}: {error}; mount a projected ServiceAccount token of audience regent-hub there")]
    Token {
        /// Its file.
        path: String,
        /// What the system says.
        error: std::io::Error,
    },
    /// The hub refuses, or can't be reached.
    #[error("hub {hub} did not enrol this node: {}", status.message())]
    Refused {
        /// Which hub.
        hub: SocketAddr,
        /// What it says.
        status: Box<tonic::Status>,
    },
    /// The token is another node's.
    #[error(
        "the token is bound to node {token}, but this agent runs on node {own}; mount the token of the agent's own pod and pass its node in NODE_NAME"
    )]
    OtherNode {
        /// The token's node.
        token: String,
        /// This node.
        own: String,
    },
    /// Keys and certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The state folder.
    #[error(transparent)]
    State(#[from] StateError),
}

/// The kept identity, if it is this node's, under this anchor, and has not run out.
pub fn kept(config: &Config, state: &State) -> Option<Identity> {
    let identity = state.identity()?;
    let ours = identity.site == config.site.as_str()
        && identity.node == config.node.0
        && identity.anchor == Digest::of(config.anchor_pem.as_bytes());
    (ours && matches!(identity.age(), Ok(Age::Fresh | Age::Renew))).then_some(identity)
}

/// Keeps `identity` fresh for ever: enrols when there is none, and again at two thirds of
/// the certificate's life. The old one serves until the new one is there.
pub async fn keep(
    config: &Config,
    state: &State,
    identity: &watch::Sender<Option<Identity>>,
    peers: &watch::Receiver<BTreeSet<SocketAddr>>,
) {
    let policy = |longest| RetryPolicy::new(FIRST_RETRY, longest, seed(&config.node.0));
    let mut retry = policy(if identity.borrow().is_some() { LONGEST_RENEWAL } else { LONGEST_RETRY });
    let mut attempt = 0usize;
    loop {
        if matches!(identity.borrow().as_ref().map(Identity::age), Some(Ok(Age::Fresh))) {
            tokio::time::sleep(CHECK).await;
            continue;
        }
        // The Service leads to any hub that is there; the peers are those that were.
        let hubs: Vec<SocketAddr> = std::iter::once(config.fallback).chain(peers.borrow().iter().copied()).collect();
        let hub = hubs[attempt % hubs.len()];
        match enroll(config, hub).await.and_then(|new| state.keep_identity(&new).map(|()| new).map_err(Into::into)) {
            Ok(new) => {
                tracing::info!(%hub, node = %config.node, "enrolled");
                identity.send_replace(Some(new));
                retry = policy(LONGEST_RENEWAL);
                attempt = 0;
            }
            Err(error) => {
                tracing::warn!(%error, "not enrolled; it is tried again");
                attempt += 1;
                retry.wait().await;
            }
        }
    }
}

/// Asks a hub for a certificate with a new key and the token as it is now.
pub async fn enroll(config: &Config, hub: SocketAddr) -> Result<Identity, EnrollError> {
    let missing = |error| EnrollError::Token { path: config.token.display().to_string(), error };
    let token = tokio::fs::read_to_string(&config.token).await.map_err(missing)?.trim().to_owned();
    let (csr_pem, key_pem) = make_node_request(&config.node, None)?;
    let channel = channel_to_hub(&hub.to_string(), &config.site, &config.anchor_pem, None, config.timing)?;
    let mut request = tonic::Request::new(v1::EnrollRequest { token, csr_pem });
    request.set_timeout(ENROLL_TIMEOUT);
    let answer = HubClient::new(channel).enroll(request).await;
    let refused = |status| EnrollError::Refused { hub, status: Box::new(status) };
    let v1::EnrollResponse { certificate_pem, node } = answer.map_err(refused)?.into_inner();
    if node != config.node.0 {
        return Err(EnrollError::OtherNode { token: node, own: config.node.0.clone() });
    }
    Ok(Identity {
        site: config.site.to_string(),
        node,
        anchor: Digest::of(config.anchor_pem.as_bytes()),
        certificate_pem,
        key_pem,
    })
}
