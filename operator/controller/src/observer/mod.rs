//! Every site watches every other: a heartbeat a second, and what each sees of the rest.
//!
//! Observations explain, warn and rank. They decide nothing: after a lapse a group is
//! stopped anyway, and a probe that says "healthy" must not keep it down.

mod phi;
mod publish;

pub use phi::Detector;
pub use publish::publish;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use regent_core::ids::SiteName;
use regent_core::time::Moment;
use regent_proto::v1;
use regent_shell::clock;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::federation::client::{Peer, Peers};

const BEAT: Duration = Duration::from_secs(1);
/// A beat that isn't answered by then counts as lost.
const ANSWER: Duration = Duration::from_millis(900);
const PROBE: Duration = Duration::from_secs(2);
/// What a site said of the others is forgotten when it has been silent for so long.
const HEARSAY: Duration = Duration::from_secs(10);

/// How one site sees another.
#[derive(Debug, Clone, PartialEq)]
pub struct Sight {
    /// Whether it hears from it.
    pub alive: bool,
    /// Its suspicion.
    pub phi: f64,
    /// For how long it has been as it is.
    pub since: Duration,
}

/// One other site, as this one sees it.
struct Watched {
    detector: Detector,
    alive: bool,
    since: Moment,
    api_ready: Option<bool>,
    hearsay: Option<(Moment, Vec<v1::SiteSight>)>,
}

/// What this site sees of the others, and hears of what they see.
pub struct Observer {
    context: Arc<Context>,
    watched: Mutex<BTreeMap<SiteName, Watched>>,
    api_ready: AtomicBool,
}

/// A site as it is shown to people.
#[derive(Debug, Clone, PartialEq)]
pub struct SiteView {
    /// Whether its API server is ready, as it says itself.
    pub api_ready: Option<bool>,
    /// Who sees it how.
    pub seen_by: BTreeMap<SiteName, Sight>,
}

fn sight(s: &v1::SiteSight) -> Sight {
    Sight { alive: s.alive, phi: s.phi, since: Duration::from_millis(s.since_ms) }
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

impl Watched {
    fn sight(&mut self, now: Moment) -> Sight {
        let alive = self.detector.is_alive(now);
        if alive != self.alive {
            // A silence began with the last beat, not when it became suspicious.
            self.since = if alive { now } else { self.detector.last().unwrap_or(self.since) };
            self.alive = alive;
        }
        let since = Duration::from_nanos(now.boot_ns.saturating_sub(self.since.boot_ns));
        Sight { alive, phi: self.detector.phi(now), since }
    }
}

impl Observer {
    /// An observer that has heard nobody yet.
    pub fn new(context: Arc<Context>) -> Self {
        let now = clock::now();
        let fresh =
            || Watched { detector: Detector::new(BEAT), alive: false, since: now, api_ready: None, hearsay: None };
        let others = context.charter.sites.iter().filter(|s| s.name != context.site);
        let watched = others.map(|s| (s.name.clone(), fresh())).collect();
        Self { context, watched: Mutex::new(watched), api_ready: AtomicBool::new(false) }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SiteName, Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this site's own API server was ready when it was last asked.
    pub fn api_ready(&self) -> bool {
        self.api_ready.load(Ordering::Relaxed)
    }

    /// What this site sees of each other one.
    pub fn sights(&self) -> BTreeMap<SiteName, Sight> {
        let now = clock::now();
        self.lock().iter_mut().map(|(site, w)| (site.clone(), w.sight(now))).collect()
    }

    /// The matrix of who sees whom, column by column.
    pub fn matrix(&self) -> BTreeMap<SiteName, SiteView> {
        let now = clock::now();
        let mut views: BTreeMap<SiteName, SiteView> = BTreeMap::new();
        let mut add = |of: &SiteName, from: &SiteName, sight: Sight| {
            let view =
                views.entry(of.clone()).or_insert_with(|| SiteView { api_ready: None, seen_by: BTreeMap::new() });
            view.seen_by.insert(from.clone(), sight);
        };
        let mut watched = self.lock();
        for (site, w) in watched.iter_mut() {
            add(site, &self.context.site, w.sight(now));
            let Some((at, sights)) = &w.hearsay else { continue };
            if at.after(HEARSAY).passed_for_waiting(now) {
                continue;
            }
            for said in sights {
                if let Some(of) = self.context.charter.sites.iter().find(|s| s.name.as_str() == said.site) {
                    add(&of.name, site, sight(said));
                }
            }
        }
        for (site, w) in watched.iter() {
            if let Some(view) = views.get_mut(site) {
                view.api_ready = w.api_ready.filter(|_| w.alive);
            }
        }
        views
            .entry(self.context.site.clone())
            .or_insert_with(|| SiteView { api_ready: None, seen_by: BTreeMap::new() })
            .api_ready = Some(self.api_ready());
        views
    }

    fn said(&self) -> (String, bool, Vec<v1::SiteSight>) {
        let sights = self.sights().into_iter().map(|(site, s)| v1::SiteSight {
            site: site.to_string(),
            alive: s.alive,
            phi: s.phi,
            since_ms: millis(s.since),
        });
        (self.context.site.to_string(), self.api_ready(), sights.collect())
    }

    fn hear(&self, site: &SiteName, api_ready: bool, mut sights: Vec<v1::SiteSight>) {
        sights.truncate(self.context.charter.sites.len());
        if let Some(w) = self.lock().get_mut(site) {
            w.api_ready = Some(api_ready);
            w.hearsay = Some((clock::now(), sights));
        }
    }

    /// Answers another site's heartbeat. Its arrival proves nothing about the way there,
    /// so only our own beats feed our detector.
    pub fn answer(&self, caller: &SiteName, request: v1::HeartbeatRequest) -> v1::HeartbeatResponse {
        self.hear(caller, request.api_ready, request.sights);
        let (site, api_ready, sights) = self.said();
        v1::HeartbeatResponse { site, api_ready, sights }
    }

    /// Beats for every other site, and asks the own API server whether it is ready,
    /// until cancelled.
    pub async fn run(self: Arc<Self>, peers: Peers, client: kube::Client, stop: CancellationToken) {
        let beats = peers.iter().map(|peer| self.clone().beat(peer.clone(), stop.clone()));
        futures::future::join(futures::future::join_all(beats), self.probe(client, stop.clone())).await;
    }

    async fn beat(self: Arc<Self>, peer: Arc<Peer>, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(BEAT);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let (site, api_ready, sights) = self.said();
            let request = v1::HeartbeatRequest { site, api_ready, sights };
            match peer.call(ANSWER, |mut client| async move { client.heartbeat(request).await }).await {
                Ok(answer) => {
                    self.hear(peer.site(), answer.api_ready, answer.sights);
                    if let Some(w) = self.lock().get_mut(peer.site()) {
                        w.detector.heard(clock::now());
                    }
                }
                Err(e) => tracing::debug!("heartbeat: {e}"),
            }
        }
    }

    async fn probe(&self, client: kube::Client, stop: CancellationToken) {
        loop {
            let ready = match http::Request::get("/readyz").body(Vec::new()) {
                Ok(request) => {
                    let answer = tokio::time::timeout(PROBE, client.request_text(request)).await;
                    matches!(answer, Ok(Ok(_)))
                }
                Err(_) => false,
            };
            self.api_ready.store(ready, Ordering::Relaxed);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PROBE) => {}
            }
        }
    }
}
