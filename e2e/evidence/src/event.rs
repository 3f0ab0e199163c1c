//! events.jsonl: what the parts of a federation, the rig and the demo say they did, and when.

use crate::epoch::Epoch;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// Who says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Actor {
    /// A site's regent-operator: holder, candidate, takeover.
    Operator,
    /// A witness.
    Witness,
    /// A node's regent-agent.
    Agent,
    /// A node's regent-guard.
    Guard,
    /// The test bed.
    Rig,
    /// The demo or a test: whoever causes the fault.
    Demo,
    /// Anybody else.
    #[serde(untagged)]
    Other(String),
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Fault: a site was cut off.
    Cut,
    /// Fault: every process of a site was killed.
    Crash,
    /// Fault, of a kind: a planned takeover was asked for.
    Takeover,
    /// Fault, of a kind: going back home was asked for.
    Failback,
    /// A single process was killed; nothing may follow from it.
    Kill,
    /// A cut was healed.
    Heal,
    /// A lease ended on one node; the time is the lease's end, `detail.pods` names its pods.
    LeaseEnd,
    /// A node froze a group's pods.
    Frozen,
    /// A node thawed a group's pods.
    Thawed,
    /// A node killed a group's pods by cgroup.
    Killed,
    /// A witness saw the holder's lapse become true (L5); `site` is the witness's.
    Lapsed,
    /// A witness saw the holder proven again before anybody took over; `site` is the witness's.
    Proven,
    /// The lapse became true at the q-th witness; `site` is the standby that acquires.
    Eligible,
    /// A site got a certificate for the group, anew or again.
    Certificate,
    /// A node's gates opened.
    GateOpened,
    /// The first container of the group started at a site.
    FirstStarted,
    /// All the group's pods at a site are ready.
    AllReady,
    /// Anything else.
    #[serde(untagged)]
    Other(String),
}

impl Kind {
    /// The word that stands in events.jsonl.
    pub fn word(&self) -> String {
        match serde_json::to_value(self) {
            Ok(Value::String(word)) => word,
            _ => String::new(),
        }
    }
}

/// One line of events.jsonl.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When: CLOCK_BOOTTIME in nanoseconds.
    pub boot_ns: u64,
    /// Site that it is about.
    pub site: String,
    /// Who says it.
    pub actor: Actor,
    /// What happened.
    pub event: Kind,
    /// Failover group as HOME/NAME; none when it concerns the whole site.
    #[serde(default)]
    pub group: Option<String>,
    /// The group's epoch.
    #[serde(default)]
    pub epoch: Option<Epoch>,
    /// Node that it is about.
    #[serde(default)]
    pub node: Option<String>,
    /// Anything else; known fields have accessors here.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub detail: Map<String, Value>,
}

fn null_is_empty<'de, D: Deserializer<'de>>(from: D) -> Result<Map<String, Value>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

impl Event {
    /// An event of this moment with nothing optional set.
    pub fn now(site: &str, actor: Actor, event: Kind) -> Event {
        Event {
            boot_ns: boot_ns(),
            site: site.to_owned(),
            actor,
            event,
            group: None,
            epoch: None,
            node: None,
            detail: Map::new(),
        }
    }

    /// The same event with CLOCK_REALTIME of this moment in `detail.realtime_ns`, by which audit
    /// logs can be placed.
    pub fn with_realtime(mut self) -> Event {
        let wall = jiff::Timestamp::now().as_nanosecond();
        let ns = u64::try_from(wall).unwrap_or(0);
        self.detail.insert("realtime_ns".to_owned(), ns.into());
        self
    }

    /// `detail.pods`: the names of the pods that a `lease_end` is about.
    pub fn pods(&self) -> Vec<&str> {
        match self.detail.get("pods") {
            Some(Value::Array(pods)) => pods.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }

    /// True when `detail.pods` is there, be it empty.
    pub fn names_pods(&self) -> bool {
        self.detail.contains_key("pods")
    }

    /// `detail.realtime_ns`: CLOCK_REALTIME at `boot_ns`, in nanoseconds.
    pub fn realtime_ns(&self) -> Option<u64> {
        self.detail.get("realtime_ns").and_then(Value::as_u64)
    }
}

/// CLOCK_BOOTTIME of this machine, in nanoseconds.
pub fn boot_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_read_as_its_schema_says() {
        let text = r#"{"boot_ns":5,"site":"ireland","actor":"guard","event":"lease_end",
            "group":"ireland/shop","epoch":"1.1","node":"n1","detail":{"pods":["a","b"]}}"#;
        let event: Event = serde_json::from_str(text).unwrap();
        assert_eq!((event.event.clone(), event.actor.clone()), (Kind::LeaseEnd, Actor::Guard));
        assert_eq!(event.pods(), ["a", "b"]);
        let back: Event = serde_json::from_str(&serde_json::to_string(&event).unwrap()).unwrap();
        assert_eq!(back, event);
    }

    #[test]
    fn unknown_words_are_kept_and_nulls_are_empty() {
        let text = r#"{"boot_ns":5,"site":"x","actor":"helm","event":"installed","group":null,
            "epoch":null,"node":null,"detail":null}"#;
        let event: Event = serde_json::from_str(text).unwrap();
        assert_eq!(event.event, Kind::Other("installed".into()));
        assert_eq!(event.event.word(), "installed");
        assert_eq!(event.actor, Actor::Other("helm".into()));
        assert!(event.detail.is_empty());
    }

    #[test]
    fn an_event_of_now_places_the_wall_clock() {
        let event = Event::now("ireland", Actor::Rig, Kind::Cut).with_realtime();
        assert!(event.boot_ns > 0);
        assert!(event.realtime_ns().unwrap() > event.boot_ns);
    }
}
