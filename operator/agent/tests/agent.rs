//! A whole agent between real hubs (gRPC and TLS on loopback) and a real guard's core
//! behind a Unix socket.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A helper that fails fails its test.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ed25519_dalek::SigningKey;
use regent_agent::config::Config;
use regent_controller::hub::{self, Authenticate, HubHandle, NodeGroups};
use regent_core::charter::{Charter, Pinned, SiteEntry};
use regent_core::ids::{Epoch, GroupKey, NodeName, SiteName};
use regent_core::instruction::Instruction;
use regent_core::message::{Ask, Entry, Grant, NodeCertificate, Request, Round, Tag, entry_tree};
use regent_core::plan::Protection;
use regent_core::sign::{Digest, Envelope, PublicKey};
use regent_lease::deliver::NonceSet;
use regent_lease::guard::{Guard as GuardCore, GuardConfig, Journal};
use regent_proto::v1;
use regent_proto::v1::guard_server::{Guard, GuardServer};
use regent_shell::clock;
use regent_shell::tls::{ChannelTiming, SiteIdentity, install_provider, issue_site, make_ca};
use tempfile::TempDir;
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_stream::wrappers::{UnixListenerStream, WatchStream};
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::{Response, Status};

const WITNESSES: [&str; 4] = ["france", "germany", "switzerland", "luxembourg"];

fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

fn site(name: &str) -> SiteName {
    name.parse().unwrap()
}

fn node() -> NodeName {
    NodeName("n1".into())
}

fn shop() -> GroupKey {
    "ireland/shop".parse().unwrap()
}

fn epoch(text: &str) -> Epoch {
    text.parse().unwrap()
}

fn charter(anchor: &str) -> Charter {
    let sites = std::iter::once("ireland").chain(WITNESSES).zip(1u8..).map(|(name, n)| SiteEntry {
        name: site(name),
        number: n.into(),
        party: "someone".parse().unwrap(),
        country: "IE".into(),
        addresses: vec!["127.0.0.1:7443".into()],
        key: PublicKey::of(&key(n)),
        tls_anchor: anchor.to_owned(),
    });
    Charter {
        name: "test".into(),
        version: 1,
        parties: vec![],
        threshold: 1,
        sites: sites.collect(),
        witnesses: WITNESSES.map(site).to_vec(),
        faulty_witnesses: 1,
        lease_duration_ms: 60_000,
        clock_drift_ppm: 1000,
        interlock: Default::default(),
    }
}

/// What Ireland asks for its shop, and three of four witnesses grant.
fn round(charter: Digest, entries: &[Entry], nonces: &NonceSet) -> Round {
    let request = Request {
        charter_version: 1,
        charter,
        site: site("ireland"),
        ask: Ask::Grant,
        id: Digest::of(b"one"),
        nonce_root: nonces.root(),
        entry_root: entry_tree(entries).root(),
        tags: BTreeMap::new(),
    };
    let request = Envelope::sign(&request, "ireland", &key(1));
    let grant = |(name, n): (&&str, u8)| {
        let grant = Grant {
            witness: site(name),
            request: request.digest(),
            exceptions: vec![],
            votes: BTreeMap::new(),
            plans: BTreeMap::new(),
            braked: BTreeMap::new(),
            start: 1,
            tag: Tag(vec![n]),
        };
        Envelope::sign(&grant, name, &key(n))
    };
    Round { grants: WITNESSES.iter().zip(2u8..).take(3).map(grant).collect(), request }
}

/// The guard's decisions behind its socket, without a kubelet and without pods.
#[derive(Clone)]
struct TestGuard {
    charter: Digest,
    core: Arc<Mutex<GuardCore>>,
    random: Arc<AtomicU8>,
    counted: Arc<watch::Sender<usize>>,
    states: watch::Sender<v1::GuardState>,
}

