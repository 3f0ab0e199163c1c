//! What the plugin is shown of the moment, as JSON: each witness's view of a group for
//! `kubectl regent explain`, and what is left of each lease for `kubectl regent status`.
//!
//! People reach this through their API server (`services/proxy`), which has authenticated
//! them; it only reads. One request a connection, so a few lines of HTTP/1.1 do.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use regent_api::lease::{LeaseLeft, Proof};
use regent_core::ids::{GroupKey, SiteName};
use regent_lease::contender::GroupStatus;
use regent_lease::witness::{GroupView, WitnessView};
use regent_proto::v1;
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::federation::client::Peers;
use crate::lease::LeaseShell;
use crate::witness::WitnessService;

const MAX_HEAD: usize = 8 << 10;
const READ: Duration = Duration::from_secs(2);
const ASK: Duration = Duration::from_secs(2);
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

/// What can be asked.
#[derive(Debug, PartialEq, Eq)]
enum Question {
    /// `/explain/HOME/NAME`
    Explain(GroupKey),
    /// `/leases`
    Leases,
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
        let views = views.clone();
        tokio::spawn(async move {
            if let Err(e) = views.answer(stream).await {
                tracing::debug!("showing views: {e}");
            }
            drop(place);
        });
    }
}

async fn head(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    let mut piece = [0; 1024];
    while !bytes.windows(4).any(|w| w == b"\r\n\r\n") && bytes.len() < MAX_HEAD {
        let n = stream.read(&mut piece).await?;
        if n == 0 {
            break;
        }
        bytes.extend_from_slice(piece.get(..n).unwrap_or_default());
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The question of a request line such as `GET /explain/ireland/shop HTTP/1.1`.
fn asked(head: &str) -> Option<Question> {
    let mut words = head.lines().next()?.split(' ');
    let (method, path) = (words.next()?, words.next()?);
    let path = path.split('?').next()?;
    match path.strip_prefix("/explain/") {
        _ if method != "GET" => None,
        Some(group) => group.parse().ok().map(Question::Explain),
        None => (path == "/leases").then_some(Question::Leases),
    }
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
    async fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let head = tokio::time::timeout(READ, head(&mut stream)).await.map_err(std::io::Error::other)??;
        let (status, body) = match asked(&head) {
            Some(Question::Explain(group)) => ("200 OK", serde_json::to_string(&self.explain(&group).await)?),
            Some(Question::Leases) => ("200 OK", serde_json::to_string(&self.leases().await)?),
            None => ("404 Not Found", r#"{"error":"ask for /explain/HOME/NAME or /leases"}"#.to_owned()),
        };
        let length = body.len();
        let text = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        stream.write_all(text.as_bytes()).await?;
        stream.shutdown().await
    }

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
    use regent_lease::contender::RoleName;

    use super::*;

    #[test]
    fn only_a_get_of_a_group_or_of_the_leases_is_a_question() {
        let shop = || Some(Question::Explain("ireland/shop".parse().unwrap()));
        assert_eq!(asked("GET /explain/ireland/shop HTTP/1.1\r\n\r\n"), shop());
        assert_eq!(asked("GET /explain/ireland/shop?x=1 HTTP/1.1\r\n\r\n"), shop());
        assert_eq!(asked("GET /leases HTTP/1.1\r\n\r\n"), Some(Question::Leases));
        for bad in ["POST /explain/ireland/shop HTTP/1.1", "GET / HTTP/1.1", "GET /explain/ireland HTTP/1.1", ""] {
            assert_eq!(asked(bad), None, "{bad}");
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
