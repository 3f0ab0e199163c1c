//! The gRPC side of the hub.

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, stream};
use regent_core::ids::NodeName;
use regent_proto::v1;
use regent_proto::v1::hub_server::{Hub, HubServer};
use regent_shell::tls::{SiteIdentity, grpc_server, hub_config, incoming, peer_node};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::HubError;
use super::enroll::{self, Authenticate};
use super::registry::{Link, Registry};
use super::report::NodeReport;

/// Reviews at one time: anybody may ask for one.
const MAX_ENROLLING: usize = 16;
/// A report of a full node with 4,096 images fits.
const MAX_MESSAGE_BYTES: usize = 2 << 20;

struct Service {
    registry: Arc<Registry>,
    identity: SiteIdentity,
    authenticate: Authenticate,
    enrolling: Semaphore,
    stop: CancellationToken,
}

pub(super) async fn serve(
    listener: TcpListener,
    registry: Arc<Registry>,
    identity: &SiteIdentity,
    authenticate: Authenticate,
    stop: CancellationToken,
) -> Result<(), HubError> {
    let connections = incoming(listener, hub_config(identity)?);
    let service = Service {
        registry,
        identity: identity.clone(),
        authenticate,
        enrolling: Semaphore::new(MAX_ENROLLING),
        stop: stop.clone(),
    };
    let hub = HubServer::new(service).max_decoding_message_size(MAX_MESSAGE_BYTES);
    grpc_server().add_service(hub).serve_with_incoming_shutdown(connections, stop.cancelled_owned()).await?;
    Ok(())
}

/// A node's stream; leaves the registry when either direction ends.
struct Attached {
    registry: Arc<Registry>,
    node: NodeName,
    link: Arc<Link>,
    stop: CancellationToken,
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.registry.detach(&self.node, &self.link);
        self.stop.cancel();
    }
}

impl Attached {
    /// What to send next; none once the node has too many streams, or the hub ends.
    async fn next(&self) -> Option<v1::ToAgent> {
        loop {
            if self.stop.is_cancelled() || !self.registry.is_attached(&self.node, &self.link) {
                return None;
            }
            if let Some(message) = self.link.next() {
                return Some(message);
            }
            tokio::select! {
                () = self.link.wake.notified() => {}
                () = self.stop.cancelled() => {}
            }
        }
    }
}

async fn read(
    registry: Arc<Registry>,
    node: NodeName,
    link: Arc<Link>,
    mut messages: Streaming<v1::FromAgent>,
    stop: CancellationToken,
) {
    loop {
        let message = tokio::select! {
            () = stop.cancelled() => break,
            message = messages.message() => message,
        };
        match message {
            Ok(Some(message)) => take(&registry, &node, &link, message),
            Ok(None) => break,
            Err(status) => {
                tracing::debug!(%node, %status, "stream of the node ended");
                break;
            }
        }
    }
    stop.cancel();
}

fn take(registry: &Registry, node: &NodeName, link: &Arc<Link>, message: v1::FromAgent) {
    use v1::from_agent::Message;
    match message.message {
        Some(Message::Hello(hello)) => registry.hello(node, link, hello),
        Some(Message::Nonce(nonce)) => match nonce.nonce.try_into() {
            Ok(nonce) => registry.nonce(node, link, nonce),
            Err(bytes) => tracing::warn!(%node, len = bytes.len(), "nonce of the node is not 32 bytes; it is ignored"),
        },
        Some(Message::Report(report)) => match NodeReport::try_from(report) {
            Ok(report) => registry.report(node, link, report),
            Err(error) => tracing::warn!(%node, error, "report of the node is ignored"),
        },
        Some(Message::Confirmation(v1::Confirmation { instruction, error })) => {
            match instruction.unwrap_or_default().try_into() {
                Ok(done) => registry.confirm(node, link, &done, &error),
                Err(error) => tracing::warn!(%node, %error, "confirmation of the node is ignored"),
            }
        }
        // A newer agent may say more.
        None => {}
    }
}

#[tonic::async_trait]
impl Hub for Service {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<v1::ToAgent, Status>> + Send>>;

    async fn enroll(&self, request: Request<v1::EnrollRequest>) -> Result<Response<v1::EnrollResponse>, Status> {
        let v1::EnrollRequest { token, csr_pem } = request.into_inner();
        enroll::check_sizes(&token, &csr_pem)?;
        let Ok(_place) = self.enrolling.try_acquire() else {
            return Err(Status::resource_exhausted(format!("{MAX_ENROLLING} agents are enrolling; try again")));
        };
        let node = (self.authenticate)(token).await?;
        let certificate_pem = enroll::issue(&self.identity, &node, &csr_pem)?;
        tracing::info!(%node, "agent enrolled");
        Ok(Response::new(v1::EnrollResponse { certificate_pem, node: node.0 }))
    }

    async fn attach(&self, request: Request<Streaming<v1::FromAgent>>) -> Result<Response<Self::AttachStream>, Status> {
        let (node, address) = peer_node(&request)?;
        let link = self.registry.attach(&node, address);
        let stop = self.stop.child_token();
        tracing::info!(%node, %address, "agent attached");
        let attached =
            Attached { registry: self.registry.clone(), node: node.clone(), link: link.clone(), stop: stop.clone() };
        tokio::spawn(read(self.registry.clone(), node, link, request.into_inner(), stop));
        let messages = stream::unfold(attached, |attached| async move {
            let message = attached.next().await?;
            Some((Ok(message), attached))
        });
        Ok(Response::new(Box::pin(messages)))
    }
}
