//! Who is let in: real gRPC on loopback, with CAs as `charter init` makes them.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A helper that fails fails its test.

use std::net::SocketAddr;

use ed25519_dalek::SigningKey;
use regent_core::charter::{Charter, SiteEntry};
use regent_core::ids::{NodeName, SiteName};
use regent_core::sign::PublicKey;
use regent_proto::v1::hub_client::HubClient;
use regent_proto::v1::hub_server::{Hub, HubServer};
use regent_proto::v1::{EnrollRequest, EnrollResponse, FromAgent, ToAgent};
use regent_shell::tls::{
    ChannelTiming, ClientIdentity, NewCa, PartyConfig, SiteIdentity, channel_to_hub, channel_to_site,
    federation_config, grpc_server, hub_config, incoming, install_provider, issue_node, issue_site, make_ca,
    make_node_request, peer_node, peer_site,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::Empty;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status, Streaming};

/// Answers whoever enrols with the name that its certificate proved.
struct WhoAreYou;

#[tonic::async_trait]
impl Hub for WhoAreYou {
    async fn enroll(&self, request: Request<EnrollRequest>) -> Result<Response<EnrollResponse>, Status> {
        let node = match (peer_site(&request), peer_node(&request)) {
            (Ok(site), _) => format!("site {site}"),
            (_, Ok((node, _))) => format!("node {node}"),
            _ => "stranger".to_owned(),
        };
        Ok(Response::new(EnrollResponse { node, certificate_pem: String::new() }))
    }
    type AttachStream = Empty<Result<ToAgent, Status>>;
    async fn attach(&self, _: Request<Streaming<FromAgent>>) -> Result<Response<Self::AttachStream>, Status> {
        Ok(Response::new(tokio_stream::empty()))
    }
}

fn name(s: &str) -> SiteName {
    s.parse().unwrap()
}

fn identity(site: &str, ca: &NewCa, number: u8) -> SiteIdentity {
    let own = issue_site(&name(site), ca).unwrap();
    SiteIdentity {
        site: name(site),
        key: SigningKey::from_bytes(&[number; 32]),
        ca: ca.clone(),
        certificate_pem: own.certificate_pem,
        key_pem: own.key_pem,
    }
}

fn new_site(site: &str, number: u8) -> SiteIdentity {
    identity(site, &make_ca(&name(site)).unwrap(), number)
}

fn charter(sites: &[&SiteIdentity]) -> Charter {
    let site = |(i, s): (usize, &&SiteIdentity)| SiteEntry {
        name: s.site.clone(),
        number: i as u32 + 1,
        party: "bleu".parse().unwrap(),
        country: "FR".into(),
        addresses: vec!["127.0.0.1:7443".into()],
        key: PublicKey::of(&s.key),
        tls_anchor: s.ca.certificate_pem.clone(),
    };
    Charter {
        name: "test".into(),
        version: 1,
        parties: vec![],
        threshold: 1,
        sites: sites.iter().enumerate().map(site).collect(),
        witnesses: vec![],
        faulty_witnesses: 0,
        lease_duration_ms: 5000,
        clock_drift_ppm: 1000,
        interlock: Default::default(),
    }
}

async fn listen(config: PartyConfig) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = grpc_server().add_service(HubServer::new(WhoAreYou));
    tokio::spawn(server.serve_with_incoming(incoming(listener, config)));
    address
}

async fn who(channel: Channel) -> Result<String, Status> {
    Ok(HubClient::new(channel).enroll(EnrollRequest::default()).await?.into_inner().node)
}

/// Ireland's federation server, and those that the charter names.
struct World {
    ireland: SiteIdentity,
    france: SiteIdentity,
    charter: Charter,
    at: SocketAddr,
}

impl World {
    async fn with(third: Option<&SiteIdentity>) -> Self {
        install_provider();
        let (ireland, france) = (new_site("ireland", 1), new_site("france", 2));
        let sites: Vec<&SiteIdentity> = [&ireland, &france].into_iter().chain(third).collect();
        let charter = charter(&sites);
        let at = listen(federation_config(&ireland, &charter).unwrap()).await;
        Self { ireland, france, charter, at }
    }

