//! Made-up evidence: recordings that must pass, to be spoilt one fact at a time.
#![allow(dead_code, clippy::unwrap_used)]

use regent_evidence::{Evidence, Report, Scenario, judge};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

pub const GROUP: &str = "ireland/shop";
/// The fault's moment: everything else is told in milliseconds from it.
pub const ZERO_NS: i64 = 5_000_000_000_000;
/// CLOCK_REALTIME at the fault.
pub const WALL_ZERO_NS: i64 = 1_800_000_000_000_000_000;
const START: i64 = -3_000;

pub fn ns(ms: i64) -> i64 {
    ZERO_NS + ms * 1_000_000
}

/// A recording, each part of it open to changes.
#[derive(Clone)]
pub struct Recording {
    pub scenario: Scenario,
    pub events: Vec<Value>,
    /// Lines by file name without `.jsonl`.
    pub journal: BTreeMap<String, Vec<Value>>,
    pub sink: BTreeMap<String, Vec<Value>>,
    pub client: Vec<Value>,
    pub audit: BTreeMap<String, Vec<Value>>,
    /// Files to leave out or overwrite, by path, after all others are written.
    pub raw: Vec<(&'static str, Option<String>)>,
}

/// By its name: a recording has thousands of lines.
impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the recording of {}", self.scenario)
    }
}

impl Recording {
    fn new(scenario: Scenario, end: i64) -> Recording {
        let mut made = Recording {
            scenario,
            events: Vec::new(),
            journal: BTreeMap::new(),
            sink: BTreeMap::new(),
            client: Vec::new(),
            audit: BTreeMap::new(),
            raw: Vec::new(),
        };
        for site in ["ireland", "france", "germany"] {
            for at in (START..end).step_by(1_000) {
                let lease = json!({"resource": "leases", "namespace": "kube-system", "name": "x", "apiGroup": "coordination.k8s.io"});
                made.audited(site, at, "update", "system:kube-scheduler", lease);
            }
        }
        made.event(START, "ireland", "operator", "certificate", Some("1.1"), None);
        made
    }

    pub fn event(
        &mut self,
        at: i64,
        site: &str,
        actor: &str,
        event: &str,
        epoch: Option<&str>,
        node: Option<&str>,
    ) -> &mut Value {
        self.events.push(json!({
            "boot_ns": ns(at), "site": site, "actor": actor, "event": event, "group": GROUP,
            "epoch": epoch, "node": node, "detail": {}
        }));
        self.events.last_mut().unwrap()
    }

    pub fn fault(&mut self, at: i64, site: &str, event: &str) {
        let made = self.event(at, site, "demo", event, None, None);
        made["group"] = Value::Null;
        made["detail"] = json!({"realtime_ns": WALL_ZERO_NS + at * 1_000_000});
    }

    pub fn lease_end(&mut self, at: i64, site: &str, node: &str, epoch: &str, pods: &[&str]) {
        let made = self.event(at, site, "guard", "lease_end", Some(epoch), Some(node));
        made["detail"] = json!({"pods": pods});
    }

    /// A pod writes every 50 ms, and each line arrives 1 ms later.
    pub fn run(&mut self, site: &str, pod: &str, from: i64, to: i64, epoch: &str) {
        let file = self.journal.entry(format!("{site}-{pod}")).or_default();
        let sink = self.sink.entry(site.to_owned()).or_default();
        for at in (from..=to).step_by(50) {
            let mut line = json!({
                "boot_ns": ns(at), "site": site, "group": GROUP, "pod": pod,
                "uid": format!("uid-{pod}"), "seq": file.len() + 1, "epoch": epoch
            });
            file.push(line.clone());
            line.as_object_mut().unwrap().remove("boot_ns");
            line["received_ns"] = (ns(at) + 1_000_000).into();
            sink.push(line);
        }
    }

    /// The client asks Ireland and France in turn; each answers within its stretches.
    pub fn ask(&mut self, to: i64, answering: &[(&str, i64, i64)]) {
        for (index, at) in (START..to).step_by(20).enumerate() {
            let site = ["ireland", "france"][index % 2];
            let ok = answering.iter().any(|(s, a, b)| *s == site && (*a..=*b).contains(&at));
            let (took, outcome) = if ok { (2, "ok") } else { (200, "timeout") };
            self.client.push(json!({
                "start_ns": ns(at), "end_ns": ns(at + took), "outcome": outcome, "site": site
            }));
        }
    }

