//! A home and a partner that is its witness, with operators of their own.

use std::net::SocketAddr;

use regent_controller::app::{Pod, run_site};
use regent_controller::context::Context;
use regent_controller::witness;
use regent_shell::tls::install_provider;
use tokio_util::sync::CancellationToken;

use super::{Clusters, federation, free_address};

const LEASE_MS: u64 = 2000;

/// Sites `home` (0) and `partner` (1).
pub struct Two {
    pub clusters: Clusters,
    pub contexts: Vec<Context>,
    pub addresses: [SocketAddr; 2],
}

impl Two {
    /// Both API servers; no operator runs yet.
    pub async fn start() -> Self {
        install_provider();
        let clusters = Clusters::start(2).await;
        let addresses = [free_address(), free_address()];
        let contexts = federation(&[("home", addresses[0]), ("partner", addresses[1])], &["partner"], LEASE_MS);
        witness::install(&clusters.client(1)).await.unwrap();
        Self { clusters, contexts, addresses }
    }

    /// Starts a site's operator.
    pub fn operate(&self, i: usize) -> CancellationToken {
        let stop = CancellationToken::new();
        let (context, client, federation) = (self.contexts[i].clone(), self.clusters.client(i), self.addresses[i]);
        let (hub, views) = (free_address(), free_address());
        let pod = Pod { name: format!("{}-0", context.site), ip: federation.ip(), federation, hub, views };
        let stopped = stop.clone();
        tokio::spawn(async move { run_site(context, client, pod, stopped).await.unwrap() });
        stop
    }
}