impl TestGuard {
    fn new(charter: Charter) -> Self {
        let charter = Pinned::from(charter);
        let digest = charter.digest();
        let config = GuardConfig {
            site: site("ireland"),
            node: node(),
            charter,
            boot_id: "boot-1".into(),
            freeze_margin: Duration::from_millis(50),
        };
        Self {
            charter: digest,
            core: Arc::new(Mutex::new(GuardCore::new(config, Journal::default()).unwrap())),
            random: Arc::default(),
            counted: Arc::new(watch::Sender::new(0)),
            states: watch::Sender::new(v1::GuardState { journal_id: "journal-1".into(), pods: vec![] }),
        }
    }

    /// Listens in place of whoever listens there now.
    fn listen(&self, socket: &Path) -> tokio::task::JoinHandle<()> {
        let _ = std::fs::remove_file(socket);
        let incoming = UnixListenerStream::new(UnixListener::bind(socket).unwrap());
        let server = Server::builder().add_service(GuardServer::new(self.clone()));
        tokio::spawn(async move { server.serve_with_incoming(incoming).await.unwrap() })
    }
}

#[tonic::async_trait]
impl Guard for TestGuard {
    async fn new_nonce(
        &self,
        _: tonic::Request<v1::NewNonceRequest>,
    ) -> Result<Response<v1::NewNonceResponse>, Status> {
        let random = [self.random.fetch_add(1, Ordering::Relaxed); 32];
        let nonce = self.core.lock().unwrap().new_nonce(clock::now(), random).to_vec();
        Ok(Response::new(v1::NewNonceResponse { nonce }))
    }

    async fn certify(
        &self,
        shown: tonic::Request<v1::NodeCertificate>,
    ) -> Result<Response<v1::CertifyResponse>, Status> {
        let certificate = NodeCertificate::try_from(shown.into_inner())?;
        let judged = self.core.lock().unwrap().on_certificate(clock::now(), &certificate);
        self.counted.send_modify(|n| *n += judged.accepted.len());
        let error = judged.rejected.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        let accepted_groups = judged.accepted.iter().map(ToString::to_string).collect();
        Ok(Response::new(v1::CertifyResponse { accepted_groups, error }))
    }

    async fn instruct(&self, told: tonic::Request<v1::Instruction>) -> Result<Response<v1::Confirmation>, Status> {
        let told = told.into_inner();
        let (group, instruction) = told.clone().try_into()?;
        let done = self.core.lock().unwrap().on_instruction(clock::now(), &group, instruction);
        let error = done.err().map(|e| e.to_string()).unwrap_or_default();
        Ok(Response::new(v1::Confirmation { instruction: Some(told), error }))
    }

    type WatchStream = std::pin::Pin<Box<dyn Stream<Item = Result<v1::GuardState, Status>> + Send>>;

    async fn watch(&self, _: tonic::Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Ok(Response::new(Box::pin(WatchStream::new(self.states.subscribe()).map(Ok))))
    }
}

/// A hub on a runtime of its own, so that it can be killed with all its connections.
struct Hub {
    handle: HubHandle,
    at: SocketAddr,
    runtime: Option<Runtime>,
}

impl Hub {
    fn start(at: SocketAddr, identity: &SiteIdentity, authenticate: Authenticate) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = std::iter::repeat_with(|| std::net::TcpListener::bind(at)).flatten().next().unwrap();
        listener.set_nonblocking(true).unwrap();
        let (handle, at, identity) = (HubHandle::new(), listener.local_addr().unwrap(), identity.clone());
        handle.set_groups(NodeGroups::from_lists([(&shop(), &[node()])]));
        let served = handle.clone();
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            hub::serve(listener, served, &identity, authenticate, CancellationToken::new()).await.unwrap();
        });
        Self { handle, at, runtime: Some(runtime) }
    }

    fn kill(self) -> SocketAddr {
        self.at
    }

    async fn has_a_nonce(&self) {
        until(|| self.handle.nonces().of_node(&node()).is_some()).await;
    }

    /// Delivers certificates of the shop, each for the nonces of then, as a holder does
    /// every P, until the guard has counted one: a stream that ends may take one with it.
    async fn certifies(&self, guard: &TestGuard) {
        let entries = [Entry { group: shop(), epoch: epoch("1.1"), state: Protection::Protected }];
        let mut counted = guard.counted.subscribe();
        let before = *counted.borrow_and_update();
        within(async {
            while *counted.borrow_and_update() == before {
                let nonces = self.handle.nonces();
                self.handle.deliver(&round(guard.charter, &entries, &nonces), &entries, &entries, &nonces);
                let _ = tokio::time::timeout(Duration::from_millis(100), counted.changed()).await;
            }
        })
        .await;
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        // All at once, its connections too, as when its process is killed.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), what).await.expect("it never came to be")
}

