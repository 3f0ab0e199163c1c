//! One stream to one hub.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use futures::{Stream, stream};
use regent_proto::v1;
use regent_proto::v1::hub_client::HubClient;
use regent_shell::tls::{TlsError, channel_to_hub};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::Status;

use crate::config::Config;
use crate::guard::Guard;
use crate::report::{Upward, hello, report};
use crate::state::Identity;

/// Until the hub has answered the call that opens the stream.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(2);
/// Instructions of one hub at one time at the guard; the hub sends others again.
const MAX_INSTRUCTIONS: usize = 256;
/// Certificates that may wait for the guard; an older one gives way.
const MAX_CERTIFICATES: usize = 8;

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The hub, or the way to it.
    #[error("{0}")]
    Status(Box<Status>),
    /// The hub said nothing.
    #[error("no answer within {ATTACH_TIMEOUT:?}")]
    Silent,
    /// The hub ended it in order.
    #[error("the hub ended the stream")]
    Ended,
    /// Certificates or addresses.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl From<Status> for StreamError {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

/// What a stream needs of the agent.
#[derive(Debug, Clone)]
pub struct Links {
    /// What goes up.
    pub upward: Upward,
    /// The guard.
    pub guard: Guard,
    /// Where the hubs' addresses go.
    pub peers: mpsc::Sender<v1::Peers>,
}

/// What has been sent on this stream, and what waits.
struct Outgoing {
    upward: Upward,
    confirmations: mpsc::Receiver<v1::Confirmation>,
    journal_id: Option<String>,
    nonce: bool,
    report: bool,
}

impl Outgoing {
    /// The next message; waits for one. Nonces go before reports: leases hang on them.
    async fn next(&mut self) -> Option<v1::from_agent::Message> {
        use v1::from_agent::Message;
        loop {
            let view = self.upward.guard.borrow().clone();
            if self.journal_id.as_ref() != Some(&view.state.journal_id) {
                self.journal_id = Some(view.state.journal_id.clone());
                return Some(Message::Hello(hello(&view)));
            }
            if let Ok(confirmation) = self.confirmations.try_recv() {
                return Some(Message::Confirmation(confirmation));
            }
            let nonce = if std::mem::take(&mut self.nonce) { *self.upward.nonce.borrow_and_update() } else { None };
            if let Some(nonce) = nonce {
                return Some(Message::Nonce(v1::Nonce { nonce: nonce.to_vec() }));
            }
            if std::mem::take(&mut self.report) {
                let guard = self.upward.guard.borrow_and_update().clone();
                let node = self.upward.node.borrow_and_update().clone();
                return Some(Message::Report(report(&guard, &node)));
            }
            tokio::select! {
                confirmation = self.confirmations.recv() => return Some(Message::Confirmation(confirmation?)),
                changed = self.upward.nonce.changed() => { changed.ok()?; self.nonce = true; }
                changed = self.upward.guard.changed() => { changed.ok()?; self.report = true; }
                changed = self.upward.node.changed() => { changed.ok()?; self.report = true; }
            }
        }
    }
}

fn outgoing(upward: Upward, confirmations: mpsc::Receiver<v1::Confirmation>) -> impl Stream<Item = v1::FromAgent> {
    let first = Outgoing { upward, confirmations, journal_id: None, nonce: true, report: true };
    stream::unfold(first, |mut outgoing| async move {
        let message = outgoing.next().await?;
        Some((v1::FromAgent { message: Some(message) }, outgoing))
    })
}

