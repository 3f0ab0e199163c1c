use serde_json::json;

use super::*;
use crate::stamp::{TEMPLATE_LABEL, stamp};

fn workload(kind: &str, name: &str, image: &str, replicas: u64) -> Value {
    let mut copy = json!({ "apiVersion": "apps/v1", "kind": kind, "metadata": { "name": name, "namespace": "case" },
        "spec": { "replicas": replicas, "template": { "metadata": { "labels": { "app": "case" } }, "spec": { "containers": [{ "image": image }] } } } });
    stamp(&mut copy);
    copy
}

fn pod(name: &str, of: &Value, status: Value) -> Pod {
    let labels = json!({ TEMPLATE_LABEL: template_of(of) });
    let init = json!([{ "name": "regent-gate", "image": "i" }]);
    serde_json::from_value(json!({ "metadata": { "name": name, "namespace": "case", "uid": name, "labels": labels },
        "spec": { "initContainers": init, "containers": [] }, "status": status }))
    .unwrap()
}

fn gate(state: Value) -> Value {
    json!({ "initContainerStatuses": [{ "name": "regent-gate", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state }] })
}

fn held(name: &str, of: &Value) -> Pod {
    pod(name, of, gate(json!({ "running": {} })))
}

fn unpullable(name: &str, of: &Value) -> Pod {
    pod(name, of, gate(json!({ "waiting": { "reason": "ImagePullBackOff", "message": "no such image" } })))
}

fn open(name: &str, of: &Value) -> Pod {
    pod(name, of, gate(json!({ "terminated": { "exitCode": 0 } })))
}

fn live(workload: &Value, pods: Vec<Pod>) -> (String, Live) {
    (object_of(workload), Live { workload: workload.clone(), pods, refused: None })
}

struct Case {
    good: Option<Vec<Value>>,
    next: Vec<Value>,
    live: BTreeMap<String, Live>,
}

impl Case {
    fn ask<T>(&self, ask: impl FnOnce(&Facts) -> T) -> T {
        let good = self.good.as_ref().map(|copies| Target { digest: "good", copies });
        let next = Target { digest: "next", copies: &self.next };
        ask(&Facts { good, next, live: &self.live, warnings: &BTreeMap::new() })
    }

    fn look(&self) -> Verdict {
        self.ask(look)
    }

    fn how(&self) -> How {
        self.ask(|facts| how(facts, &self.next[0]))
    }
}

fn said(verdict: &Verdict) -> (StandbyState, u32, u32, &str, &str) {
    let r = &verdict.report;
    (r.state, r.armed, r.wanted, r.revision.as_str(), r.reason.as_str())
}

#[test]
fn armed_is_said_when_every_pod_of_every_workload_is_held() {
    let shop = workload("Deployment", "shop", "shop:1", 2);
    let case = |pods| Case { good: None, next: vec![shop.clone()], live: [live(&shop, pods)].into() }.look();
    let all = case(vec![held("a", &shop), held("b", &shop)]);
    assert_eq!((said(&all), all.arms), ((StandbyState::Armed, 2, 2, "next", ""), true));
    let one = case(vec![held("a", &shop), pod("b", &shop, json!({}))]);
    assert_eq!((said(&one), one.arms), ((StandbyState::Preparing, 1, 2, "next", "Preparing"), false));
    let stuck = case(vec![held("a", &shop), unpullable("b", &shop)]);
    assert_eq!(said(&stuck), (StandbyState::Blocked, 1, 2, "next", "ImagePullBackOff"));
    assert_eq!(stuck.report.message, "pod case/b, container regent-gate: no such image");
    let missing = Case { good: None, next: vec![shop.clone()], live: BTreeMap::new() }.look();
    assert_eq!(said(&missing), (StandbyState::Preparing, 0, 2, "next", "Preparing"));
}

#[test]
fn a_group_that_wants_no_pods_is_not_armed() {
    let empty = Case { good: None, next: vec![], live: BTreeMap::new() }.look();
    assert_eq!((said(&empty).0, empty.arms), (StandbyState::Preparing, false));
    let zero = workload("Deployment", "shop", "shop:1", 0);
    let scaled = Case { good: None, next: vec![zero.clone()], live: [live(&zero, vec![])].into() }.look();
    assert_eq!((said(&scaled).0, scaled.arms), (StandbyState::Preparing, false));
    let mut paused = workload("Deployment", "tariff", "t:1", 2);
    paused["spec"]["paused"] = json!(true);
    let shop = workload("Deployment", "shop", "shop:1", 1);
    let live = [live(&paused, vec![]), live(&shop, vec![held("a", &shop)])].into();
    let beside = Case { good: None, next: vec![paused, shop], live }.look();
    assert_eq!(said(&beside), (StandbyState::Armed, 1, 1, "next", ""), "what is paused wants nothing");
}

