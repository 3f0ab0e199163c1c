//! Leader election between the replicas of one site, by a Kubernetes Lease (L9).
//!
//! ```text
//!   Following --holder gone, or the Lease unchanged for its duration--> Leading
//!       ^                                                                  |
//!       +----------- another holder in the Lease, or resigned -------------+
//! ```
//!
//! A leader may act only within [`USABLE`] of *sending* its last successful update, on
//! both clocks: well below [`DURATION`], after which another may take the Lease. An
//! API server that is gone for longer makes the leader silent, and nobody else leads.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ObjectMeta, PostParams};
use regent_core::time::Moment;
use regent_shell::clock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// After so long without a change of the Lease another replica may take it.
pub const DURATION: Duration = Duration::from_secs(8);
/// T1: how long after sending a successful update the leader may act.
pub const USABLE: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(800);
/// An update that hasn't been answered by then is of unknown outcome.
const CALL: Duration = Duration::from_secs(3);

/// Why the Lease could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LeaderError {
    /// The API server said no, or something that is no Lease.
    #[error("Lease {name} in namespace {namespace}: {error}")]
    Api {
        /// The Lease.
        name: String,
        /// Its namespace.
        namespace: String,
        /// What went wrong.
        #[source]
        error: kube::Error,
    },
    /// The API server said nothing.
    #[error("Lease {name}: the API server has not answered for {} ms", CALL.as_millis())]
    Silent {
        /// The Lease.
        name: String,
    },
}

/// What this replica is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leadership {
    /// Another replica leads, or nobody is known to.
    Following {
        /// `NAME/IP` of the leader.
        leader: Option<String>,
    },
    /// This replica leads.
    Leading {
        /// Grows with each change of leader.
        term: u64,
        /// When it took the lead.
        since: Moment,
        /// When the last successful update was sent: usable until T1 later.
        sent: Moment,
    },
}

impl Leadership {
    /// The term, if this replica may act on something that it received at `at`.
    pub fn term_at(&self, at: Moment) -> Option<u64> {
        match self {
            Self::Leading { term, sent, .. } if !sent.after(USABLE).passed_for_stopping(at) => Some(*term),
            _ => None,
        }
    }

    /// The address of the replica that leads, if it is another one.
    pub fn leader_ip(&self) -> Option<&str> {
        match self {
            Self::Following { leader } => leader.as_deref()?.split_once('/').map(|(_, ip)| ip),
            Self::Leading { .. } => None,
        }
    }
}

/// One replica's part in the election.
pub struct Elector {
    api: Api<Lease>,
    namespace: String,
    name: String,
    identity: String,
    state: watch::Sender<Leadership>,
    /// The Lease as last seen, and since when it looks like that.
    seen: Option<(Lease, Moment)>,
}

