//! Kubernetes Events: what changed about a group, for `kubectl get events` and `describe`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use regent_api::condition::get;
use regent_api::{FailoverGroup, FailoverGroupStatus};
use regent_kinds::object::shortened;

use crate::objects::bounded;

/// An Event's note holds a kibibyte.
const NOTE_BYTES: usize = 1000;

/// One transition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// Whether it is a warning.
    pub warning: bool,
    /// One word: the condition's type and reason, or what changed.
    pub reason: String,
    /// What a person should know.
    pub note: String,
}

/// What is different between two statuses, so that a person wants to know.
pub fn between(old: &FailoverGroupStatus, new: &FailoverGroupStatus) -> Vec<News> {
    let is_news = |c: &&Condition| {
        get(&old.conditions, &c.type_).is_none_or(|before| (&before.status, &before.reason) != (&c.status, &c.reason))
    };
    let mut news: Vec<News> = new
        .conditions
        .iter()
        .filter(is_news)
        .map(|c| News {
            warning: c.status == "False" && !matches!(c.reason.as_str(), "Observed" | "Protecting"),
            reason: format!("{}{}", if c.status == "True" { "" } else { "Not" }, c.type_),
            note: shortened(&format!("{}: {}", c.reason, c.message), NOTE_BYTES).to_owned(),
        })
        .collect();
    if let (Some(site), Some(epoch)) = (&new.holder, &new.epoch)
        && (&old.holder, &old.epoch) != (&new.holder, &new.epoch)
    {
        let note = match &old.holder {
            Some(before) if before != site => {
                format!("site {site} holds the group under epoch {epoch}, site {before} held it before")
            }
            _ => format!("site {site} holds the group under epoch {epoch}"),
        };
        news.push(News { warning: false, reason: "Holder".into(), note });
    }
    news
}

/// Publishes what changed. An Event that can't be written is no reason to stop.
pub async fn publish(client: &kube::Client, object: &FailoverGroup, news: Vec<News>) {
    let reporter = Reporter { controller: "regent-operator".into(), instance: std::env::var("POD_NAME").ok() };
    // A new one each time: kube's makes a series of Events that share a reason within six minutes,
    // and keeps the note of the first, where it is the note that names the holder.
    let recorder = Recorder::new(client.clone(), reporter);
    let about = object.object_ref(&());
    for one in news {
        let event = Event {
            type_: if one.warning { EventType::Warning } else { EventType::Normal },
            reason: one.reason,
            note: Some(one.note),
            action: "Reconcile".into(),
            secondary: None,
        };
        if let Err(e) = bounded("Events", recorder.publish(&event, &about)).await {
            tracing::debug!("{e}");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(ready: &str, reason: &str, holder: &str) -> FailoverGroupStatus {
        serde_json::from_value(json!({ "holder": holder, "epoch": "1.1", "conditions": [
            { "type": "Ready", "status": ready, "reason": reason, "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z" }] }))
        .unwrap()
    }

    #[test]
    fn a_transition_is_told_once_and_a_changed_message_is_none() {
        let bad = status("False", "NoStandbyReady", "ireland");
        let first = between(&FailoverGroupStatus::default(), &bad);
        assert_eq!(
            first.iter().map(|n| (n.reason.as_str(), n.warning)).collect::<Vec<_>>(),
            [("NotReady", true), ("Holder", false)]
        );
        let mut reworded = bad.clone();
        reworded.conditions[0].message = "another".into();
        assert_eq!(between(&bad, &reworded), vec![]);
        let good = status("True", "StandbyReady", "france");
        let next = between(&bad, &good);
        assert_eq!(next[0], News { warning: false, reason: "Ready".into(), note: "StandbyReady: m".into() });
        assert!(next[1].note.contains("france") && next[1].note.contains("ireland held it before"), "{}", next[1].note);
    }
}