async fn until(what: impl Fn() -> bool) {
    within(async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// An API server that knows one token for each node.
fn tokens() -> Authenticate {
    Arc::new(|token| {
        let node = token.strip_prefix("token of ").map(|n| NodeName(n.to_owned()));
        Box::pin(std::future::ready(node.ok_or(hub::EnrollError::WrongAudience)))
    })
}

/// An API server that is gone.
fn no_api_server() -> Authenticate {
    Arc::new(|_| Box::pin(std::future::ready(Err(hub::EnrollError::Unavailable("connection refused".into())))))
}

struct World {
    dir: TempDir,
    identity: SiteIdentity,
    guard: TestGuard,
}

const ANY: &str = "127.0.0.1:0";

impl World {
    fn new() -> Self {
        install_provider();
        let ca = make_ca(&site("ireland")).unwrap();
        let own = issue_site(&site("ireland"), &ca).unwrap();
        let guard = TestGuard::new(charter(&ca.certificate_pem));
        let (certificate_pem, key_pem) = (own.certificate_pem, own.key_pem);
        let identity = SiteIdentity { site: site("ireland"), key: key(1), ca, certificate_pem, key_pem };
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), "token of n1\n").unwrap();
        Self { dir, identity, guard }
    }

    fn hub(&self) -> Hub {
        Hub::start(ANY.parse().unwrap(), &self.identity, tokens())
    }

    fn config(&self, fallback: SocketAddr) -> Config {
        Config {
            site: site("ireland"),
            node: node(),
            anchor_pem: self.identity.ca.certificate_pem.clone(),
            period: Duration::from_millis(50),
            fallback,
            token: self.dir.path().join("token"),
            state: self.dir.path().join("state"),
            guard: self.dir.path().join("guard.sock"),
            timing: ChannelTiming::default(),
        }
    }

    fn listen(&self) -> tokio::task::JoinHandle<()> {
        self.guard.listen(&self.dir.path().join("guard.sock"))
    }

    fn agent(&self, fallback: SocketAddr) -> tokio::task::JoinHandle<()> {
        let config = self.config(fallback);
        tokio::spawn(async move { regent_agent::run::run(config).await.unwrap() })
    }
}

#[tokio::test]
async fn an_agent_enrols_finds_both_hubs_and_brings_the_certificates_of_each() {
    let world = World::new();
    let (first, second) = (world.hub(), world.hub());
    for hub in [&first, &second] {
        hub.handle.set_peers(vec![first.at, second.at]);
    }
    world.listen();
    world.agent(first.at);
    for hub in [&first, &second] {
        hub.has_a_nonce().await;
        hub.certifies(&world.guard).await;
    }
    until(|| first.handle.nodes()[&node()].report.as_ref().is_some_and(|r| r.guard_alive)).await;
    assert_eq!(first.handle.nodes()[&node()].guard_journal_id, "journal-1");
}

#[tokio::test]
async fn a_stream_is_back_after_its_hub_was_killed_and_the_other_hub_serves_meanwhile() {
    let world = World::new();
    let (first, second) = (world.hub(), world.hub());
    let peers = vec![first.at, second.at];
    second.handle.set_peers(peers.clone());
    world.listen();
    world.agent(second.at);
    first.has_a_nonce().await;
    let at = first.kill();
    second.has_a_nonce().await;
    second.certifies(&world.guard).await;
    let again = Hub::start(at, &world.identity, no_api_server());
    again.handle.set_peers(peers);
    again.has_a_nonce().await;
    again.certifies(&world.guard).await;
}

