//! Answers other sites.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use futures::future::BoxFuture;
use regent_api::ControlLeaseStatus;
use regent_core::ids::{Epoch, GroupKey, SiteName};
use regent_core::message::{Request as LeaseRequest, Submission};
use regent_core::sign::{Digest, Envelope};
use regent_kinds::object::shortened;
use regent_proto::v1;
use regent_proto::v1::federation_server::{Federation, FederationServer};
use regent_shell::clock;
use regent_shell::tls::{TlsError, federation_config, grpc_server, incoming, peer_site};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::context::Context;
use crate::lease::LeaseShell;
use crate::objects::ControlLeases;
use crate::observer::Observer;
use crate::plans::Plans;
use crate::witness::WitnessService;

/// Streams of one connection: a peer's calls to one replica, with room for repeats.
const MAX_STREAMS: u32 = 64;
/// The largest message: a submission of 10,000 groups with its proof and plans.
const MAX_MESSAGE: usize = 32 << 20;
/// A bundle travels in pieces of this size.
const CHUNK: usize = 256 << 10;
/// Groups that are asked about at once.
pub const MAX_ASKED: usize = 10_000;
/// Why there is no bundle, in bytes.
const MAX_NOTICE: usize = 1024;

/// What this site answers to the standbys of the groups that it runs.
pub trait Bundles: Send + Sync + 'static {
    /// What is held of a group, or runs, unless the caller has that one already.
    fn bundle(&self, caller: SiteName, group: GroupKey, have: String) -> BoxFuture<'_, Result<Answer, Status>>;
    /// What a standby holds ready.
    fn readiness(&self, caller: SiteName, report: v1::ReadinessReport) -> BoxFuture<'_, Result<(), Status>>;
}

/// A signed bundle, as it is sent.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// Digest of home's bundle.
    pub digest: Digest,
    /// The envelope's bytes.
    pub data: Arc<Vec<u8>>,
    /// What people changed of it here, where this is not its home.
    pub amendment: Option<Envelope>,
}

/// What a standby gets that asks for a bundle.
#[derive(Debug, Clone)]
pub enum Answer {
    /// One that it hasn't.
    Bundle(Bundle),
    /// Nothing new; why, if that is more than that the caller has it.
    Nothing(Option<String>),
}

/// Everything that other sites may ask.
#[derive(Clone)]
pub struct Services {
    /// This site.
    pub context: Arc<Context>,
    /// The witness, if this site is one.
    pub witness: Option<Arc<WitnessService>>,
    /// The plans that this site holds.
    pub plans: Arc<Plans>,
    /// Who sees whom.
    pub observer: Arc<Observer>,
    /// Holder and candidate, at full sites.
    pub lease: Option<Arc<LeaseShell>>,
    /// This site's `ControlLeases`, at full sites.
    pub leases: Option<ControlLeases>,
    /// The mirror, at full sites.
    pub bundles: Option<Arc<dyn Bundles>>,
}

/// Why the server can't serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken or not this machine's.
    #[error("listening for other sites at {address}: {error}; choose another --federation-listen or --listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        #[source]
        error: std::io::Error,
    },
    /// The keys can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The server failed.
    #[error("serving other sites: {0}")]
    Serve(#[from] tonic::transport::Error),
}

/// Serves other sites until cancelled.
pub async fn serve(listen: SocketAddr, services: Services, stop: CancellationToken) -> Result<(), ServeError> {
    let config = federation_config(&services.context.identity, &services.context.charter)?;
    let listener = TcpListener::bind(listen).await.map_err(|error| ServeError::Listen { address: listen, error })?;
    tracing::info!(%listen, "answering other sites");
    let service =
        FederationServer::new(services).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE);
    grpc_server()
        .max_concurrent_streams(MAX_STREAMS)
        .add_service(service)
        .serve_with_incoming_shutdown(incoming(listener, config), stop.cancelled_owned())
        .await?;
    Ok(())
}

impl Services {
    fn witness(&self) -> Result<&Arc<WitnessService>, Status> {
        self.witness.as_ref().ok_or_else(|| {
            Status::failed_precondition(format!("site {} is no witness of the charter", self.context.site))
        })
    }

    fn bundles(&self) -> Result<&Arc<dyn Bundles>, Status> {
        self.bundles.as_ref().ok_or_else(|| {
            Status::failed_precondition(format!(
                "site {} mirrors nothing: its operator runs as a witness only",
                self.context.site
            ))
        })
    }
}

fn group_key(field: &str, text: &str) -> Result<GroupKey, Status> {
    text.parse().map_err(|e| Status::invalid_argument(format!("{field}: {e}")))
}

#[tonic::async_trait]
impl Federation for Services {
    async fn lease(&self, request: Request<v1::Submission>) -> Result<Response<v1::Envelope>, Status> {
        // Promises count from here (L3).
        let received = clock::now();
        let peer = peer_site(&request)?;
        let submission = Submission::try_from(request.into_inner())?;
        let claimed: LeaseRequest = submission.request.peek().map_err(|e| Status::invalid_argument(e.to_string()))?;
        let forwarded = peer == self.context.site;
        if claimed.site != peer && !forwarded {
            let text = format!("site {peer} sent a lease request of site {}; each site sends its own", claimed.site);
            return Err(Status::permission_denied(text));
        }
        let answer = self.witness()?.submit(submission, received, forwarded).await?;
        Ok(Response::new(answer.into()))
    }

    async fn plans(&self, request: Request<v1::PlansRequest>) -> Result<Response<v1::PlansResponse>, Status> {
        peer_site(&request)?;
        let plans = self.plans.missing(&request.into_inner().known);
        Ok(Response::new(v1::PlansResponse { plans: plans.into_iter().map(Into::into).collect() }))
    }