#[test]
fn the_last_good_revision_stays_armed_until_the_next_is_held_whole() {
    let (old, new) =
        (workload("Deployment", "rates", "rates:good", 2), workload("Deployment", "rates", "rates:new", 2));
    let both = |pods: Vec<Pod>| {
        let live = [live(&new, [vec![held("a", &old), held("b", &old)], pods].concat())].into();
        Case { good: Some(vec![old.clone()]), next: vec![new.clone()], live }.look()
    };
    let stuck = both(vec![held("c", &new), unpullable("d", &new)]);
    assert_eq!(said(&stuck), (StandbyState::Armed, 2, 2, "good", "ImagePullBackOff"));
    assert_eq!((stuck.report.next.as_deref(), stuck.arms), (Some("next"), false));
    let done = both(vec![held("c", &new), held("d", &new)]);
    assert_eq!(
        (said(&done), done.arms, done.report.next.as_deref()),
        ((StandbyState::Armed, 2, 2, "next", ""), true, None)
    );
}

#[test]
fn what_is_left_of_a_revision_that_was_given_up_goes_before_the_next_comes() {
    let [old, given_up, new] = ["1", "2", "3"].map(|v| workload("Deployment", "rates", v, 1));
    let case = |good: Option<&Value>, pods: Vec<Pod>| {
        let good = good.map(|g| vec![g.clone()]);
        Case { good, next: vec![new.clone()], live: [live(&given_up, pods)].into() }.how()
    };
    assert_eq!(case(Some(&old), vec![held("a", &old), unpullable("b", &given_up)]), How::Good);
    assert_eq!(case(Some(&old), vec![held("a", &old)]), How::Surge);
    assert_eq!(case(Some(&old), vec![held("a", &old), held("c", &new)]), How::Surge, "sets may be on their way still");
    assert_eq!(case(None, vec![held("a", &old)]), How::Surge, "made by another version of Regent");
    assert_eq!(case(None, vec![held("a", &old), held("b", &new)]), How::Flip);
    assert_eq!(case(None, vec![unpullable("a", &old)]), How::Flip);
}

#[test]
fn a_set_renews_one_held_ordinal_at_a_time_from_the_highest_and_only_while_all_are_held() {
    let (old, new) = (workload("StatefulSet", "db", "db:1", 3), workload("StatefulSet", "db", "db:2", 3));
    let case =
        |pods| Case { good: Some(vec![old.clone()]), next: vec![new.clone()], live: [live(&new, pods)].into() }.look();
    let names = |v: &Verdict| v.renew.iter().map(ResourceExt::name_any).collect::<Vec<_>>();
    let begin = case(vec![held("db-0", &old), held("db-1", &old), held("db-2", &old)]);
    assert_eq!((names(&begin), said(&begin).0), (vec!["db-2".to_owned()], StandbyState::Armed));
    let gap = case(vec![held("db-0", &old), held("db-1", &old)]);
    assert_eq!((names(&gap), said(&gap).0), (vec![], StandbyState::Preparing));
    let coming = case(vec![held("db-0", &old), held("db-1", &old), pod("db-2", &new, json!({}))]);
    assert_eq!(names(&coming), Vec::<String>::new());
    let further = case(vec![held("db-0", &old), held("db-1", &old), held("db-2", &new)]);
    assert_eq!((names(&further), said(&further).0), (vec!["db-1".to_owned()], StandbyState::Armed));
    let stuck = case(vec![held("db-0", &old), held("db-1", &old), unpullable("db-2", &new)]);
    assert_eq!((names(&stuck), stuck.back), (vec![], ["StatefulSet case/db".to_owned()].into()));
    let opened = case(vec![held("db-0", &old), held("db-1", &old), open("db-2", &old)]);
    assert_eq!((names(&opened), opened.back.len()), (vec![], 0), "what may run is never deleted");
}

#[test]
fn a_set_waits_for_the_deployments_beside_it() {
    let (old, new) = (workload("StatefulSet", "db", "db:1", 1), workload("StatefulSet", "db", "db:2", 1));
    let (before, after) = (workload("Deployment", "web", "web:1", 1), workload("Deployment", "web", "web:2", 1));
    let case = |web| {
        let live = [live(&new, vec![held("db-0", &old)]), live(&after, web)].into();
        Case { good: Some(vec![old.clone(), before.clone()]), next: vec![new.clone(), after.clone()], live }.look()
    };
    assert_eq!(case(vec![held("a", &before), unpullable("b", &after)]).renew, vec![]);
    assert_eq!(case(vec![held("a", &before), held("b", &after)]).renew.len(), 1);
}