    fn channel_as(&self, caller: &SiteIdentity) -> Channel {
        let server = self.charter.site(&name("ireland")).unwrap();
        channel_to_site(&self.at.to_string(), server, caller, ChannelTiming::default()).unwrap()
    }

    async fn call_as(&self, caller: &SiteIdentity) -> Result<String, Status> {
        who(self.channel_as(caller)).await
    }
}

fn node(node: &str, site: &str, ca: &NewCa) -> ClientIdentity {
    let node = NodeName(node.into());
    let (request, key_pem) = make_node_request(&node, None).unwrap();
    ClientIdentity { certificate_pem: issue_node(&request, &node, &name(site), ca).unwrap(), key_pem }
}

#[tokio::test]
async fn a_site_is_known_by_its_certificate() {
    let world = World::with(None).await;
    assert_eq!(world.call_as(&world.france).await.unwrap(), "site france");
    assert_eq!(world.call_as(&world.ireland).await.unwrap(), "site ireland");
}

#[tokio::test]
async fn a_peer_with_a_certificate_of_the_wrong_party_is_refused_in_the_handshake() {
    // A party of the charter whose CA, unlike ours, would issue any name.
    let mut anything = rcgen::CertificateParams::new(vec![]).unwrap();
    anything.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let ca = NewCa { certificate_pem: anything.self_signed(&key).unwrap().pem(), key_pem: key.serialize_pem() };
    let liar = identity("germany", &ca, 3);
    let world = World::with(Some(&liar)).await;
    assert_eq!(world.call_as(&liar).await.unwrap(), "site germany");
    for wrong in ["france", "ireland"] {
        let status = world.call_as(&identity(wrong, &ca, 3)).await.unwrap_err();
        // No answer of a server, but the end of the connection (an alert, if it arrives in time).
        assert!(matches!(status.code(), Code::Unknown | Code::Unavailable), "as {wrong}: {status:?}");
    }
}

#[tokio::test]
async fn a_ca_of_ours_can_issue_no_other_sites_name() {
    let world = World::with(None).await;
    let own = charter(&[&identity("ireland", &world.france.ca, 1)]);
    let at = listen(federation_config(&world.ireland, &own).unwrap()).await;
    // Even a server that took France's CA for Ireland's anchor refuses it.
    let server = world.charter.site(&name("ireland")).unwrap();
    let forged = identity("ireland", &world.france.ca, 1);
    assert!(who(channel_to_site(&at.to_string(), server, &forged, ChannelTiming::default()).unwrap()).await.is_err());
}

#[tokio::test]
async fn strangers_agents_and_unknown_sites_are_refused_by_the_federation() {
    let world = World::with(None).await;
    assert!(world.call_as(&new_site("elsewhere", 9)).await.is_err());
    let agent = node("n1", "france", &world.france.ca);
    let as_agent =
        SiteIdentity { certificate_pem: agent.certificate_pem, key_pem: agent.key_pem, ..world.france.clone() };
    assert!(world.call_as(&as_agent).await.is_err());
    // The server proves itself under the hub's name too; the caller shows nothing.
    let (at, anchor) = (world.at.to_string(), &world.ireland.ca.certificate_pem);
    let channel = channel_to_hub(&at, &world.ireland.site, anchor, None, ChannelTiming::default()).unwrap();
    assert!(who(channel).await.is_err());
}

#[tokio::test]
async fn a_server_must_prove_that_it_is_the_site_that_was_meant() {
    let world = World::with(None).await;
    let meant = world.charter.site(&name("france")).unwrap();
    let channel = channel_to_site(&world.at.to_string(), meant, &world.france, ChannelTiming::default()).unwrap();
    assert!(who(channel).await.is_err(), "Ireland's server was taken for France's");
}

