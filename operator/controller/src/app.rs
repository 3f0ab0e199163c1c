//! Puts the parts of the operator together.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ListParams};
use regent_api::{ControlLease, FailoverGroup, NAMESPACE, Takeover};
use regent_lease::contender::ContenderError;
use regent_shell::retry::{RetryPolicy, seed};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cache::Cache;
use crate::context::Context;
use crate::federation::client::{CallError, Peers};
use crate::federation::server::{ServeError, Services, serve};
use crate::hub::{self, HubError, HubHandle};
use crate::leader::{Elector, Leadership};
use crate::lease::{self, LeaseShell, NodeLists, Takeovers};
use crate::mirror::{self, Mirror};
use crate::objects::{self, ControlLeases, Snapshot, bounded};
use crate::observer::{self, Observer};
use crate::plans::{self, Plans};
use crate::reconcile::{Memory, Reconciler, copies};
use crate::releases::Releases;
use crate::standby::Standby;
use crate::standby::survey::HELD;
use crate::views::{self, ViewsError};
use crate::witness::{self, WitnessService};

/// The Lease by which the replicas elect the one that writes.
const LEASE: &str = "regent-operator";
const HUBS_EVERY: Duration = Duration::from_secs(3);

/// Why the operator can't go on.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The charter's addresses or keys can't be used.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The contender can't start.
    #[error(transparent)]
    Contender(#[from] ContenderError),
    /// Other sites can't be answered.
    #[error(transparent)]
    Federation(#[from] ServeError),
    /// Agents can't be answered.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// People can't be answered.
    #[error(transparent)]
    Views(#[from] ViewsError),
    /// The hub's address is taken or not this machine's.
    #[error("listening for agents at {address}: {error}; choose another --hub-listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        #[source]
        error: std::io::Error,
    },
    /// A part panicked.
    #[error("a part of the operator died: {0}")]
    Died(#[from] tokio::task::JoinError),
}

type Result<T> = std::result::Result<T, AppError>;

/// Who this replica is, and where it listens.
#[derive(Debug, Clone)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its address.
    pub ip: IpAddr,
    /// For other sites.
    pub federation: SocketAddr,
    /// For agents.
    pub hub: SocketAddr,
    /// For people, through the API server.
    pub views: SocketAddr,
}

/// Runs a single witness process, until `stop`.
pub async fn run_witness(
    context: Context,
    client: kube::Client,
    listen: SocketAddr,
    stop: CancellationToken,
) -> Result<()> {
    let context = Arc::new(context);
    let peers = Peers::new(&context)?;
    let leases = ControlLeases::new(client.clone());
    let plans = Arc::new(Plans::new(context.clone(), leases.clone()));
    let observer = Arc::new(Observer::new(context.clone()));
    let service = Arc::new(WitnessService::new(context.clone()));
    let services = Services {
        context: context.clone(),
        witness: Some(service.clone()),
        plans: plans.clone(),
        observer: observer.clone(),
        lease: None,
        leases: None,
        bundles: None,
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(guarded(stop.clone(), serve(listen, services, stop.clone())));
    tasks.spawn({
        let (observer, peers, client, stop) = (observer, peers.clone(), client.clone(), stop.clone());
        async move {
            observer.run(peers, client, stop).await;
            Ok(())
        }
    });
    tasks.spawn({
        let (client, peers, stop) = (client.clone(), peers.clone(), stop.clone());
        async move {
            let copies = copies::run(client, plans.clone(), leases, stop.clone());
            tokio::join!(copies, plans::exchange(plans, peers, stop));
            Ok(())
        }
    });
    let mut retry = RetryPolicy::new(Duration::from_millis(200), Duration::from_secs(5), seed(context.site.as_str()));
    while !stop.is_cancelled() {
        match service.run_alone(&client, peers.clone(), stop.clone()).await {
            Ok(()) => break,
            Err(e) => tracing::error!("the witness can't start, and tries again: {e}"),
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = retry.wait() => {}
        }
    }
    finish(tasks).await
}

/// Stops everything when one part can't go on.
async fn guarded<E>(stop: CancellationToken, part: impl Future<Output = std::result::Result<(), E>>) -> Result<()>
where
    AppError: From<E>,
{
    let done = part.await;
    stop.cancel();
    Ok(done?)
}

async fn finish(mut tasks: JoinSet<Result<()>>) -> Result<()> {
    let mut first = Ok(());
    while let Some(done) = tasks.join_next().await {
        let done = done.unwrap_or_else(|e| Err(e.into()));
        if first.is_ok() {
            first = done;
        }
    }
    first
}

/// Runs the operator of a site, until `stop`.
pub async fn run_site(context: Context, client: kube::Client, pod: Pod, stop: CancellationToken) -> Result<()> {
    let site = Site::new(context, client, pod, stop)?;
    site.run().await
}

/// Everything that the parts of one replica share.
pub struct Site {
    context: Arc<Context>,
    client: kube::Client,
    pod: Pod,
    stop: CancellationToken,
    peers: Peers,
    leases: ControlLeases,
    plans: Arc<Plans>,
    observer: Arc<Observer>,
    hub: HubHandle,
    tasks: JoinSet<Result<()>>,
}

impl Site {
    fn new(context: Context, client: kube::Client, pod: Pod, stop: CancellationToken) -> Result<Self> {
        let context = Arc::new(context);
        let peers = Peers::new(&context)?;
        let leases = ControlLeases::new(client.clone());
        let plans = Arc::new(Plans::new(context.clone(), leases.clone()));
        let observer = Arc::new(Observer::new(context.clone()));
        let (hub, tasks) = (HubHandle::new(), JoinSet::new());
        Ok(Self { context, client, pod, stop, peers, leases, plans, observer, hub, tasks })
    }

    fn spawn(&mut self, part: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(async move {
            part.await;
            Ok(())
        });
    }

    async fn run(mut self) -> Result<()> {
        let objects = self.follow_leases();
        let groups = self.follow::<FailoverGroup>();
        let takeovers = self.follow::<Takeover>();
        let leadership = self.elect(LEASE);
        let witness =
            WitnessService::is_needed(&self.context).then(|| Arc::new(WitnessService::new(self.context.clone())));
        if let Some(service) = &witness {
            self.run_witness(service.clone());
        }
        let (shell, jobs) =
            LeaseShell::start(self.context.clone(), self.hub.clone(), &self.peers, witness.clone(), &self.stop)?;
        let lists =
            Arc::new(NodeLists::new(self.leases.clone(), self.hub.clone(), self.plans.clone(), objects.clone()));
        self.spawn(shell.clone().run(self.stop.clone()));
        self.spawn(lease::follow_inputs(
            shell.clone(),
            self.plans.clone(),
            groups.clone(),
            takeovers.clone(),
            objects.clone(),
            self.stop.clone(),
        ));
        self.spawn(lists.clone().run(self.stop.clone()));
        let publish = lease::publish(
            shell.clone(),
            self.plans.clone(),
            self.leases.clone(),
            objects.clone(),
            leadership.clone(),
            self.stop.clone(),
        );
        self.spawn(publish);
        let moves = Takeovers {
            shell: shell.clone(),
            lists: lists.clone(),
            plans: self.plans.clone(),
            groups: groups.clone(),
            takeovers,
            leadership: leadership.clone(),
            api: kube::Api::all(self.client.clone()),
        };
        self.spawn(lease::drive_takeovers(moves, self.peers.clone(), jobs, self.stop.clone()));
        self.watch_others(leadership.clone());
        let releases = self.keep_groups(shell.clone(), lists, groups, objects, leadership);
        self.serve(witness, shell, releases).await?;
        finish(self.tasks).await
    }

    /// Reconciles the groups: those at home here, and those that this site stands by for.
    fn keep_groups(
        &mut self,
        shell: Arc<LeaseShell>,
        lists: Arc<NodeLists>,
        groups: watch::Receiver<Snapshot<FailoverGroup>>,
        leases: watch::Receiver<Snapshot<ControlLease>>,
        leadership: watch::Receiver<Leadership>,
    ) -> Arc<Releases> {
        let (context, client, plans, peers) =
            (self.context.clone(), self.client.clone(), self.plans.clone(), self.peers.clone());
        let cache = Cache::start(client.clone(), &mirror::capture::KINDS, &self.stop);
        let mirror =
            Mirror::new(context.clone(), client.clone(), cache.clone(), plans.clone(), shell.clone(), groups.clone());
        let mirror = Arc::new(mirror);
        let standby = Standby::new(
            context.clone(),
            plans.clone(),
            peers.clone(),
            shell.clone(),
            groups.clone(),
            leadership.clone(),
            Cache::start(client.clone(), &HELD, &self.stop),
        );
        let standby = Arc::new(standby);
        let (hub, releases) = (
            self.hub.clone(),
            Releases {
                context: context.clone(),
                plans: plans.clone(),
                mirror: mirror.clone(),
                standby: standby.clone(),
            },
        );
        let reconciler = Reconciler {
            context,
            client,
            plans,
            peers,
            shell,
            lists,
            hub,
            mirror: mirror.clone(),
            standby: standby.clone(),
            groups,
            leases,
            leadership,
            cache,
            memory: Memory::default(),
        };
        self.spawn(standby.run(self.stop.clone()));
        self.spawn(Arc::new(reconciler).run(self.stop.clone()));
        Arc::new(releases)
    }

    /// Follows the ControlLeases, and takes the plans that another replica kept there.
    fn follow_leases(&mut self) -> watch::Receiver<Snapshot<ControlLease>> {
        let mut objects = self.follow::<ControlLease>();
        let receiver = objects.clone();
        let (plans, stop) = (self.plans.clone(), self.stop.clone());
        self.spawn(async move {
            let mut before: Snapshot<ControlLease> = Snapshot::default();
            loop {
                let all = objects.borrow_and_update().clone();
                let is_same =
                    |name: &String, o: &Arc<ControlLease>| before.get(name).is_some_and(|b| Arc::ptr_eq(b, o));
                let changed = all.iter().filter(|(name, object)| !is_same(name, object));
                for envelope in changed.filter_map(|(_, o)| plans::plan_of(o.status.as_ref()?)) {
                    if let Err(e) = plans.absorb(&envelope) {
                        tracing::warn!("a kept plan: {e}");
                    }
                }
                before = all;
                tokio::select! {
                    () = stop.cancelled() => return,
                    changed = objects.changed() => if changed.is_err() { return },
                }
            }
        });
        receiver
    }

    fn follow<K>(&mut self) -> watch::Receiver<Snapshot<K>>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::ClusterResourceScope>
            + Clone
            + serde::de::DeserializeOwned
            + std::fmt::Debug
            + Send
            + Sync
            + 'static,
    {
        let sender = watch::Sender::new(Snapshot::<K>::default());
        let receiver = sender.subscribe();
        self.spawn(objects::follow(Api::<K>::all(self.client.clone()), sender, self.stop.clone()));
        receiver
    }

    fn elect(&mut self, lease: &str) -> watch::Receiver<Leadership> {
        let identity = format!("{}/{}", self.pod.name, self.pod.ip);
        let elector = Elector::new(self.client.clone(), NAMESPACE, lease, &identity);
        let watch = elector.watch();
        self.spawn(elector.run(self.stop.clone()));
        watch
    }

    fn run_witness(&mut self, service: Arc<WitnessService>) {
        let leadership = self.elect(witness::LEASE);
        let (client, peers, port) = (self.client.clone(), self.peers.clone(), self.pod.federation.port());
        let stop = self.stop.clone();
        self.spawn(async move { service.run_elected(&client, peers, port, leadership, stop).await });
    }

    fn watch_others(&mut self, leadership: watch::Receiver<Leadership>) {
        let (observer, plans, client) = (self.observer.clone(), self.plans.clone(), self.client.clone());
        self.spawn(observer.clone().run(self.peers.clone(), client.clone(), self.stop.clone()));
        self.spawn(observer::publish(observer, plans.clone(), client.clone(), leadership, self.stop.clone()));
        self.spawn(plans::exchange(plans, self.peers.clone(), self.stop.clone()));
        self.spawn(find_hubs(self.hub.clone(), client, self.pod.clone(), self.stop.clone()));
    }

    async fn serve(
        &mut self,
        witness: Option<Arc<WitnessService>>,
        shell: Arc<LeaseShell>,
        releases: Arc<Releases>,
    ) -> Result<()> {
        let listener =
            TcpListener::bind(self.pod.hub).await.map_err(|error| AppError::Listen { address: self.pod.hub, error })?;
        let (hub, context, stop) = (self.hub.clone(), self.context.clone(), self.stop.clone());
        let authenticate = hub::token_review(self.client.clone());
        self.tasks.spawn(guarded(stop.clone(), async move {
            hub::serve(listener, hub, &context.identity, authenticate, stop).await
        }));
        let shown = views::Views {
            context: self.context.clone(),
            peers: self.peers.clone(),
            witness: witness.clone(),
            lease: shell.clone(),
        };
        self.tasks.spawn(guarded(self.stop.clone(), views::serve(self.pod.views, shown, self.stop.clone())));
        let services = Services {
            context: self.context.clone(),
            witness,
            plans: self.plans.clone(),
            observer: self.observer.clone(),
            lease: Some(shell),
            leases: Some(self.leases.clone()),
            bundles: Some(releases),
        };
        self.tasks.spawn(guarded(self.stop.clone(), serve(self.pod.federation, services, self.stop.clone())));
        Ok(())
    }
}

/// Tells agents where all hubs of this site are, until cancelled.
async fn find_hubs(hub: HubHandle, client: kube::Client, pod: Pod, stop: CancellationToken) {
    let api: Api<EndpointSlice> = Api::namespaced(client, NAMESPACE);
    let params = ListParams::default().labels("kubernetes.io/service-name=regent-hub");
    let own = SocketAddr::new(pod.ip, pod.hub.port());
    hub.set_peers(vec![own]);
    loop {
        match bounded("EndpointSlices of Service regent-hub", api.list(&params)).await {
            Ok(slices) => {
                let addresses = slices
                    .items
                    .into_iter()
                    .flat_map(|s| s.endpoints.unwrap_or_default())
                    .filter(|e| e.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true));
                let ips = addresses.flat_map(|e| e.addresses).filter_map(|a| a.parse::<IpAddr>().ok());
                let mut hubs: BTreeSet<SocketAddr> = ips.map(|ip| SocketAddr::new(ip, pod.hub.port())).collect();
                hubs.insert(own);
                hub.set_peers(hubs.into_iter().collect());
            }
            // Agents keep what they were told last.
            Err(e) => tracing::debug!("{e}"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(HUBS_EVERY) => {}
        }
    }
}