    async fn countersign(&self, request: Request<v1::Envelope>) -> Result<Response<v1::Envelope>, Status> {
        peer_site(&request)?;
        let signed = self.plans.countersign(request.into_inner().into()).await?;
        Ok(Response::new(signed.into()))
    }

    type BundleStream = Pin<Box<dyn Stream<Item = Result<v1::BundleChunk, Status>> + Send>>;

    async fn bundle(&self, request: Request<v1::BundleRequest>) -> Result<Response<Self::BundleStream>, Status> {
        let caller = peer_site(&request)?;
        let v1::BundleRequest { group, have_digest } = request.into_inner();
        let answer = self.bundles()?.bundle(caller, group_key("group", &group)?, have_digest).await?;
        let Bundle { digest, data, amendment } = match answer {
            Answer::Bundle(bundle) => bundle,
            Answer::Nothing(why) => {
                let told = why.map(|w| shortened(&w, MAX_NOTICE).to_owned());
                let chunk = told.map(|notice| Ok(v1::BundleChunk { notice, ..v1::BundleChunk::default() }));
                return Ok(Response::new(Box::pin(futures::stream::iter(chunk))));
            }
        };
        let digest = digest.to_string();
        let pieces = (0..data.len().div_ceil(CHUNK)).map(move |i| {
            let piece = data.get(i * CHUNK..data.len().min((i + 1) * CHUNK)).unwrap_or_default();
            let amendment = amendment.clone().filter(|_| i == 0).map(Into::into);
            Ok(v1::BundleChunk { digest: digest.clone(), data: piece.to_vec(), notice: String::new(), amendment })
        });
        Ok(Response::new(Box::pin(futures::stream::iter(pieces))))
    }

    async fn newer(&self, request: Request<v1::NewerRequest>) -> Result<Response<v1::NewerResponse>, Status> {
        let caller = peer_site(&request)?;
        let (bundles, held) = (self.bundles()?, request.into_inner().held);
        if held.len() > MAX_ASKED {
            let text = format!("held: {} groups are more than the limit of {MAX_ASKED}; ask in parts", held.len());
            return Err(Status::invalid_argument(text));
        }
        let mut news = Vec::new();
        for v1::BundleRequest { group, have_digest } in held {
            let answer = bundles.bundle(caller.clone(), group_key("group", &group)?, have_digest).await;
            let (newer, notice) = match answer {
                Ok(Answer::Nothing(None)) => continue,
                Ok(Answer::Nothing(Some(why))) => (false, shortened(&why, MAX_NOTICE).to_owned()),
                // A refusal is said in full where the group is asked for by itself.
                Ok(Answer::Bundle(_)) | Err(_) => (true, String::new()),
            };
            news.push(v1::GroupNews { group, newer, notice });
        }
        Ok(Response::new(v1::NewerResponse { news }))
    }

    async fn readiness(&self, request: Request<v1::ReadinessReport>) -> Result<Response<v1::ReadinessAck>, Status> {
        let caller = peer_site(&request)?;
        self.bundles()?.readiness(caller, request.into_inner()).await?;
        Ok(Response::new(v1::ReadinessAck {}))
    }

    async fn released(&self, request: Request<v1::ReleasedNotice>) -> Result<Response<v1::ReleasedAck>, Status> {
        let caller = peer_site(&request)?;
        let v1::ReleasedNotice { group, epoch } = request.into_inner();
        let epoch: Epoch = epoch.parse().map_err(|e| Status::invalid_argument(format!("epoch: {e}")))?;
        let group = group_key("group", &group)?;
        let lease = self.lease.as_ref().ok_or_else(|| {
            Status::failed_precondition(format!(
                "site {} runs no groups: its operator runs as a witness only",
                self.context.site
            ))
        })?;
        if !lease.handed_over(&caller, &group, epoch) {
            return Err(Status::permission_denied(format!(
                "epoch {epoch} of group {group} is not site {caller}'s to release"
            )));
        }
        // For the other replica too, which may be the one that records what comes of it.
        if let Some(leases) = &self.leases {
            let note = |s: &mut ControlLeaseStatus| {
                s.handed_over = Some(epoch.to_string());
                true
            };
            if let Err(e) = leases.update(&group, note).await {
                tracing::debug!("{e}");
            }
        }
        Ok(Response::new(v1::ReleasedAck {}))
    }

    async fn heartbeat(
        &self,
        request: Request<v1::HeartbeatRequest>,
    ) -> Result<Response<v1::HeartbeatResponse>, Status> {
        let caller = peer_site(&request)?;
        Ok(Response::new(self.observer.answer(&caller, request.into_inner())))
    }

    async fn explain(&self, request: Request<v1::ExplainRequest>) -> Result<Response<v1::ExplainResponse>, Status> {
        let forwarded = peer_site(&request)? == self.context.site;
        let group = match request.into_inner().group.as_str() {
            "" => None,
            text => Some(group_key("group", text)?),
        };
        let json = self.witness()?.explain(group, forwarded).await?;
        Ok(Response::new(v1::ExplainResponse { json }))
    }

    async fn witness_state(&self, request: Request<v1::WitnessStateRequest>) -> Result<Response<v1::Envelope>, Status> {
        let forwarded = peer_site(&request)? == self.context.site;
        let nonce = Digest::try_from(request.into_inner().nonce)
            .map_err(|e| Status::invalid_argument(format!("nonce: {e}")))?;
        let state = self.witness()?.state(nonce, forwarded).await?;
        Ok(Response::new(state.into()))
    }
}