#[test]
fn a_copy_that_home_no_longer_has_counts_as_held_and_is_named() {
    let (shop, till) = (workload("Deployment", "shop", "shop:1", 1), workload("Deployment", "till", "till:1", 1));
    let live = |pods| [live(&shop, vec![held("a", &shop)]), live(&till, pods)].into();
    let kept = Case { good: None, next: vec![shop.clone()], live: live(vec![held("b", &till)]) }.look();
    assert_eq!(said(&kept), (StandbyState::Armed, 2, 2, "next", ""));
    assert!(kept.report.notices[0].starts_with("Deployment case/till is gone at home"), "{:?}", kept.report.notices);
    let lost = Case { good: None, next: vec![shop.clone()], live: live(vec![]) }.look();
    assert_eq!(said(&lost).0, StandbyState::Preparing);
}

#[test]
fn a_group_that_runs_is_holding_only_when_its_own_probes_say_so() {
    let shop = workload("Deployment", "shop", "shop:1", 2);
    let ready = |name: &str| pod(name, &shop, json!({ "conditions": [{ "type": "Ready", "status": "True" }] }));
    let of = |pods| running("r", std::slice::from_ref(&shop), &[live(&shop, pods)].into());
    let all = of(vec![ready("a"), ready("b")]);
    assert_eq!((all.state, all.armed, all.reason.as_str()), (StandbyState::Holding, 2, ""));
    let part = of(vec![ready("a"), open("b", &shop)]);
    assert_eq!((part.state, part.armed, part.wanted), (StandbyState::Starting, 1, 2));
    assert!(part.message.starts_with("1 of 2 pods are ready: pod case/b"), "{}", part.message);
    let none = running("r", std::slice::from_ref(&shop), &BTreeMap::new());
    assert_eq!((none.state, none.wanted, none.reason.as_str()), (StandbyState::Starting, 2, "Missing"));
    assert!(none.message.contains("Deployment case/shop is missing here"), "{}", none.message);
}

#[test]
fn why_a_further_pod_is_refused_is_said_in_the_words_of_who_refused_it() {
    let set = workload("StatefulSet", "pay", "pay:1", 2);
    let words = r#"pods "pay-0" is forbidden: no PriorityClass with name home-payments was found"#;
    let (name, mut gone) = live(&set, vec![]);
    gone.refused = Some(words.to_owned());
    let live = BTreeMap::from([(name, gone)]);
    assert_eq!(short(&Target { digest: "next", copies: std::slice::from_ref(&set) }, &live).len(), 1);
    let verdict = Case { good: None, next: vec![set], live }.look();
    assert_eq!(said(&verdict), (StandbyState::Blocked, 0, 2, "next", "Refused"));
    assert!(verdict.report.message.contains(words), "{}", verdict.report.message);
}

#[test]
fn what_an_event_alone_tells_is_said_of_a_pod_that_does_not_come() {
    let set = workload("StatefulSet", "db", "db:1", 1);
    let case =
        Case { good: None, next: vec![set.clone()], live: [live(&set, vec![pod("db-0", &set, json!({}))])].into() };
    let warning = |about: &str, message: &str| {
        let obstacle = Obstacle { reason: "FailedMount".into(), message: message.into() };
        let warnings = BTreeMap::from([(about.to_owned(), obstacle)]);
        let next = Target { digest: "next", copies: &case.next };
        look(&Facts { good: None, next, live: &case.live, warnings: &warnings }).report
    };
    let mount = warning("Pod case/db-0", "secret \"cert\" not found");
    assert_eq!((mount.state, mount.reason.as_str()), (StandbyState::Blocked, "FailedMount"));
    assert_eq!(warning("Pod case/other", "x").state, StandbyState::Preparing, "another pod's");

    let mut waiting = pod(
        "db-0",
        &set,
        json!({ "conditions": [{ "type": "PodScheduled", "status": "False", "message": "unbound claims" }] }),
    );
    waiting.spec.as_mut().unwrap().volumes =
        serde_json::from_value(json!([{ "name": "data", "persistentVolumeClaim": { "claimName": "data-db-0" } }]))
            .unwrap();
    let case = Case { good: None, next: vec![set.clone()], live: [live(&set, vec![waiting])].into() };
    let obstacle = Obstacle { reason: "ProvisioningFailed".into(), message: "storageclass \"fast\" not found".into() };
    let warnings = BTreeMap::from([("PersistentVolumeClaim case/data-db-0".to_owned(), obstacle)]);
    let next = Target { digest: "next", copies: &case.next };
    let said = look(&Facts { good: None, next, live: &case.live, warnings: &warnings }).report;
    assert_eq!(said.reason, "NoCapacity");
    assert!(said.message.ends_with("unbound claims; storageclass \"fast\" not found"), "{}", said.message);
}
