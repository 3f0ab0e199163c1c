//! Servers that know their clients.
//!
//! tonic's own TLS takes no verifier of ours, so connections are accepted here and
//! handed to tonic with the peer's name attached.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use regent_core::charter::Charter;
use regent_core::ids::{NodeName, SiteName};
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Server;
use tonic::transport::server::Connected;

use super::names::{node_of, site_of};
use super::verifier::PartyVerifier;
use super::{SiteIdentity, TlsError};

/// Handshakes at one time: each costs a signature, and strangers may ask for them.
const MAX_HANDSHAKES: usize = 256;
/// A client that can't finish a handshake by then holds a place for nothing.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a server asks an idle client whether it is there, and how long it waits.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);
/// After an accept that failed for want of something (file descriptors, memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Who is at the other end, as its certificate proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// A site of the charter.
    Site(SiteName),
    /// A node of this site.
    Node(NodeName),
    /// Nobody that we know: no certificate was shown.
    Stranger,
}

/// What the server knows of a connection; an extension of each of its requests.
#[derive(Debug, Clone)]
pub struct PeerInfo {
    peer: Peer,
    address: SocketAddr,
}

/// A connection whose handshake is done.
#[derive(Debug)]
pub struct PeerStream {
    inner: TlsStream<TcpStream>,
    info: PeerInfo,
}

impl Connected for PeerStream {
    type ConnectInfo = PeerInfo;
    fn connect_info(&self) -> PeerInfo {
        self.info.clone()
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// A server's TLS, and how its clients' names are read.
#[derive(Clone)]
pub struct PartyConfig {
    tls: Arc<ServerConfig>,
    /// The site whose nodes the clients are; none when they are sites.
    nodes_of: Option<SiteName>,
}

fn config(identity: &SiteIdentity, verifier: PartyVerifier, what: &str) -> Result<Arc<ServerConfig>, TlsError> {
    let mut tls = ServerConfig::builder()
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(identity.chain()?, identity.private_key()?)
        .map_err(|e| TlsError::Config { what: what.to_owned(), error: e.to_string() })?;
    tls.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(tls))
}

/// The federation's server: a client must be a site of the charter, under that site's
/// own anchor. Any other is refused in the handshake.
pub fn federation_config(identity: &SiteIdentity, charter: &Charter) -> Result<PartyConfig, TlsError> {
    let tls = config(identity, PartyVerifier::of_sites(charter)?, "federation")?;
    Ok(PartyConfig { tls, nodes_of: None })
}

/// The hub's server: a client is a node of this site, or a stranger who may only enrol.
pub fn hub_config(identity: &SiteIdentity) -> Result<PartyConfig, TlsError> {
    let verifier = PartyVerifier::of_nodes(&identity.site, &identity.ca.certificate_pem)?;
    Ok(PartyConfig { tls: config(identity, verifier, "hub")?, nodes_of: Some(identity.site.clone()) })
}

/// A gRPC server that notices when a client is gone.
pub fn grpc_server() -> Server {
    Server::builder().http2_keepalive_interval(Some(KEEP_ALIVE)).http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
}

/// Accepts connections for `serve_with_incoming`, each after its handshake. A handshake
/// that fails or hangs disturbs no other. Accepting ends when the stream is dropped.
pub fn incoming(listener: TcpListener, config: PartyConfig) -> impl Stream<Item = std::io::Result<PeerStream>> {
    let (tx, rx) = mpsc::channel(MAX_HANDSHAKES);
    tokio::spawn(accept(listener, config, tx));
    ReceiverStream::new(rx)
}

async fn accept(listener: TcpListener, config: PartyConfig, tx: mpsc::Sender<std::io::Result<PeerStream>>) {
    let places = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    loop {
        let accepted = tokio::select! {
            () = tx.closed() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(connection) => connection,
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            tracing::warn!(%address, "connection dropped: {MAX_HANDSHAKES} handshakes are under way");
            continue;
        };
        let (config, tx) = (config.clone(), tx.clone());
        tokio::spawn(async move {
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake(stream, address, &config)).await {
                // The server is going down: its connections are of no use.
                Ok(Ok(peer)) => drop(tx.send(Ok(peer)).await),
                // Probes of the port come every few seconds, and say nothing.
                Ok(Err(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                    tracing::debug!(%address, "connection closed before its handshake");
                }
                Ok(Err(error)) => tracing::warn!(%address, %error, "TLS handshake refused"),
                Err(_) => tracing::debug!(%address, "TLS handshake took too long"),
            }
            drop(place);
        });
    }
}

async fn handshake(stream: TcpStream, address: SocketAddr, config: &PartyConfig) -> std::io::Result<PeerStream> {
    stream.set_nodelay(true)?;
    let inner = TlsAcceptor::from(config.tls.clone()).accept(stream).await?;
    let certificate = inner.get_ref().1.peer_certificates().and_then(|c| c.first());
    let peer = certificate.and_then(|c| name(c, config.nodes_of.as_ref())).unwrap_or(Peer::Stranger);
    Ok(PeerStream { inner, info: PeerInfo { peer, address } })
}

fn name(certificate: &CertificateDer<'_>, nodes_of: Option<&SiteName>) -> Option<Peer> {
    match nodes_of {
        Some(site) => node_of(certificate, site).map(Peer::Node),
        None => site_of(certificate).map(Peer::Site),
    }
}

fn info<T>(request: &tonic::Request<T>) -> Option<&PeerInfo> {
    request.extensions().get::<PeerInfo>()
}

/// The site that sent a request, as its certificate proved.
pub fn peer_site<T>(request: &tonic::Request<T>) -> Result<SiteName, Status> {
    match info(request).map(|i| &i.peer) {
        Some(Peer::Site(site)) => Ok(site.clone()),
        _ => Err(Status::unauthenticated("the connection carries no site's certificate; use the site's tls.crt")),
    }
}

/// The node that sent a request, as its certificate proved, and from where.
pub fn peer_node<T>(request: &tonic::Request<T>) -> Result<(NodeName, SocketAddr), Status> {
    match info(request) {
        Some(PeerInfo { peer: Peer::Node(node), address }) => Ok((node.clone(), *address)),
        _ => Err(Status::unauthenticated("the connection carries no agent's certificate; enrol first")),
    }
}
