//! The hub with agents on real gRPC and TLS; their messages are written by hand here.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use regent_core::charter::{Charter, Pinned, SiteEntry};
use regent_core::ids::{GroupKey, NodeName, SiteName};
use regent_core::instruction::Instruction;
use regent_core::message::{Ask, Entry, Grant, NodeCertificate, Request, Round, Tag, entry_tree};
use regent_core::plan::Protection;
use regent_core::sign::{Digest, Envelope, PublicKey};
use regent_proto::v1;
use regent_proto::v1::from_agent::Message as Up;
use regent_proto::v1::hub_client::HubClient;
use regent_proto::v1::to_agent::Message as Down;
use regent_shell::tls::{
    ChannelTiming, ClientIdentity, SiteIdentity, channel_to_hub, install_provider, issue_site, make_ca,
    make_node_request,
};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};

use super::*;

fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

fn site(name: &str) -> SiteName {
    name.parse().unwrap()
}

fn group(name: &str) -> GroupKey {
    format!("ireland/{name}").parse().unwrap()
}

fn node(name: &str) -> NodeName {
    NodeName(name.into())
}

const WITNESSES: [&str; 4] = ["france", "germany", "switzerland", "luxembourg"];

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
        lease_duration_ms: 5000,
        clock_drift_ppm: 1000,
        interlock: Default::default(),
    }
}

fn entry(name: &str) -> Entry {
    Entry { group: group(name), epoch: "1.1".parse().unwrap(), state: Protection::Protected }
}

