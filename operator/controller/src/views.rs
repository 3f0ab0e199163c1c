//! What `kubectl regent explain` is shown: each witness's view of a group, as JSON.
//!
//! People reach this through their API server (`services/proxy`), which has authenticated
//! them; it only reads. One request a connection, so a few lines of HTTP/1.1 do.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use regent_core::ids::{GroupKey, SiteName};
use regent_core::witness::{GroupView, WitnessView};
use regent_proto::v1;
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::federation::client::Peers;
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

/// The group of a request line such as `GET /explain/ireland/shop HTTP/1.1`.
fn asked(head: &str) -> Option<GroupKey> {
    let mut words = head.lines().next()?.split(' ');
    let (method, path) = (words.next()?, words.next()?);
    let path = path.split('?').next()?;
    (method == "GET").then(|| path.strip_prefix("/explain/"))??.parse().ok()
}

impl Views {
    async fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let head = tokio::time::timeout(READ, head(&mut stream)).await.map_err(std::io::Error::other)??;
        let (status, body) = match asked(&head) {
            Some(group) => ("200 OK", serde_json::to_string(&self.explain(&group).await)?),
            None => ("404 Not Found", r#"{"error":"ask for /explain/HOME/NAME"}"#.to_owned()),
        };
        let length = body.len();
        let text = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        stream.write_all(text.as_bytes()).await?;
        stream.shutdown().await
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
    use super::*;

    #[test]
    fn only_a_get_of_a_group_is_a_question() {
        assert_eq!(asked("GET /explain/ireland/shop HTTP/1.1\r\n\r\n").unwrap().to_string(), "ireland/shop");
        assert_eq!(asked("GET /explain/ireland/shop?x=1 HTTP/1.1\r\n\r\n").unwrap().to_string(), "ireland/shop");
        for bad in ["POST /explain/ireland/shop HTTP/1.1", "GET / HTTP/1.1", "GET /explain/ireland HTTP/1.1", ""] {
            assert_eq!(asked(bad), None, "{bad}");
        }
    }
}
