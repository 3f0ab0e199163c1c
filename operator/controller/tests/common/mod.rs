//! Real API servers on loopback: one etcd, one kube-apiserver for each site.

#![allow(dead_code)] // Each test uses a part.

pub mod played;
pub mod two;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ed25519_dalek::SigningKey;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, Patch, PatchParams};
use kube::config::{AuthInfo, Config};
use regent_api::FailoverGroupSpec;
use regent_controller::cache::Cache;
use regent_controller::context::Context;
use regent_controller::mirror::capture::{KINDS, capture};
use regent_core::charter::{Charter, Interlock, SiteEntry};
use regent_core::ids::{GroupKey, SiteName};
use regent_core::sign::{Envelope, PublicKey};
use regent_kinds::release::Release;
use regent_shell::tls::{SiteIdentity, issue_site, make_ca};
use tokio_util::sync::CancellationToken;

const TOKEN: &str = "test-token";

/// A free port of this machine.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Waits for a fact; says which when it never comes.
pub async fn until<T, Fut: Future<Output = Option<T>>>(fact: &str, mut look: impl FnMut() -> Fut) -> T {
    let waiting = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), waiting).await.unwrap_or_else(|_| panic!("never: {fact}"))
}

/// A process that ends with its test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The API servers of some sites.
pub struct Clusters {
    // Dropped in this order: an API server hangs if its etcd goes first.
    servers: Vec<Process>,
    _etcd: Process,
    etcd: SocketAddr,
    ports: Vec<u16>,
    dir: tempfile::TempDir,
}

fn tool(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/bin").join(name);
    assert!(path.exists(), "{} is missing: run `make tools`", path.display());
    path
}

fn spawn(command: &mut Command, log: PathBuf) -> Process {
    let log = std::fs::File::create(log).unwrap();
    Process(command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap())
}

impl Clusters {
    /// Starts `n` of them, with Regent's kinds and namespace.
    pub async fn start(n: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let (client, peer) = (free_address(), free_address());
        let etcd = spawn(
            Command::new(tool("etcd")).args([
                format!("--data-dir={}", path("etcd").display()),
                format!("--listen-client-urls=http://{client}"),
                format!("--advertise-client-urls=http://{client}"),
                format!("--listen-peer-urls=http://{peer}"),
                "--unsafe-no-fsync".into(),
                "--log-level=error".into(),
            ]),
            path("etcd.log"),
        );
        let key = rcgen::KeyPair::generate().unwrap();
        std::fs::write(path("sa.key"), key.serialize_pem()).unwrap();
        std::fs::write(path("sa.pub"), key.public_key_pem()).unwrap();
        std::fs::write(path("tokens.csv"), format!("{TOKEN},admin,admin,system:masters\n")).unwrap();
        let ports: Vec<u16> = (0..n).map(|_| free_address().port()).collect();
        let mut clusters = Self { servers: Vec::new(), _etcd: etcd, etcd: client, ports, dir };
        for i in 0..n {
            clusters.servers.push(clusters.serve(i));
        }
        for i in 0..n {
            clusters.prepare(i).await;
        }
        clusters
    }

    /// Starts the API server of one of them.
    fn serve(&self, i: usize) -> Process {
        let path = |name: &str| self.dir.path().join(name);
        let log = path(&format!("apiserver-{i}.log"));
        spawn(
            Command::new(tool("kube-apiserver")).args([
                format!("--etcd-servers=http://{}", self.etcd),
                format!("--etcd-prefix=/site-{i}"),
                "--bind-address=127.0.0.1".into(),
                format!("--secure-port={}", self.ports[i]),
                format!("--cert-dir={}", path(&format!("certs-{i}")).display()),
                "--service-account-issuer=https://test".into(),
                format!("--service-account-key-file={}", path("sa.pub").display()),
                format!("--service-account-signing-key-file={}", path("sa.key").display()),
                format!("--token-auth-file={}", path("tokens.csv").display()),
                "--authorization-mode=RBAC".into(),
                "--service-cluster-ip-range=10.250.0.0/24".into(),
            ]),
            log,
        )
    }

    /// Kills the API server of one of them and starts it again, without waiting until it answers.
    pub fn restart(&mut self, i: usize) {
        let _ = self.servers[i].0.kill();
        let _ = self.servers[i].0.wait();
        self.servers[i] = self.serve(i);
    }

    /// A client of one of them.
    pub fn client(&self, i: usize) -> kube::Client {
        let mut config = Config::new(format!("https://127.0.0.1:{}", self.ports[i]).parse().unwrap());
        config.accept_invalid_certs = true;
        config.auth_info = AuthInfo { token: Some(TOKEN.to_owned().into()), ..AuthInfo::default() };
        kube::Client::try_from(config).unwrap()
    }

