//! What the agent beside the guard asks, over their pod's own socket.
//!
//! The agent talks to the network, so nothing that it says is believed: certificates are
//! verified here, and its instructions can only stop things or demand more proof.

use std::pin::Pin;

use regent_core::message::NodeCertificate;
use regent_proto::v1;
use regent_proto::v1::guard_server::Guard;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};

use crate::input::Input;

/// Answers the agent.
#[derive(Debug)]
pub struct Agent {
    /// The guard.
    pub inputs: mpsc::Sender<Input>,
    /// Its state, whenever it changes.
    pub states: watch::Sender<v1::GuardState>,
}

fn stopping<E>(_: E) -> Status {
    Status::unavailable("the guard is stopping; ask again")
}

#[tonic::async_trait]
impl Guard for Agent {
    async fn new_nonce(&self, _: Request<v1::NewNonceRequest>) -> Result<Response<v1::NewNonceResponse>, Status> {
        let (reply, made) = oneshot::channel();
        self.inputs.send(Input::Nonce { reply }).await.map_err(stopping)?;
        let nonce = made.await.map_err(stopping)?.map_err(|e| Status::internal(format!("no randomness: {e}")))?;
        Ok(Response::new(v1::NewNonceResponse { nonce: nonce.to_vec() }))
    }

    async fn certify(&self, request: Request<v1::NodeCertificate>) -> Result<Response<v1::CertifyResponse>, Status> {
        let certificate = Box::new(NodeCertificate::try_from(request.into_inner())?);
        let (reply, judged) = oneshot::channel();
        self.inputs.send(Input::Certify { certificate, reply }).await.map_err(stopping)?;
        let (accepted, rejected) = judged.await.map_err(stopping)?;
        let accepted_groups = accepted.iter().map(ToString::to_string).collect();
        Ok(Response::new(v1::CertifyResponse { accepted_groups, error: rejected.join("; ") }))
    }

    async fn instruct(&self, request: Request<v1::Instruction>) -> Result<Response<v1::Confirmation>, Status> {
        let told = request.into_inner();
        let (group, instruction) = told.clone().try_into()?;
        let (reply, done) = oneshot::channel();
        self.inputs.send(Input::Instruct { group, instruction, reply }).await.map_err(stopping)?;
        let error = done.await.map_err(stopping)?.err().map(|e| e.to_string()).unwrap_or_default();
        Ok(Response::new(v1::Confirmation { instruction: Some(told), error }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::GuardState, Status>> + Send>>;

    async fn watch(&self, _: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        // Subscribed first, so that the state of now is made for it.
        let states = WatchStream::from_changes(self.states.subscribe());
        self.inputs.send(Input::Watch).await.map_err(stopping)?;
        Ok(Response::new(Box::pin(tokio_stream::StreamExt::map(states, Ok))))
    }
}
