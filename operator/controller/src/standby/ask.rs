//! Asking home, or who holds them, about all groups at once: what is not new costs no call.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use regent_core::ids::{GroupKey, SiteName};
use regent_core::time::Moment;
use regent_kinds::object::shortened;
use regent_kinds::report::MAX_TEXT;
use regent_proto::v1;
use regent_shell::clock;
use tokio_util::sync::CancellationToken;

use super::Standby;
use crate::federation::server::MAX_ASKED;

/// How often. A change is here within this time and what fetching and applying it takes.
const EVERY: Duration = Duration::from_secs(1);
const CALL: Duration = Duration::from_secs(3);
/// For how long an answer stands; then a group is asked for by itself.
const STANDS: Duration = Duration::from_secs(5);

/// That there is nothing newer than a revision.
#[derive(Debug, Clone)]
pub(super) struct Quiet {
    have: String,
    word: String,
    at: Moment,
}

impl Quiet {
    /// Why there is nothing newer than `have`, if that was said of late.
    pub fn of(&self, have: &str) -> Option<&str> {
        let stands = self.have == have && !self.at.after(STANDS).passed_for_stopping(clock::now());
        stands.then_some(self.word.as_str())
    }
}

impl Standby {
    /// Asks again and again while this replica leads, until cancelled.
    pub(super) async fn ask_for_all(self: Arc<Self>, stop: CancellationToken) {
        loop {
            if self.leads() {
                let calls = self.questions().into_iter().map(|(site, held)| self.ask_site(site, held));
                futures::future::join_all(calls).await;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    /// What is held of each group, by whom to ask. One of which nothing is held is asked for by itself.
    fn questions(&self) -> BTreeMap<SiteName, Vec<(GroupKey, String)>> {
        let held: Vec<(GroupKey, String)> = {
            let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
            let next = |(group, m): (&GroupKey, &super::Memory)| {
                Some((group.clone(), m.revisions.as_ref()?.next.as_ref()?.digest.clone()))
            };
            memory.iter().filter_map(next).collect()
        };
        let mut questions: BTreeMap<SiteName, Vec<(GroupKey, String)>> = BTreeMap::new();
        for (group, have) in held.into_iter().filter(|(group, _)| !self.shell.may_run(group)) {
            let Some(site) = self.source(&group).map(|s| s.peer().site().clone()) else { continue };
            questions.entry(site).or_default().push((group, have));
        }
        questions
    }

    async fn ask_site(&self, site: SiteName, held: Vec<(GroupKey, String)>) {
        let Some(peer) = self.peers.get(&site) else { return };
        for part in held.chunks(MAX_ASKED) {
            let question = |(group, have): &(GroupKey, String)| v1::BundleRequest {
                group: group.to_string(),
                have_digest: have.clone(),
            };
            let request = v1::NewerRequest { held: part.iter().map(question).collect() };
            match peer.call(CALL, |mut client| async move { client.newer(request).await }).await {
                Ok(answer) => self.heard(part, answer.news),
                Err(e) => tracing::debug!("asking for what is new: {e}"),
            }
        }
    }

    fn heard(&self, asked: &[(GroupKey, String)], news: Vec<v1::GroupNews>) {
        let mut news: BTreeMap<String, v1::GroupNews> = news.into_iter().map(|n| (n.group.clone(), n)).collect();
        let at = clock::now();
        for (group, have) in asked {
            let said = news.remove(&group.to_string()).unwrap_or_default();
            self.remember(group, |m| {
                let word = shortened(&said.notice, MAX_TEXT).to_owned();
                m.quiet = (!said.newer).then(|| Quiet { have: have.clone(), word, at });
                if said.newer {
                    m.wake.notify_one();
                }
            });
        }
    }
}