    /// A client of one of them that acts as another user.
    pub fn client_as(&self, i: usize, user: &str) -> kube::Client {
        let mut config = Config::new(format!("https://127.0.0.1:{}", self.ports[i]).parse().unwrap());
        config.accept_invalid_certs = true;
        let (token, impersonate) = (Some(TOKEN.to_owned().into()), Some(user.to_owned()));
        config.auth_info = AuthInfo { token, impersonate, ..AuthInfo::default() };
        kube::Client::try_from(config).unwrap()
    }

    /// Runs kubectl against one of them, as its administrator; what it says when it fails
    /// is the error.
    pub fn kubectl(&self, i: usize, args: &[&str], input: &str) -> Result<String, String> {
        use std::io::Write;
        let server = format!("--server=https://127.0.0.1:{}", self.ports[i]);
        let mut child = Command::new(tool("kubectl"))
            .args([server.as_str(), "--insecure-skip-tls-verify", "--token", TOKEN, "--kubeconfig=/dev/null"])
            .args(["--cache-dir", &self.dir.path().join("kubectl-cache").display().to_string()])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let out = child.wait_with_output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if out.status.success() { Ok(text(&out.stdout)) } else { Err(text(&out.stderr)) }
    }

    /// Runs one of the tools.
    pub fn run_tool(name: &str, args: &[&str]) -> String {
        let out = Command::new(tool(name)).args(args).output().unwrap();
        assert!(out.status.success(), "{name}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    async fn prepare(&self, i: usize) {
        let client = self.client(i);
        let params = PatchParams::apply("test").force();
        let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
        for crd in regent_api::crds() {
            let name = crd.metadata.name.clone().unwrap();
            until("an API server that takes Regent's kinds", || async {
                crds.patch(&name, &params, &Patch::Apply(&crd)).await.ok()
            })
            .await;
            until("a kind that is established", || async {
                let conditions = crds.get(&name).await.ok()?.status?.conditions?;
                conditions.iter().any(|c| c.type_ == "Established" && c.status == "True").then_some(())
            })
            .await;
        }
        let namespaces: Api<Namespace> = Api::all(client);
        let namespace = serde_json::json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": regent_api::NAMESPACE },
        });
        until("the namespace", || async {
            namespaces.patch(regent_api::NAMESPACE, &params, &Patch::Apply(&namespace)).await.ok()
        })
        .await;
    }
}

/// What a fresh cache finds of a group at its home.
pub async fn release(client: &kube::Client, group: &GroupKey, spec: &FailoverGroupSpec) -> Release {
    let stop = CancellationToken::new();
    let _ends = stop.clone().drop_guard();
    let cache = Cache::start(client.clone(), &KINDS, &stop);
    cache.follow(&spec.namespaces.iter().cloned().collect());
    until("every kind is listed or refused", || async { cache.version(&spec.namespaces, &KINDS) }).await;
    capture(&cache, group, spec, &[]).unwrap().unwrap().0
}

/// Contexts of sites with keys of their own; every site in `witnesses` votes.
pub fn federation(sites: &[(&str, SocketAddr)], witnesses: &[&str], lease_ms: u64) -> Vec<Context> {
    let name = |s: &str| s.parse::<SiteName>().unwrap();
    let identities: Vec<SiteIdentity> = sites
        .iter()
        .zip(1u8..)
        .map(|((site, _), number)| {
            let ca = make_ca(&name(site)).unwrap();
            let own = issue_site(&name(site), &ca).unwrap();
            SiteIdentity {
                site: name(site),
                key: SigningKey::from_bytes(&[number; 32]),
                ca,
                certificate_pem: own.certificate_pem,
                key_pem: own.key_pem,
            }
        })
        .collect();
    let entry = |(identity, (number, address)): (&SiteIdentity, (u32, SocketAddr))| SiteEntry {
        name: identity.site.clone(),
        number,
        party: "someone".parse().unwrap(),
        country: "FR".into(),
        addresses: vec![address.to_string()],
        key: PublicKey::of(&identity.key),
        tls_anchor: identity.ca.certificate_pem.clone(),
    };
    let charter = Charter {
        name: "test".into(),
        version: 1,
        parties: Vec::new(),
        threshold: 1,
        sites: identities.iter().zip((1u32..).zip(sites.iter().map(|(_, a)| *a))).map(entry).collect(),
        witnesses: witnesses.iter().map(|w| name(w)).collect(),
        faulty_witnesses: 0,
        lease_duration_ms: lease_ms,
        clock_drift_ppm: 1000,
        interlock: Interlock { changes_per_group_hour: 100, changes_per_party_hour: 100 },
    };
    let envelope = Envelope::sign(&charter, "someone", &identities[0].key);
    identities
        .into_iter()
        .map(|identity| Context {
            site: identity.site.clone(),
            charter: charter.clone(),
            charter_envelope: envelope.clone(),
            identity,
        })
        .collect()
}
