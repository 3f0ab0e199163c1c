//! Carries plans between sites.

use std::sync::Arc;
use std::time::Duration;

use regent_core::sign::Envelope;
use regent_proto::v1;
use tokio_util::sync::CancellationToken;

use super::Plans;
use crate::federation::client::{Peer, Peers};

/// How often another site is asked for plans that this one lacks.
const POLL: Duration = Duration::from_secs(2);
const CALL: Duration = Duration::from_secs(2);

/// Asks every other site for plans, and standbys for countersignatures, until cancelled.
/// Each site has a task of its own: one that hangs delays no other.
pub async fn exchange(plans: Arc<Plans>, peers: Peers, stop: CancellationToken) {
    let tasks = peers.iter().map(|peer| one(plans.clone(), peer.clone(), stop.clone()));
    futures::future::join_all(tasks).await;
}

async fn one(plans: Arc<Plans>, peer: Arc<Peer>, stop: CancellationToken) {
    let mut changed = plans.watch();
    loop {
        poll(&plans, &peer).await;
        countersignatures(&plans, &peer).await;
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(POLL) => {}
            // A new plan of ours has its countersignatures asked for at once.
            changed = changed.changed() => if changed.is_err() { return },
        }
    }
}

async fn poll(plans: &Plans, peer: &Peer) {
    let request = v1::PlansRequest { known: plans.known() };
    match peer.call(CALL, |mut client| async move { client.plans(request).await }).await {
        Ok(response) => {
            for envelope in response.plans {
                take(plans, peer, envelope.into()).await;
            }
        }
        Err(e) => tracing::debug!("asking for plans: {e}"),
    }
}

async fn countersignatures(plans: &Plans, peer: &Peer) {
    let unsigned = plans.unsigned().into_iter().filter(|(_, missing)| missing.contains(peer.site()));
    for (envelope, _) in unsigned {
        let message: v1::Envelope = envelope.into();
        match peer.call(CALL, |mut client| async move { client.countersign(message).await }).await {
            Ok(signed) => take(plans, peer, signed.into()).await,
            Err(e) => tracing::info!("asking for a countersignature: {e}"),
        }
    }
}

async fn take(plans: &Plans, peer: &Peer, envelope: Envelope) {
    if let Err(e) = plans.offer(&envelope).await {
        tracing::warn!(from = %peer.site(), "plan not taken: {e}");
    }
}