    pub fn audited(&mut self, site: &str, at: i64, verb: &str, user: &str, object: Value) -> &mut Value {
        let lines = self.audit.entry(site.to_owned()).or_default();
        let wall = jiff::Timestamp::from_nanosecond((WALL_ZERO_NS + at * 1_000_000).into()).unwrap();
        lines.push(json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata",
            "auditID": format!("{site}-{}", lines.len()), "stage": "ResponseComplete",
            "requestURI": "/x", "verb": verb, "user": {"username": user}, "objectRef": object,
            "responseStatus": {"metadata": {}, "code": 200},
            "requestReceivedTimestamp": wall.to_string(), "stageTimestamp": wall.to_string()
        }));
        lines.last_mut().unwrap()
    }

    /// The first event of a kind.
    pub fn first(&mut self, event: &str) -> &mut Value {
        self.events.iter_mut().find(|e| e["event"] == event).unwrap()
    }

    pub fn drop_events(&mut self, event: &str) {
        self.events.retain(|e| e["event"] != event);
    }

    pub fn write(&self, dir: &Path) {
        let text = |lines: &[Value]| lines.iter().map(|l| format!("{l}\n")).collect::<String>();
        for folder in ["journal", "sink", "audit"] {
            fs::create_dir_all(dir.join(folder)).unwrap();
        }
        fs::write(dir.join("events.jsonl"), text(&self.events)).unwrap();
        fs::write(dir.join("client.jsonl"), text(&self.client)).unwrap();
        for (folder, files) in [("journal", &self.journal), ("sink", &self.sink), ("audit", &self.audit)] {
            for (name, lines) in files {
                fs::write(dir.join(format!("{folder}/{name}.jsonl")), text(lines)).unwrap();
            }
        }
        for (path, content) in &self.raw {
            match content {
                Some(content) => fs::write(dir.join(path), content).unwrap(),
                None if dir.join(path).is_dir() => fs::remove_dir_all(dir.join(path)).unwrap(),
                None => fs::remove_file(dir.join(path)).unwrap(),
            }
        }
    }

    pub fn judge(&self) -> Report {
        let dir = tempfile::tempdir().unwrap();
        self.write(dir.path());
        judge(&Evidence::load(dir.path()).unwrap(), Some(self.scenario), &[])
    }
}

/// Ireland is lost at 0, by a cut or a crash; France takes over.
fn lost(scenario: Scenario, fault: &str, ran_until: i64) -> Recording {
    let mut made = Recording::new(scenario, 16_600);
    made.fault(0, "ireland", fault);
    made.run("ireland", "shop-a", START, ran_until, "1.1");
    made.run("ireland", "shop-b", START + 10, ran_until + 10, "1.1");
    made.lease_end(4_960, "ireland", "ireland-1", "1.1", &["shop-a"]);
    made.lease_end(5_000, "ireland", "ireland-2", "1.1", &["shop-b"]);
    made.event(9_600, "france", "witness", "eligible", Some("2.2"), None);
    made.event(9_630, "france", "operator", "certificate", Some("2.2"), None);
    made.event(9_650, "france", "guard", "gate_opened", Some("2.2"), Some("france-1"));
    made.event(10_400, "france", "operator", "first_started", Some("2.2"), None);
    made.event(11_000, "france", "operator", "all_ready", Some("2.2"), None);
    made.run("france", "shop-c", 10_420, 16_500, "2.2");
    made.run("france", "shop-d", 10_730, 16_500, "2.2");
    made.ask(16_500, &[("ireland", START, -10), ("france", 10_900, 20_000)]);
    made
}

pub fn cut() -> Recording {
    let mut made = lost(Scenario::Cut, "cut", 4_900);
    made.event(4_940, "ireland", "guard", "frozen", Some("1.1"), Some("ireland-1"));
    made.event(4_980, "ireland", "guard", "frozen", Some("1.1"), Some("ireland-2"));
    made.event(13_000, "ireland", "guard", "killed", Some("1.1"), Some("ireland-1"));
    made
}

