//! The witness of this site: one process answers, the others pass on to it (L9).
//!
//! ```text
//!   Federation.Lease --> leads?  yes --> Running (core, records in ControlLeases)
//!                          | no
//!                          +--> the leader's replica, at the address in the Lease
//! ```
//!
//! Outside a cluster there is one process and no election.

mod running;
mod store;

pub use running::Running;
pub use store::{MARKER, install};

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use regent_core::ids::GroupKey;
use regent_core::message::Submission;
use regent_core::sign::{Digest, Envelope};
use regent_core::time::Moment;
use regent_lease::witness::{RequestError, StartError};
use regent_proto::v1;
use regent_shell::clock;
use regent_shell::retry::{RetryPolicy, seed};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::context::Context;
use crate::federation::client::{CallError, Peer, Peers};
use crate::leader::Leadership;
use crate::objects::ObjectError;

/// The Lease by which the replicas elect the one that answers.
pub const LEASE: &str = "regent-witness";

/// Why a witness can't start.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// Its records can't be read.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// They are not what the core can start with.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The kernel does not tell its boot identity.
    #[error("/proc/sys/kernel/random/boot_id: {0}; the witness needs it to know its clocks from those before a reboot")]
    BootId(#[source] std::io::Error),
    /// The charter gives this site no address.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// What this process is to its site's witness.
#[derive(Clone)]
enum Role {
    /// Nobody leads that this process knows.
    Nobody,
    /// It answers.
    Leading(Arc<Running>),
    /// That replica answers.
    Following(Arc<Peer>),
}

/// The witness of this site, as the rest of the operator and other sites see it.
pub struct WitnessService {
    context: Arc<Context>,
    role: RwLock<Role>,
    forward_within: Duration,
}

fn refused(e: RequestError) -> Status {
    match &e {
        RequestError::NotLeading(_) => Status::unavailable(e.to_string()),
        RequestError::Sign(_) | RequestError::UnknownSite(_) => Status::permission_denied(e.to_string()),
        _ => Status::invalid_argument(e.to_string()),
    }
}

fn passed_on(e: CallError) -> Status {
    match e {
        CallError::Failed { status, .. } => *status,
        other => Status::unavailable(other.to_string()),
    }
}

impl WitnessService {
    /// A witness that nobody leads yet.
    pub fn new(context: Arc<Context>) -> Self {
        let forward_within = context.charter.lease_duration();
        Self { context, role: RwLock::new(Role::Nobody), forward_within }
    }

    fn role(&self) -> Role {
        self.role.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, role: Role) {
        *self.role.write().unwrap_or_else(PoisonError::into_inner) = role;
    }

    /// The replica to pass on to; what was passed on already is never passed on again.
    fn leader(&self, forwarded: bool) -> Result<Arc<Peer>, Status> {
        match self.role() {
            Role::Following(peer) if !forwarded => Ok(peer),
            _ => Err(Status::unavailable(format!(
                "the witness of site {} has no leader at the moment",
                self.context.site
            ))),
        }
    }

    fn leading(&self) -> Option<Arc<Running>> {
        match self.role() {
            Role::Leading(running) => Some(running),
            Role::Nobody | Role::Following(_) => None,
        }
    }

    /// Answers a submission, here or by the replica that leads.
    pub async fn submit(&self, submission: Submission, received: Moment, forwarded: bool) -> Result<Envelope, Status> {
        if let Some(running) = self.leading() {
            return running.submit(&submission, received).await.map_err(refused);
        }
        let peer = self.leader(forwarded)?;
        let message: v1::Submission = submission.into();
        let answer = peer.call(self.forward_within, |mut client| async move { client.lease(message).await }).await;
        answer.map(Into::into).map_err(passed_on)
    }

    /// What the witness knows of one group, or of all, as JSON.
    pub async fn explain(&self, group: Option<GroupKey>, forwarded: bool) -> Result<String, Status> {
        if let Some(running) = self.leading() {
            return serde_json::to_string(&running.view(group.as_ref())).map_err(|e| Status::internal(e.to_string()));
        }
        let peer = self.leader(forwarded)?;
        let message = v1::ExplainRequest { group: group.map(|g| g.to_string()).unwrap_or_default() };
        let answer = peer.call(self.forward_within, |mut client| async move { client.explain(message).await }).await;
        answer.map(|a| a.json).map_err(passed_on)
    }

    /// The witness's signed state, for one that recovers (L8).
    pub async fn state(&self, nonce: Digest, forwarded: bool) -> Result<Envelope, Status> {
        if let Some(running) = self.leading() {
            if !running.leads() {
                return Err(refused(RequestError::NotLeading(self.context.site.clone())));
            }
            return Ok(running.state(nonce));
        }
        let peer = self.leader(forwarded)?;
        let message = v1::WitnessStateRequest { nonce: nonce.to_string() };
        let answer =
            peer.call(self.forward_within, |mut client| async move { client.witness_state(message).await }).await;
        answer.map(Into::into).map_err(passed_on)
    }

    /// The only process of its site: answers until cancelled.
    pub async fn run_alone(
        &self,
        client: &kube::Client,
        peers: Peers,
        stop: CancellationToken,
    ) -> Result<(), WitnessError> {
        let running = Running::start(self.context.clone(), client, None).await?;
        self.set(Role::Leading(running.clone()));
        running.run(peers, stop).await;
        self.set(Role::Nobody);
        Ok(())
    }

    /// One of several replicas: answers while it leads, until cancelled.
    /// `port` is where every replica answers other sites.
    pub async fn run_elected(
        &self,
        client: &kube::Client,
        peers: Peers,
        port: u16,
        mut leadership: watch::Receiver<Leadership>,
        stop: CancellationToken,
    ) {
        let mut retry =
            RetryPolicy::new(Duration::from_millis(100), Duration::from_secs(2), seed(self.context.site.as_str()));
        let mut led: Option<(u64, CancellationToken)> = None;
        loop {
            let state = leadership.borrow_and_update().clone();
            let mut failed = false;
            match state {
                Leadership::Leading { term, sent, .. } => match (&led, self.leading()) {
                    (Some((led_term, _)), Some(running)) if *led_term == term => {
                        running.confirm_lead(sent);
                        if state.term_at(clock::now()).is_some() && !running.leads() {
                            tracing::error!("another witness process of this site has written since; starting again");
                            if let Some((_, stop)) = led.take() {
                                stop.cancel();
                            }
                            failed = true;
                        }
                    }
                    _ => match Running::start(self.context.clone(), client, Some(sent)).await {
                        Ok(running) => {
                            retry.reset();
                            let stop = stop.child_token();
                            tokio::spawn(running.clone().run(peers.clone(), stop.clone()));
                            self.set(Role::Leading(running));
                            led = Some((term, stop));
                        }
                        Err(e) => {
                            tracing::error!("{e}");
                            failed = true;
                        }
                    },
                },
                Leadership::Following { .. } => {
                    if let Some((_, stop)) = led.take() {
                        stop.cancel();
                    }
                    self.set(self.follow(&state, port));
                }
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = retry.wait(), if failed => {}
                changed = leadership.changed() => if changed.is_err() { break },
            }
        }
        self.set(Role::Nobody);
    }

    fn follow(&self, state: &Leadership, port: u16) -> Role {
        let Some((ip, entry)) = state.leader_ip().zip(self.context.charter.site(&self.context.site)) else {
            return Role::Nobody;
        };
        let address = match ip.parse() {
            Ok(ip) => std::net::SocketAddr::new(ip, port).to_string(),
            Err(e) => {
                tracing::error!("Lease {LEASE}: its holder's address {ip:?} is none: {e}");
                return Role::Nobody;
            }
        };
        match Peer::at(&self.context, entry, &[address]) {
            Ok(peer) => Role::Following(Arc::new(peer)),
            Err(e) => {
                tracing::error!("following the witness's leader: {e}");
                Role::Nobody
            }
        }
    }

    /// Whether this site votes.
    pub fn is_needed(context: &Context) -> bool {
        context.charter.is_witness(&context.site)
    }
}