#[tokio::test]
async fn a_hub_knows_its_own_nodes_lets_strangers_ask_and_refuses_others() {
    let world = World::with(None).await;
    let at = listen(hub_config(&world.ireland).unwrap()).await.to_string();
    let call = async |own: Option<&ClientIdentity>| {
        let anchor = &world.ireland.ca.certificate_pem;
        who(channel_to_hub(&at, &world.ireland.site, anchor, own, ChannelTiming::default()).unwrap()).await
    };
    assert_eq!(call(Some(&node("n1.eu", "ireland", &world.ireland.ca))).await.unwrap(), "node n1.eu");
    assert_eq!(call(None).await.unwrap(), "stranger");
    for (site, ca) in [("france", &world.france.ca), ("ireland", &world.france.ca), ("france", &world.ireland.ca)] {
        assert!(call(Some(&node("n1", site, ca))).await.is_err(), "{site}");
    }
    let (certificate_pem, key_pem) = (world.ireland.certificate_pem.clone(), world.ireland.key_pem.clone());
    assert!(call(Some(&ClientIdentity { certificate_pem, key_pem })).await.is_err(), "a site is no node");
}

#[tokio::test]
async fn a_client_that_hangs_in_its_handshake_holds_up_no_other() {
    let world = World::with(None).await;
    let _hanging = TcpStream::connect(world.at).await.unwrap();
    assert_eq!(world.call_as(&world.france).await.unwrap(), "site france");
}

#[test]
fn a_channel_comes_back_after_its_server_was_gone() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let client = runtime();
    let first = runtime();
    let mut world = first.block_on(World::with(None));
    let channel = {
        let _here = client.enter();
        world.channel_as(&world.france)
    };
    assert_eq!(client.block_on(who(channel.clone())).unwrap(), "site france");
    // Everything of the server dies, its connections too.
    first.shutdown_background();
    while client.block_on(who(channel.clone())).is_ok() {}
    let second = runtime();
    let config = federation_config(&world.ireland, &world.charter).unwrap();
    let listener = loop {
        if let Ok(listener) = second.block_on(TcpListener::bind(world.at)) {
            break listener;
        }
        std::thread::yield_now();
    };
    world.at = listener.local_addr().unwrap();
    let server = grpc_server().add_service(HubServer::new(WhoAreYou));
    second.spawn(async move { server.serve_with_incoming(incoming(listener, config)).await });
    while client.block_on(who(channel.clone())).is_err() {}
}

#[test]
fn the_secret_of_another_site_is_refused_at_the_start_by_name() {
    let (ireland, france) = (new_site("ireland", 1), new_site("france", 2));
    let charter = charter(&[&ireland, &france]);
    let dir = tempfile::tempdir().unwrap();
    let write = |file: &str, text: &str| std::fs::write(dir.path().join(file), text).unwrap();
    let load = |site: &str| SiteIdentity::load(dir.path(), &name(site), &charter);
    let missing = load("ireland").unwrap_err().to_string();
    assert!(missing.contains("site.key"), "{missing}");
    write("site.key", &"01".repeat(32));
    write("ca.crt", &ireland.ca.certificate_pem);
    write("ca.key", &ireland.ca.key_pem);
    write("tls.crt", &ireland.certificate_pem);
    write("tls.key", &ireland.key_pem);
    assert_eq!(load("ireland").unwrap().site, name("ireland"));
    let other = load("france").unwrap_err().to_string();
    assert!(other.contains("site france") && other.contains("signing key") && other.contains("regent-site"), "{other}");
    write("ca.crt", &france.ca.certificate_pem);
    let anchor = load("ireland").unwrap_err().to_string();
    assert!(anchor.contains("TLS anchor"), "{anchor}");
    write("site.key", "abc");
    let key = load("ireland").unwrap_err().to_string();
    assert!(key.contains("site.key") && key.contains("64 hexadecimal digits"), "{key}");
    assert!(load("elsewhere").unwrap_err().to_string().contains("elsewhere"));
}
