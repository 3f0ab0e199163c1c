//! An agent from its start to its end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use regent_shell::retry::seed;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use crate::config::Config;
use crate::guard::{Guard, GuardView, set};
use crate::node::NodeStatus;
use crate::report::Upward;
use crate::state::{State, StateError};
use crate::stream::Links;
use crate::{enroll, hubs, node};

/// Runs for ever; whoever wants it to end drops the future.
pub async fn run(config: Config) -> Result<(), StateError> {
    let config = Arc::new(config);
    let state = State::open(&config.state)?;
    let guard = Guard::at(&config.guard);
    let (nonce, nonces) = watch::channel(None);
    let (view, views) = watch::channel(GuardView::default());
    let (status, statuses) = watch::channel(NodeStatus::default());
    let identity = watch::Sender::new(enroll::kept(&config, &state));
    let known = watch::Sender::new(state.peers().into_iter().collect::<BTreeSet<_>>());
    let (peers, told) = mpsc::channel(4);
    let upward = Upward { nonce: nonces, guard: views, node: statuses };
    let links = Links { upward, guard: guard.clone(), peers };
    let name_seed = seed(&config.node.0);
    let peers_known = known.subscribe();
    tokio::join!(
        nonces_for_ever(&guard, &nonce, &view, config.period, name_seed),
        guard.follow(&view, name_seed),
        node::follow(&config.node, &status, name_seed),
        enroll::keep(&config, &state, &identity, &peers_known),
        hubs::keep(config.clone(), &state, links, told, identity.subscribe(), &known),
    );
    Ok(())
}

/// A fresh nonce each P. The first comes after a part of P that the node's name chooses:
/// nodes that start together don't speak together.
async fn nonces_for_ever(
    guard: &Guard,
    nonce: &watch::Sender<Option<[u8; 32]>>,
    view: &watch::Sender<GuardView>,
    period: Duration,
    seed: u64,
) {
    let offset = period.mul_f64((seed % 1000) as f64 / 1000.0);
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + offset, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        // A guard that hangs must not hold up the nonce that follows.
        let made = tokio::time::timeout(period, guard.nonce()).await;
        set(view, |v| &mut v.alive, matches!(made, Ok(Ok(_))));
        match made {
            Ok(Ok(fresh)) => drop(nonce.send_replace(Some(fresh))),
            Ok(Err(status)) => tracing::debug!(%status, "no nonce from the guard"),
            Err(_) => tracing::warn!("the guard made no nonce within {period:?}"),
        }
    }
}
