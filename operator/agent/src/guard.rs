//! The guard beside the agent, over a Unix socket.

use std::path::Path;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use regent_proto::v1;
use regent_proto::v1::guard_client::GuardClient;
use regent_shell::clock;
use regent_shell::retry::RetryPolicy;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status};

/// A guard answers in milliseconds; it is back within 100 ms when it was killed.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
const FIRST_RETRY: Duration = Duration::from_millis(20);
const LONGEST_RETRY: Duration = Duration::from_millis(250);
/// What is left of a lease changes with every certificate; hubs hear of that alone so often.
const LEASE_NEWS: Duration = Duration::from_secs(1);

/// The guard, as the agent knows it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GuardView {
    /// Whether it made the last nonce that was due.
    pub alive: bool,
    /// What it last said of its pods.
    pub state: v1::GuardState,
}

/// Calls to the guard. Clones share one connection, which is made again when it is lost.
#[derive(Debug, Clone)]
pub struct Guard {
    client: GuardClient<Channel>,
}

fn timed<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(CALL_TIMEOUT);
    request
}

impl Guard {
    /// The guard at a socket. Connects with the first call.
    pub fn at(socket: &Path) -> Self {
        let socket = socket.to_owned();
        // The address is a formality: the connector decides.
        let endpoint = Endpoint::from_static("http://guard.invalid");
        let channel = endpoint.connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        }));
        Self { client: GuardClient::new(channel) }
    }

    /// A fresh nonce: 32 bytes.
    pub async fn nonce(&self) -> Result<[u8; 32], Status> {
        let nonce = self.client.clone().new_nonce(timed(v1::NewNonceRequest {})).await?.into_inner().nonce;
        let len = nonce.len();
        nonce.try_into().map_err(|_| Status::internal(format!("the guard's nonce has {len} bytes where 32 are due")))
    }

    /// Shows a certificate.
    pub async fn certify(&self, certificate: v1::NodeCertificate) -> Result<v1::CertifyResponse, Status> {
        Ok(self.client.clone().certify(timed(certificate)).await?.into_inner())
    }

    /// Passes an instruction on. A retirement is confirmed only when all is dead, so this
    /// has no time-out. An error means that the guard can't be asked; what it refuses is
    /// a confirmation with its reason.
    pub async fn instruct(&self, instruction: v1::Instruction) -> Result<v1::Confirmation, Status> {
        match self.client.clone().instruct(instruction.clone()).await {
            Ok(confirmation) => Ok(confirmation.into_inner()),
            Err(status) if status.code() == Code::InvalidArgument => {
                Ok(v1::Confirmation { instruction: Some(instruction), error: status.message().to_owned() })
            }
            Err(status) => Err(status),
        }
    }

    /// Follows the guard's pods for ever.
    pub async fn follow(&self, view: &watch::Sender<GuardView>, seed: u64) {
        let mut retry = RetryPolicy::new(FIRST_RETRY, LONGEST_RETRY, seed);
        let mut told = clock::now();
        loop {
            match self.client.clone().watch(v1::WatchRequest {}).await {
                Ok(states) => {
                    let mut states = states.into_inner();
                    while let Ok(Some(state)) = states.message().await {
                        retry.reset();
                        let due = told.after(LEASE_NEWS).passed_for_waiting(clock::now());
                        if due || !differ_in_leases_alone(&view.borrow().state, &state) {
                            told = clock::now();
                            set(view, |v| &mut v.state, state);
                        }
                    }
                }
                Err(status) => tracing::debug!(%status, "the guard can't be asked for its pods"),
            }
            retry.wait().await;
        }
    }
}

/// Sets one field, and wakes those who watch if that changed anything.
pub(crate) fn set<T: PartialEq>(view: &watch::Sender<GuardView>, field: impl Fn(&mut GuardView) -> &mut T, to: T) {
    view.send_if_modified(|v| {
        let field = field(v);
        let changed = *field != to;
        *field = to;
        changed
    });
}

/// Whether nothing but `lease_left_ms` differs.
fn differ_in_leases_alone(old: &v1::GuardState, new: &v1::GuardState) -> bool {
    let same = |(a, b): (&v1::GatePod, &v1::GatePod)| {
        v1::GatePod { lease_left_ms: 0, ..a.clone() } == v1::GatePod { lease_left_ms: 0, ..b.clone() }
    };
    old.journal_id == new.journal_id && old.pods.len() == new.pods.len() && old.pods.iter().zip(&new.pods).all(same)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_state_is_news_and_the_rest_of_its_lease_is_not() {
        let state = |state: v1::PodState, lease_left_ms| v1::GuardState {
            journal_id: "b".into(),
            pods: vec![v1::GatePod { uid: "u".into(), state: state.into(), lease_left_ms, ..Default::default() }],
        };
        let (running, frozen) = (v1::PodState::Running, v1::PodState::Frozen);
        assert!(differ_in_leases_alone(&state(running, 1), &state(running, 2)));
        assert!(!differ_in_leases_alone(&state(running, 1), &state(frozen, 1)));
        assert!(!differ_in_leases_alone(&v1::GuardState::default(), &state(running, 1)));
    }
}