/// What Ireland asks and three of four witnesses grant.
fn round(charter: &Pinned, entries: &[Entry], nonces: &NonceSet) -> Round {
    let request = Request {
        charter_version: 1,
        charter: charter.digest(),
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

/// An API server that knows tokens of the form `token of NODE`.
fn tokens() -> Authenticate {
    Arc::new(|token| {
        let known = token.strip_prefix("token of ").map(node).ok_or(EnrollError::WrongAudience);
        Box::pin(std::future::ready(known))
    })
}

struct Site {
    identity: SiteIdentity,
    hub: HubHandle,
    at: SocketAddr,
    stop: CancellationToken,
}

impl Site {
    async fn start() -> Self {
        install_provider();
        let ca = make_ca(&site("ireland")).unwrap();
        let own = issue_site(&site("ireland"), &ca).unwrap();
        let identity = SiteIdentity {
            site: site("ireland"),
            key: key(1),
            ca,
            certificate_pem: own.certificate_pem,
            key_pem: own.key_pem,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (hub, stop) = (HubHandle::new(), CancellationToken::new());
        let started = Self { identity: identity.clone(), hub: hub.clone(), at, stop: stop.clone() };
        tokio::spawn(async move { serve(listener, hub, &identity, tokens(), stop).await.unwrap() });
        started
    }

    fn client(&self, own: Option<&ClientIdentity>) -> HubClient<tonic::transport::Channel> {
        let anchor = &self.identity.ca.certificate_pem;
        let timing = ChannelTiming::default();
        HubClient::new(channel_to_hub(&self.at.to_string(), &self.identity.site, anchor, own, timing).unwrap())
    }

    async fn enroll(&self, request_of: &str, token: &str) -> Result<(v1::EnrollResponse, String), Status> {
        let (csr_pem, key_pem) = make_node_request(&node(request_of), None).unwrap();
        let request = v1::EnrollRequest { token: token.into(), csr_pem };
        Ok((self.client(None).enroll(request).await?.into_inner(), key_pem))
    }

    async fn attach(&self, name: &str) -> Agent {
        let (answer, key_pem) = self.enroll(name, &format!("token of {name}")).await.unwrap();
        let own = ClientIdentity { certificate_pem: answer.certificate_pem, key_pem };
        Agent::attach(self.client(Some(&own)), own).await
    }

    /// Waits until something that the hub tells holds.
    async fn until(&self, what: impl Fn(&HubHandle) -> bool) {
        let wait = async {
            while !what(&self.hub) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), wait).await.expect("the hub never came to tell that");
    }
}

/// An agent whose messages the test writes.
struct Agent {
    own: ClientIdentity,
    up: mpsc::Sender<v1::FromAgent>,
    down: Streaming<v1::ToAgent>,
}

impl Agent {
    async fn attach(mut client: HubClient<tonic::transport::Channel>, own: ClientIdentity) -> Self {
        let (up, messages) = mpsc::channel(8);
        let down = client.attach(ReceiverStream::new(messages)).await.unwrap().into_inner();
        Self { own, up, down }
    }

    async fn say(&self, message: Up) {
        self.up.send(v1::FromAgent { message: Some(message) }).await.unwrap();
    }

    async fn nonce(&self, n: u8) {
        self.say(Up::Nonce(v1::Nonce { nonce: vec![n; 32] })).await;
    }

    /// The next message that is not about peers.
    async fn hear(&mut self) -> Option<Down> {
        loop {
            match self.down.message().await.ok()??.message? {
                Down::Peers(_) => {}
                other => return Some(other),
            }
        }
    }

    async fn peers(&mut self) -> Vec<String> {
        match self.down.message().await.unwrap().unwrap().message.unwrap() {
            Down::Peers(peers) => peers.hubs,
            other => panic!("{other:?} instead of peers"),
        }
    }

    async fn confirm(&self, name: &str, instruction: Instruction, error: &str) {
        let instruction = Some((&group(name), instruction).into());
        self.say(Up::Confirmation(v1::Confirmation { instruction, error: error.into() })).await;
    }
}

fn nonce_of(hub: &HubHandle, name: &str) -> Option<[u8; 32]> {
    hub.nonces().of_node(&node(name)).map(|(nonce, _)| nonce)
}

#[tokio::test]
async fn an_agent_is_enrolled_as_the_node_of_its_token_and_as_no_other() {
    let site = Site::start().await;
    assert_eq!(site.enroll("n1", "token of n1").await.unwrap().0.node, "n1");
    let other = site.enroll("n2", "token of n1").await.unwrap_err();
    assert_eq!(other.code(), Code::PermissionDenied);
    assert!(other.message().contains("node n1") && other.message().contains("node n2"), "{other:?}");
    let audience = site.enroll("n1", "another token").await.unwrap_err();
    assert_eq!(audience.code(), Code::Unauthenticated);
    assert!(audience.message().contains("audience regent-hub"), "{audience:?}");
    let long = site.enroll("n1", &"x".repeat(20_000)).await.unwrap_err();
    assert_eq!(long.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_stream_needs_the_agents_certificate() {
    let site = Site::start().await;
    let refused = site.client(None).attach(tokio_stream::empty()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(refused.message().contains("enrol"), "{refused:?}");
}

#[tokio::test]
async fn the_newest_nonce_wins_and_goes_with_its_stream() {
    let site = Site::start().await;
    let agent = site.attach("n1").await;
    for n in 1..=9 {
        agent.nonce(n).await;
    }
    site.until(|hub| nonce_of(hub, "n1") == Some([9; 32])).await;
    agent.say(Up::Nonce(v1::Nonce { nonce: vec![7; 31] })).await;
    agent.say(Up::Hello(v1::Hello { agent_version: "1".into(), guard_journal_id: "b".into() })).await;
    site.until(|hub| hub.nodes()[&node("n1")].guard_journal_id == "b").await;
    assert_eq!(nonce_of(&site.hub, "n1"), Some([9; 32]), "31 bytes are no nonce");
    drop(agent);
    site.until(|hub| hub.nonces().is_empty()).await;
    assert!(!site.hub.nodes()[&node("n1")].attached);
}

#[tokio::test]
async fn each_node_gets_its_own_groups_with_paths_that_prove_them() {
    let site = Site::start().await;
    let (mut n1, mut n2, _n3) = (site.attach("n1").await, site.attach("n2").await, site.attach("n3").await);
    n1.nonce(1).await;
    n2.nonce(2).await;
    _n3.nonce(3).await;
    site.until(|hub| hub.nonces().len() == 3).await;
    let lists = [("shop", vec![node("n1"), node("n2")]), ("bank", vec![node("n2")]), ("mail", vec![node("n1")])]
        .map(|(g, nodes)| (group(g), nodes));
    site.hub.set_groups(NodeGroups::from_lists(lists.iter().map(|(g, n)| (g, n))));
    let entries = ["bank", "mail", "post", "shop"].map(entry);
    let granted = [entry("bank"), entry("shop")];
    let nonces = site.hub.nonces();
    let charter = Pinned::from(charter(&site.identity.ca.certificate_pem));
    let round = round(&charter, &entries, &nonces);
    assert_eq!(site.hub.deliver(&round, &entries, &granted, &nonces), 2, "n3 has no group");
    for (agent, nonce, groups) in [(&mut n1, [1; 32], vec!["shop"]), (&mut n2, [2; 32], vec!["bank", "shop"])] {
        let Some(Down::Certificate(certificate)) = agent.hear().await else { panic!("no certificate") };
        let certificate = NodeCertificate::try_from(certificate).unwrap();
        let verified = certificate.round.verify(&charter).unwrap();
        assert_eq!(certificate.nonce, nonce);
        assert!(verified.nonce_is_covered(&certificate.nonce, &certificate.nonce_path));
        let shown: Vec<GroupKey> = certificate.entries.iter().map(|(e, _)| e.group.clone()).collect();
        assert_eq!(shown, groups.iter().map(|g| group(g)).collect::<Vec<_>>());
        for (entry, path) in &certificate.entries {
            assert!(verified.entry_is_covered(entry, path) && verified.is_granted(&entry.group));
        }
    }
}

#[tokio::test]
async fn two_agents_of_a_node_are_both_served_while_one_replaces_the_other() {
    let site = Site::start().await;
    let report = |guard_alive| Up::Report(v1::NodeReport { guard_alive, ..Default::default() });
    let alive = |hub: &HubHandle| hub.nodes()[&node("n1")].report.as_ref().map(|r| r.guard_alive);
    let mut older = site.attach("n1").await;
    older.nonce(1).await;
    older.say(report(true)).await;
    site.until(|hub| alive(hub) == Some(true)).await;
    // The newer one's guard waits for the older one's to end.
    let mut newer = Agent::attach(site.client(Some(&older.own)), older.own.clone()).await;
    newer.say(report(false)).await;
    older.nonce(2).await;
    site.until(|hub| nonce_of(hub, "n1") == Some([2; 32])).await;
    assert_eq!(alive(&site.hub), Some(true));
    site.hub.set_groups(NodeGroups::from_lists([(&group("shop"), &[node("n1")])]));
    let (entries, nonces) = ([entry("shop")], site.hub.nonces());
    site.hub.deliver(&round(&charter("").into(), &entries, &nonces), &entries, &entries, &nonces);
    for agent in [&mut older, &mut newer] {
        assert!(matches!(agent.hear().await, Some(Down::Certificate(_))));
    }
    drop(older);
    site.until(|hub| hub.nonces().is_empty()).await;
    newer.nonce(3).await;
    site.until(|hub| nonce_of(hub, "n1") == Some([3; 32])).await;
    assert!(site.hub.nodes()[&node("n1")].attached);
}

#[tokio::test]
async fn a_node_has_four_streams_at_most() {
    let site = Site::start().await;
    let mut first = site.attach("n1").await;
    let mut others = Vec::new();
    for _ in 0..4 {
        others.push(Agent::attach(site.client(Some(&first.own)), first.own.clone()).await);
    }
    assert!(first.hear().await.is_none(), "the oldest ends");
    for (n, agent) in (1..).zip(&others) {
        agent.nonce(n).await;
        site.until(|hub| nonce_of(hub, "n1") == Some([n; 32])).await;
    }
}

#[tokio::test]
async fn an_instruction_is_done_when_its_own_confirmation_comes() {
    let site = Site::start().await;
    let mut agent = site.attach("n1").await;
    let hub = site.hub.clone();
    let [lower, ended] = ["2.1", "3.1"].map(|epoch| Instruction::Retire(epoch.parse().unwrap()));
    let retire = tokio::spawn(async move { hub.instruct(&node("n1"), &group("shop"), ended).await });
    let Some(Down::Instruction(instruction)) = agent.hear().await else { panic!("no instruction") };
    assert_eq!(instruction.group, "ireland/shop");
    agent.confirm("bank", ended, "").await;
    agent.confirm("shop", lower, "").await;
    agent.confirm("shop", Instruction::Protect, "").await;
    // Answered in order: when this one is, none of those before was taken for it.
    let hub = site.hub.clone();
    let listed = tokio::spawn(async move { hub.instruct(&node("n1"), &group("shop"), Instruction::Listed).await });
    while !matches!(agent.hear().await, Some(Down::Instruction(i)) if matches!(i.what, Some(v1::instruction::What::Listed(_))))
    {
    }
    agent.confirm("shop", Instruction::Listed, "").await;
    assert_eq!(listed.await.unwrap(), Ok(()));
    assert!(!retire.is_finished());
    agent.confirm("shop", ended, "").await;
    assert_eq!(retire.await.unwrap(), Ok(()));
}

#[tokio::test]
async fn what_a_guard_refuses_names_node_group_and_reason() {
    let site = Site::start().await;
    let mut agent = site.attach("n1").await;
    let hub = site.hub.clone();
    let protect = tokio::spawn(async move { hub.instruct(&node("n1"), &group("shop"), Instruction::Protect).await });
    assert!(matches!(agent.hear().await, Some(Down::Instruction(_))));
    agent.confirm("shop", Instruction::Protect, "no lease").await;
    let error = protect.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("n1") && error.contains("ireland/shop") && error.contains("no lease"), "{error}");
}

#[tokio::test]
async fn an_instruction_waits_for_a_node_that_is_away_until_it_is_withdrawn() {
    let site = Site::start().await;
    let hub = site.hub.clone();
    let listed = tokio::spawn(async move { hub.instruct(&node("n1"), &group("shop"), Instruction::Listed).await });
    let hub = site.hub.clone();
    let withdrawn = tokio::spawn(async move { hub.instruct(&node("n1"), &group("bank"), Instruction::Listed).await });
    site.until(|hub| hub.0.waiting(&node("n1")) == 2).await;
    withdrawn.abort();
    site.until(|hub| hub.0.waiting(&node("n1")) == 1).await;
    let mut first = site.attach("n1").await;
    assert!(matches!(first.hear().await, Some(Down::Instruction(i)) if i.group == "ireland/shop"));
    drop(first);
    // Its confirmation was lost: the next stream is told again.
    let mut second = site.attach("n1").await;
    assert!(matches!(second.hear().await, Some(Down::Instruction(i)) if i.group == "ireland/shop"));
    second.confirm("shop", Instruction::Listed, "").await;
    assert_eq!(listed.await.unwrap(), Ok(()));
    assert_eq!(site.hub.0.waiting(&node("n1")), 0);
}

#[tokio::test]
async fn agents_learn_the_sites_hubs_at_once_and_again_when_they_change() {
    let site = Site::start().await;
    let hubs = |n: u8| (1..=n).map(|i| format!("10.0.0.{i}:7444").parse().unwrap()).collect::<Vec<SocketAddr>>();
    site.hub.set_peers(hubs(1));
    let mut agent = site.attach("n1").await;
    assert_eq!(agent.peers().await, ["10.0.0.1:7444"]);
    site.hub.set_peers(hubs(2));
    assert_eq!(agent.peers().await, ["10.0.0.1:7444", "10.0.0.2:7444"]);
}

#[tokio::test]
async fn a_report_becomes_the_nodes_view_and_a_senseless_one_does_not() {
    let site = Site::start().await;
    let agent = site.attach("n1").await;
    let pod = |state: i32| v1::GatePod {
        uid: "u".into(),
        namespace: "shop".into(),
        name: "shop-0".into(),
        group: "ireland/shop".into(),
        state,
        epoch: "1.1".into(),
        lease_left_ms: 4000,
    };
    let report = |state: i32| v1::NodeReport { pods: vec![pod(state)], guard_alive: true, ..Default::default() };
    agent.say(Up::Report(report(v1::PodState::Running.into()))).await;
    site.until(|hub| hub.nodes()[&node("n1")].report.is_some()).await;
    agent.say(Up::Report(report(99))).await;
    agent.nonce(1).await;
    site.until(|hub| !hub.nonces().is_empty()).await;
    let view = site.hub.nodes().remove(&node("n1")).unwrap();
    let report = view.report.unwrap();
    assert_eq!(report.pods[0].state, PodState::Running);
    assert_eq!(report.pods[0].lease_left, Duration::from_secs(4));
    assert!(report.guard_alive && view.attached);
}

#[tokio::test]
async fn a_hub_that_is_told_to_stop_ends_its_streams() {
    let site = Site::start().await;
    let mut agent = site.attach("n1").await;
    site.stop.cancel();
    assert!(agent.hear().await.is_none());
    site.until(|hub| hub.nodes().values().all(|n| !n.attached)).await;
}