impl Elector {
    /// An elector for the Lease `name`; `identity` is `NAME/IP` of this replica.
    pub fn new(client: kube::Client, namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity: identity.to_owned(),
            state: watch::Sender::new(Leadership::Following { leader: None }),
            seen: None,
        }
    }

    /// What this replica is, at any time.
    pub fn watch(&self) -> watch::Receiver<Leadership> {
        self.state.subscribe()
    }

    /// Takes part until cancelled, then resigns.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut failing = false;
        loop {
            match self.step().await {
                Ok(()) => failing = false,
                Err(e) if failing => tracing::debug!("{e}"),
                Err(e) => {
                    tracing::warn!("{e}");
                    failing = true;
                }
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
        self.resign().await;
    }

    /// Reads the Lease and renews it, takes it, or follows its holder.
    async fn step(&mut self) -> Result<(), LeaderError> {
        let now = clock::now();
        let Some(lease) = self.call(self.api.get_opt(&self.name)).await? else {
            return self.write(self.lease(1, None), now, true).await;
        };
        let leading = matches!(&*self.state.borrow(), Leadership::Leading { term, .. } if *term == term_of(&lease));
        let holder = holder_of(&lease);
        if leading && holder == Some(&self.identity) {
            let transitions = transitions_of(&lease);
            return self.write(self.lease(transitions, Some(lease)), clock::now(), false).await;
        }
        let since = match &self.seen {
            Some((seen, since)) if seen.spec == lease.spec => *since,
            _ => {
                self.seen = Some((lease.clone(), now));
                now
            }
        };
        if holder.is_none() || since.after(DURATION).passed_for_waiting(now) {
            let transitions = transitions_of(&lease).saturating_add(1);
            return self.write(self.lease(transitions, Some(lease)), clock::now(), true).await;
        }
        let leader = holder.filter(|h| *h != &self.identity).cloned();
        self.state.send_if_modified(|state| {
            let following = Leadership::Following { leader };
            let changed = *state != following;
            *state = following;
            changed
        });
        Ok(())
    }

    fn lease(&self, transitions: i32, over: Option<Lease>) -> Lease {
        let now = MicroTime(Timestamp::from_nanosecond(i128::from(clock::realtime_ns())).unwrap_or_default());
        let taken = over.as_ref().is_none_or(|l| transitions_of(l) != transitions);
        let before = over.as_ref().and_then(|l| l.spec.as_ref()).and_then(|s| s.acquire_time.clone());
        Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                namespace: Some(self.namespace.clone()),
                resource_version: over.and_then(|l| l.metadata.resource_version),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                acquire_time: if taken { Some(now.clone()) } else { before },
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
                lease_transitions: Some(transitions),
                renew_time: Some(now),
                ..LeaseSpec::default()
            }),
        }
    }

    /// Writes the Lease by compare-and-swap. A conflict means that another was first:
    /// the next step sees who.
    async fn write(&mut self, lease: Lease, sent: Moment, takes: bool) -> Result<(), LeaderError> {
        let term = term_of(&lease);
        let params = PostParams::default();
        let written = if lease.metadata.resource_version.is_some() {
            self.call(self.api.replace(&self.name, &params, &lease)).await
        } else {
            self.call(self.api.create(&params, &lease)).await
        };
        match written {
            Ok(_) => {}
            Err(LeaderError::Api { error: kube::Error::Api(status), .. }) if status.code == 409 => return Ok(()),
            Err(e) => return Err(e),
        }
        if takes {
            tracing::info!(lease = self.name, term, "leading");
            self.state.send_replace(Leadership::Leading { term, since: clock::now(), sent });
        } else {
            self.state.send_modify(|state| {
                if let Leadership::Leading { sent: last, .. } = state {
                    *last = sent;
                }
            });
        }
        Ok(())
    }

    /// Steps down: stops acting first, then frees the Lease, so that no successor waits.
    async fn resign(&mut self) {
        let was = self.state.send_replace(Leadership::Following { leader: None });
        let Leadership::Leading { term, .. } = was else { return };
        let Ok(Some(mut lease)) = self.call(self.api.get_opt(&self.name)).await else { return };
        if holder_of(&lease) != Some(&self.identity) || term_of(&lease) != term {
            return;
        }
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = None;
        }
        if let Err(e) = self.call(self.api.replace(&self.name, &PostParams::default(), &lease)).await {
            tracing::warn!("resigning: {e}");
        }
    }

    async fn call<T>(&self, call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, LeaderError> {
        match tokio::time::timeout(CALL, call).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                Err(LeaderError::Api { name: self.name.clone(), namespace: self.namespace.clone(), error })
            }
            Err(_) => Err(LeaderError::Silent { name: self.name.clone() }),
        }
    }
}

fn holder_of(lease: &Lease) -> Option<&String> {
    lease.spec.as_ref()?.holder_identity.as_ref().filter(|h| !h.is_empty())
}

fn transitions_of(lease: &Lease) -> i32 {
    lease.spec.as_ref().and_then(|s| s.lease_transitions).unwrap_or(0)
}

fn term_of(lease: &Lease) -> u64 {
    u64::try_from(transitions_of(lease)).unwrap_or(0)
}