pub fn crash() -> Recording {
    let mut made = lost(Scenario::Crash, "crash", 0);
    made.audit.get_mut("ireland").unwrap().truncate(3);
    made
}

/// Ireland is cut off at 0 and healed 1 s after its last lease's end.
pub fn blip() -> Recording {
    let mut made = Recording::new(Scenario::Blip, 11_600);
    made.fault(0, "ireland", "cut");
    made.event(6_000, "ireland", "rig", "heal", None, None);
    made.event(6_050, "ireland", "operator", "certificate", Some("1.1"), None);
    for (node, pod, end) in [("ireland-1", "shop-a", 4_960), ("ireland-2", "shop-b", 5_000)] {
        made.event(end - 20, "ireland", "guard", "frozen", Some("1.1"), Some(node));
        made.lease_end(end, "ireland", node, "1.1", &[pod]);
        made.event(6_080, "ireland", "guard", "thawed", Some("1.1"), Some(node));
        made.run("ireland", pod, START, end - 60, "1.1");
        made.run("ireland", pod, 6_090, 11_500, "1.1");
    }
    made.ask(11_500, &[("ireland", START, -10), ("ireland", 6_100, 20_000)]);
    made
}

pub fn hand_over(made: &mut Recording, at: i64, from: (&str, &str), to: (&str, &str), pods: [&str; 2]) {
    let ((old, old_epoch), (new, new_epoch)) = (from, to);
    made.lease_end(at + 300, old, &format!("{old}-1"), old_epoch, &pods);
    made.event(at + 340, new, "operator", "certificate", Some(new_epoch), None);
    made.event(at + 350, new, "guard", "gate_opened", Some(new_epoch), Some("n"));
    made.event(at + 900, new, "operator", "first_started", Some(new_epoch), None);
    made.event(at + 1_400, new, "operator", "all_ready", Some(new_epoch), None);
}

/// A takeover is asked for at 0.
pub fn planned() -> Recording {
    let mut made = Recording::new(Scenario::Planned, 7_100);
    made.fault(0, "ireland", "takeover");
    hand_over(&mut made, 0, ("ireland", "1.1"), ("france", "2.2"), ["shop-a", "shop-b"]);
    for pod in ["shop-a", "shop-b"] {
        made.run("ireland", pod, START, 250, "1.1");
    }
    made.run("france", "shop-c", 910, 7_000, "2.2");
    made.ask(7_000, &[("ireland", START, 240), ("france", 1_300, 20_000)]);
    made
}

/// A takeover at 0, and back at 4,400, 3 s after it was ready.
pub fn failback() -> Recording {
    let mut made = Recording::new(Scenario::Failback, 11_600);
    made.fault(0, "ireland", "takeover");
    made.fault(4_400, "france", "failback");
    hand_over(&mut made, 0, ("ireland", "1.1"), ("france", "2.2"), ["shop-a", "shop-b"]);
    hand_over(&mut made, 4_400, ("france", "2.2"), ("ireland", "3.1"), ["shop-c", "shop-d"]);
    for pod in ["shop-a", "shop-b"] {
        made.run("ireland", pod, START, 250, "1.1");
        made.run("ireland", pod, 5_310, 11_500, "3.1");
    }
    for pod in ["shop-c", "shop-d"] {
        made.run("france", pod, 910, 4_650, "2.2");
    }
    made.ask(11_500, &[("ireland", START, 240), ("france", 1_300, 4_640), ("ireland", 5_700, 20_000)]);
    made
}

/// One operator replica is killed at 0: nothing follows.
pub fn steady() -> Recording {
    let mut made = Recording::new(Scenario::Steady, 8_100);
    made.fault(0, "ireland", "kill");
    made.run("ireland", "shop-a", START, 8_000, "1.1");
    made.ask(8_000, &[("ireland", START, 20_000)]);
    made
}

/// Ireland is cut off at 0 and no standby is lawful.
pub fn held() -> Recording {
    let mut made = cut();
    made.scenario = Scenario::Held;
    made.events.retain(|e| e["site"] == "ireland");
    made.journal.retain(|name, _| name.starts_with("ireland"));
    made.sink.retain(|name, _| name == "ireland");
    made.client.clear();
    made.ask(16_500, &[("ireland", START, -10)]);
    made
}
