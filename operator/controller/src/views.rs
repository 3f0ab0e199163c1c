//! What the plugin is shown of the moment, as JSON: each witness's view of a group for
//! `kubectl regent explain`, and what is left of each lease for `kubectl regent status`.
//!
//! People reach this through their API server (`services/proxy`), which has authenticated
//! them; it only reads. Whoever else gets here costs a few connections of a few seconds.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use regent_api::lease::{LeaseLeft, Proof};
use regent_core::ids::{GroupKey, SiteName};
use regent_lease::contender::GroupStatus;
use regent_lease::witness::{GroupView, WitnessView};
use regent_proto::v1;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::federation::client::Peers;
use crate::lease::LeaseShell;
use crate::witness::WitnessService;

/// The longest request; the parser takes no smaller bound.
const MAX_HEAD: usize = 8 << 10;
const READ: Duration = Duration::from_secs(2);
const ASK: Duration = Duration::from_secs(2);
/// A connection, with an answer that is read slowly.
const LONGEST: Duration = Duration::from_secs(10);
const AT_ONCE: usize = 16;

/// Why views can't be shown.
#[derive(Debug, thiserror::Error)]
#[error("listening for people at {address}: {error}; choose another --views-listen")]
pub struct ViewsError {
    address: SocketAddr,
    #[source]
    error: std::io::Error,
}

/// Whom to ask.
#[derive(Clone)]
pub struct Views {
    /// This site.
    pub context: Arc<Context>,
    /// The others.
    pub peers: Peers,
    /// Its own witness.
    pub witness: Option<Arc<WitnessService>>,
    /// Its contender.
    pub lease: Arc<LeaseShell>,
}

/// What one witness answered.
#[derive(Debug, Default, Serialize)]
struct Answer {
    view: Option<GroupView>,
    error: Option<String>,
}

/// Serves until cancelled.
pub async fn serve(address: SocketAddr, views: Views, stop: CancellationToken) -> Result<(), ViewsError> {
    let listener = TcpListener::bind(address).await.map_err(|error| ViewsError { address, error })?;
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let answers = TowerToHyperService::new(routes(get(explain), get(left)).with_state(views));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(READ).keep_alive(false).max_buf_size(MAX_HEAD);
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let connection = http.serve_connection(TokioIo::new(stream), answers.clone());
        tokio::spawn(async move {
            if let Ok(Err(e)) = tokio::time::timeout(LONGEST, connection).await {
                tracing::debug!("showing views: {e}");
            }
            drop(place);
        });
    }
}

/// What can be asked.
fn routes<S: Clone + Send + Sync + 'static>(explain: MethodRouter<S>, left: MethodRouter<S>) -> Router<S> {
    let unknown = || async { refused("ask for /explain/HOME/NAME or /leases") };
    Router::new().route("/explain/{home}/{name}", explain).route("/leases", left).fallback(unknown)
}

fn refused(error: &str) -> Response {
    (StatusCode::NOT_FOUND, json(&BTreeMap::from([("error", error)]))).into_response()
}

fn json(data: &impl Serialize) -> Response {
    match serde_json::to_string(data) {
        Ok(text) => ([(CONTENT_TYPE, "application/json")], text).into_response(),
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()).into_response(),
    }
}

async fn explain(State(views): State<Views>, Path((home, name)): Path<(String, String)>) -> Response {
    match format!("{home}/{name}").parse() {
        Ok(group) => json(&views.explain(&group).await),
        Err(e) => refused(&format!("/explain/{home}/{name}: {e}")),
    }
}

async fn left(State(views): State<Views>) -> Response {
    json(&views.leases().await)
}

/// What is left of each lease: by the certificate where this site holds it, otherwise by
/// what this site's witness has promised, which may be nothing any more.
fn leases(site: &SiteName, held: &[GroupStatus], voted: Option<&WitnessView>) -> BTreeMap<String, LeaseLeft> {
    let promises = voted.iter().flat_map(|view| &view.groups).filter_map(|group| {
        let site = group.vote.as_ref()?.site.to_string();
        let left_ms = group.promise.as_ref().map_or(0, |promise| promise.left_ms);
        Some((group.group.to_string(), LeaseLeft { site, left_ms, proof: Proof::Promise }))
    });
    let certified = held.iter().filter_map(|status| {
        let left_ms = status.left_ms?;
        Some((status.group.to_string(), LeaseLeft { site: site.to_string(), left_ms, proof: Proof::Certificate }))
    });
    promises.chain(certified).collect()
}

impl Views {
    async fn leases(&self) -> BTreeMap<String, LeaseLeft> {
        let json = match &self.witness {
            Some(own) => own.explain(None, false).await.ok(),
            None => None,
        };
        let voted: Option<WitnessView> = json.and_then(|json| serde_json::from_str(&json).ok());
        leases(&self.context.site, &self.lease.status(), voted.as_ref())
    }