#[tokio::test]
async fn a_restarted_agent_needs_no_api_server_and_no_service() {
    let world = World::new();
    let hub = world.hub();
    hub.handle.set_peers(vec![hub.at]);
    world.listen();
    let agent = world.agent(hub.at);
    hub.has_a_nonce().await;
    until(|| world.dir.path().join("state/peers.json").exists()).await;
    agent.abort();
    let at = hub.kill();
    let again = Hub::start(at, &world.identity, no_api_server());
    // Port 9 of the loopback: nobody answers where the Service was.
    world.agent("127.0.0.1:9".parse().unwrap());
    again.has_a_nonce().await;
}

#[tokio::test]
async fn an_agent_survives_its_guard() {
    let world = World::new();
    let hub = world.hub();
    let first = world.listen();
    world.agent(hub.at);
    let alive = |hub: &Hub| hub.handle.nodes().get(&node()).and_then(|n| n.report.clone()).map(|r| r.guard_alive);
    until(|| alive(&hub) == Some(true)).await;
    first.abort();
    std::fs::remove_file(world.dir.path().join("guard.sock")).unwrap();
    // The listener is gone and so, in the end, is every connection to the guard before.
    let before = hub.handle.nonces().root();
    world.listen();
    until(|| hub.handle.nonces().root() != before).await;
    hub.certifies(&world.guard).await;
}

#[tokio::test]
async fn instructions_reach_the_guard_and_its_answers_come_back() {
    let world = World::new();
    let hub = world.hub();
    world.listen();
    world.agent(hub.at);
    let (node, shop) = (node(), shop());
    let tell = |instruction| within(hub.handle.instruct(&node, &shop, instruction));
    assert_eq!(tell(Instruction::Configure(Duration::from_secs(3))).await, Ok(()));
    assert_eq!(tell(Instruction::Listed).await, Ok(()));
    assert_eq!(tell(Instruction::Protect).await, Ok(()));
    assert_eq!(tell(Instruction::Retire(epoch("4.1"))).await, Ok(()));
    let journal = world.guard.core.lock().unwrap().journal().clone();
    let record = &journal.groups[&shop];
    assert!(record.listed && record.protected);
    assert_eq!((record.retired, record.thaw_limit_ms), (Some(epoch("4.1")), 3000));
}

#[tokio::test]
async fn an_agent_with_another_nodes_token_is_refused_with_both_names() {
    let world = World::new();
    let hub = world.hub();
    std::fs::write(world.dir.path().join("token"), "token of n2").unwrap();
    let error = regent_agent::enroll::enroll(&world.config(hub.at), hub.at).await.unwrap_err().to_string();
    assert!(error.contains("n1") && error.contains("n2") && error.contains("token"), "{error}");
    std::fs::write(world.dir.path().join("token"), "some token").unwrap();
    let error = regent_agent::enroll::enroll(&world.config(hub.at), hub.at).await.unwrap_err().to_string();
    assert!(error.contains("audience regent-hub"), "{error}");
    std::fs::remove_file(world.dir.path().join("token")).unwrap();
    let error = regent_agent::enroll::enroll(&world.config(hub.at), hub.at).await.unwrap_err().to_string();
    assert!(error.contains("projected ServiceAccount token"), "{error}");
}

#[tokio::test]
async fn a_hub_of_another_site_gets_no_token() {
    let world = World::new();
    let other = World::new();
    let asked = Arc::new(AtomicU8::new(0));
    let count = asked.clone();
    let curious: Authenticate = Arc::new(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        Box::pin(std::future::ready(Err(hub::EnrollError::WrongAudience)))
    });
    let hub = Hub::start(ANY.parse().unwrap(), &other.identity, curious);
    assert!(regent_agent::enroll::enroll(&world.config(hub.at), hub.at).await.is_err());
    assert_eq!(asked.load(Ordering::Relaxed), 0);
}