/// Opens a stream and serves it until it ends. `attached` is told once the hub has
/// said something.
pub async fn serve(
    hub: SocketAddr,
    config: &Config,
    identity: &Identity,
    links: &Links,
    attached: impl FnOnce(),
) -> Result<(), StreamError> {
    let own = identity.client();
    let channel = channel_to_hub(&hub.to_string(), &config.site, &config.anchor_pem, Some(&own), config.timing)?;
    let (confirm, confirmations) = mpsc::channel(MAX_INSTRUCTIONS);
    let mut client = HubClient::new(channel);
    let call = client.attach(outgoing(links.upward.clone(), confirmations));
    let answer = tokio::time::timeout(ATTACH_TIMEOUT, call).await.map_err(|_| StreamError::Silent)?;
    let mut messages = answer?.into_inner();
    let mut attached = Some(attached);
    let mut downward = Downward::new(links, confirm);
    loop {
        tokio::select! {
            message = messages.message() => {
                let message = message?.ok_or(StreamError::Ended)?;
                // A hub whose headers came but no message may be half dead.
                if let Some(tell) = attached.take() {
                    tell();
                }
                downward.take(message).await;
            }
            () = downward.work() => {}
        }
    }
}

/// What came down and is under way to the guard. Ends with its stream: a hub sends again.
struct Downward<'a> {
    links: &'a Links,
    confirm: mpsc::Sender<v1::Confirmation>,
    instructions: JoinSet<()>,
    under_way: Vec<v1::Instruction>,
    done: (mpsc::Sender<v1::Instruction>, mpsc::Receiver<v1::Instruction>),
    certificates: VecDeque<v1::NodeCertificate>,
    showing: JoinSet<()>,
}

impl<'a> Downward<'a> {
    fn new(links: &'a Links, confirm: mpsc::Sender<v1::Confirmation>) -> Self {
        Self {
            links,
            confirm,
            instructions: JoinSet::new(),
            under_way: Vec::new(),
            done: mpsc::channel(MAX_INSTRUCTIONS),
            certificates: VecDeque::new(),
            showing: JoinSet::new(),
        }
    }

    async fn take(&mut self, message: v1::ToAgent) {
        use v1::to_agent::Message;
        match message.message {
            Some(Message::Certificate(certificate)) => {
                if self.certificates.len() == MAX_CERTIFICATES {
                    self.certificates.pop_front();
                }
                self.certificates.push_back(certificate);
                self.show();
            }
            Some(Message::Instruction(instruction)) => self.instruct(instruction),
            Some(Message::Peers(peers)) => {
                // The agent is ending when nobody takes them.
                let _ = self.links.peers.send(peers).await;
            }
            // A newer hub may say more.
            None => {}
        }
    }

    /// Something came to its end.
    async fn work(&mut self) {
        tokio::select! {
            Some(done) = self.done.1.recv() => self.under_way.retain(|i| i != &done),
            Some(_) = self.instructions.join_next(), if !self.instructions.is_empty() => {}
            Some(_) = self.showing.join_next(), if !self.showing.is_empty() => self.show(),
        }
    }

    /// Shows the guard one certificate after the other, in their order.
    fn show(&mut self) {
        if !self.showing.is_empty() {
            return;
        }
        let Some(certificate) = self.certificates.pop_front() else { return };
        let guard = self.links.guard.clone();
        self.showing.spawn(async move {
            match guard.certify(certificate).await {
                Ok(judged) if judged.error.is_empty() => {}
                Ok(judged) => tracing::debug!(error = judged.error, "the guard does not count all of a certificate"),
                Err(status) => tracing::debug!(%status, "the guard can't be shown a certificate"),
            }
        });
    }

    fn instruct(&mut self, instruction: v1::Instruction) {
        if self.under_way.len() >= MAX_INSTRUCTIONS || self.under_way.contains(&instruction) {
            return;
        }
        self.under_way.push(instruction.clone());
        let (guard, confirm, done) = (self.links.guard.clone(), self.confirm.clone(), self.done.0.clone());
        self.instructions.spawn(async move {
            match guard.instruct(instruction.clone()).await {
                // The stream is over when nobody takes it.
                Ok(confirmation) => drop(confirm.send(confirmation).await),
                // The hub sends it again.
                Err(status) => tracing::debug!(%status, "the guard can't be given an instruction"),
            }
            drop(done.send(instruction).await);
        });
    }
}