    /// Asks every witness at once.
    async fn explain(&self, group: &GroupKey) -> BTreeMap<SiteName, Answer> {
        let each = self.context.charter.witnesses.iter().map(|site| async move {
            let answer = match self.ask(site, group).await {
                Ok(Some(view)) => Answer { view: Some(view), error: None },
                Ok(None) => Answer { view: None, error: Some("it does not know the group".into()) },
                Err(error) => Answer { view: None, error: Some(error) },
            };
            (site.clone(), answer)
        });
        futures::future::join_all(each).await.into_iter().collect()
    }

    async fn ask(&self, site: &SiteName, group: &GroupKey) -> Result<Option<GroupView>, String> {
        let json = match (self.peers.get(site), &self.witness) {
            (Some(peer), _) => {
                let request = v1::ExplainRequest { group: group.to_string() };
                let answer = peer.call(ASK, |mut client| async move { client.explain(request).await }).await;
                answer.map_err(|e| e.to_string())?.json
            }
            (None, Some(own)) => own.explain(Some(group.clone()), false).await.map_err(|s| s.message().to_owned())?,
            (None, None) => return Err("it does not run".to_owned()),
        };
        let view: WitnessView = serde_json::from_str(&json).map_err(|e| format!("unreadable answer: {e}"))?;
        Ok(view.groups.into_iter().next())
    }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::extract::Request;
    use regent_lease::contender::RoleName;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn only_a_get_of_a_group_or_of_the_leases_is_a_question() {
        let explain = |Path((home, name)): Path<(String, String)>| async move { format!("{home}/{name}") };
        let routes = routes(get(explain), get(async || "leases"));
        let asked = async |method: &str, path: &str| {
            let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
            let answer = routes.clone().oneshot(request).await.unwrap();
            let (status, body) = (answer.status(), answer.into_body());
            (status.as_u16(), String::from_utf8(to_bytes(body, 1024).await.unwrap().to_vec()).unwrap())
        };
        assert_eq!(asked("GET", "/explain/ireland/shop").await, (200, "ireland/shop".to_owned()));
        assert_eq!(asked("GET", "/explain/ireland/shop?x=1").await, (200, "ireland/shop".to_owned()));
        assert_eq!(asked("GET", "/leases").await, (200, "leases".to_owned()));
        assert_eq!(asked("POST", "/explain/ireland/shop").await.0, 405);
        for bad in ["/", "/explain/ireland", "/explain/ireland/shop/more"] {
            let (status, body) = asked("GET", bad).await;
            assert!(status == 404 && body.contains("/explain/HOME/NAME"), "{bad}: {status} {body}");
        }
    }

    #[test]
    fn a_certificate_tells_more_of_a_lease_than_a_promise() {
        let group: GroupKey = "ireland/shop".parse().unwrap();
        let holder = GroupStatus {
            group: group.clone(),
            role: RoleName::Holder,
            idle: None,
            held_back: None,
            epoch: None,
            certified: None,
            left_ms: Some(2300),
            release: None,
            plan_version: 1,
            believed: None,
            witnesses: BTreeMap::new(),
        };
        let standby = GroupStatus { role: RoleName::Candidate, left_ms: None, ..holder.clone() };
        let voted: WitnessView = serde_json::from_value(serde_json::json!({
            "witness": "france", "start": 1, "leads": true, "stale": false, "waitsMs": 0,
            "groups": [{ "group": "ireland/shop", "vote": { "site": "ireland", "epoch": "1.1" }, "retired": null, "planVersion": 1, "protection": "Protected",
                "standbys": ["france"], "promise": { "site": "ireland", "leftMs": 1500 }, "provenAgoMs": 10, "lapsesInMs": 4000,
                "busy": false, "line": [], "changesThisHour": 0, "claimants": [] }],
        }))
        .unwrap();
        let left = |site: &str, held, voted| leases(&site.parse().unwrap(), &[held], voted).remove(&group.to_string());
        let lease = |left_ms, proof| Some(LeaseLeft { site: "ireland".into(), left_ms, proof });
        assert_eq!(left("ireland", holder, Some(&voted)), lease(2300, Proof::Certificate));
        assert_eq!(left("france", standby.clone(), Some(&voted)), lease(1500, Proof::Promise));
        let mut over = voted.clone();
        over.groups.iter_mut().for_each(|group| group.promise = None);
        assert_eq!(left("france", standby.clone(), Some(&over)), lease(0, Proof::Promise));
        assert_eq!(left("france", standby, None), None);
    }
}
