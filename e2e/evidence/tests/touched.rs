//! What the audit logs may show after a fault, and what they may not.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use serde_json::{Value, json};

const REGENT: &str = "system:serviceaccount:regent-system:regent-operator";

struct Case {
    what: &'static str,
    site: &'static str,
    at: i64,
    verb: &'static str,
    user: &'static str,
    object: Value,
    counts: bool,
}

fn case(
    what: &'static str,
    site: &'static str,
    verb: &'static str,
    user: &'static str,
    object: Value,
    counts: bool,
) -> Case {
    Case { what, site, at: 3_000, verb, user, object, counts }
}

fn in_shop(resource: &str, subresource: &str) -> Value {
    json!({"resource": resource, "namespace": "shop", "name": "x", "subresource": subresource})
}

fn cases() -> Vec<Case> {
    let (anna, kube) = ("anna", "system:serviceaccount:kube-system:pod-garbage-collector");
    let regent_dev = json!({"resource": "takeovers", "name": "x", "apiGroup": "regent.dev"});
    let own = json!({"resource": "pods", "namespace": "regent-system", "name": "x"});
    vec![
        case("a deleted pod", "ireland", "delete", kube, in_shop("pods", ""), true),
        case("a deleted pod at the standby", "france", "delete", REGENT, in_shop("pods", ""), true),
        case("a deleted collection", "germany", "deletecollection", anna, in_shop("configmaps", ""), true),
        case(
            "a deleted namespace",
            "ireland",
            "delete",
            anna,
            json!({"resource": "namespaces", "namespace": "shop", "name": "shop"}),
            true,
        ),
        case("a deleted volume", "france", "delete", anna, json!({"resource": "persistentvolumes", "name": "x"}), true),
        case("an eviction", "ireland", "create", anna, in_shop("pods", "eviction"), true),
        case("a scaling", "france", "patch", anna, in_shop("deployments", "scale"), true),
        case("a write of Regent's at home", "ireland", "patch", REGENT, in_shop("deployments", ""), true),
        case("a status of Regent's at home", "ireland", "update", REGENT, in_shop("pods", "status"), true),
        case("a creation of Regent's at home", "ireland", "create", REGENT, in_shop("configmaps", ""), true),
        case("a write of Regent's at the standby", "france", "patch", REGENT, in_shop("deployments", ""), false),
        case("a user's own write at home", "ireland", "patch", anna, in_shop("deployments", ""), false),
        case("a kubelet's status", "ireland", "patch", "system:node:n", in_shop("pods", "status"), false),
        case("a lease", "ireland", "update", REGENT, in_shop("leases", ""), false),
        case("an event that ran out", "ireland", "delete", kube, in_shop("events", ""), false),
        case("an endpoint slice", "ireland", "delete", kube, in_shop("endpointslices", ""), false),
        case("Regent's own kinds", "ireland", "update", REGENT, regent_dev, false),
        case("Regent's own pods", "ireland", "delete", REGENT, own, false),
        case("a token review", "ireland", "create", REGENT, json!({"resource": "tokenreviews"}), false),
        Case { at: -50, ..case("a deletion before the fault", "ireland", "delete", anna, in_shop("pods", ""), false) },
        Case { at: 0, ..case("a deletion at the fault", "ireland", "delete", anna, in_shop("pods", ""), true) },
    ]
}

#[test]
fn each_request_counts_or_does_not() {
    for case in cases() {
        let mut made = cut();
        made.audited(case.site, case.at, case.verb, case.user, case.object);
        let report = made.judge();
        assert_eq!(report.touched.len(), usize::from(case.counts), "{}: {:?}", case.what, report.touched);
        assert_eq!(report.passed(), !case.counts, "{}: {:#?}", case.what, report.reasons);
        assert_eq!(report.reasons.len(), usize::from(case.counts), "{}", case.what);
    }
}

#[test]
fn a_touched_object_is_told_with_place_time_and_person() {
    let mut made = cut();
    made.audited("ireland", 3_000, "delete", "anna", in_shop("pods", ""));
    let report = made.judge();
    assert_eq!(report.reasons, ["a user's object was deleted at ireland: delete shop/pods/x by anna at +3.000 s"]);
    assert_eq!(report.touched[0].at_ms, 3_000.0);
}

#[test]
fn a_refused_request_and_a_dry_run_touch_nothing() {
    let mut made = cut();
    made.audited("ireland", 3_000, "delete", "anna", in_shop("pods", ""))["responseStatus"]["code"] = 403.into();
    made.audited("ireland", 3_000, "delete", "anna", in_shop("pods", ""))["requestURI"] = "/api?dryRun=All".into();
    assert_eq!(made.judge().reasons, [""; 0]);
}

#[test]
fn a_request_without_an_end_counts_and_one_with_both_stages_counts_once() {
    let received = |line: &mut Value, id: &str| {
        line["stage"] = "RequestReceived".into();
        line["auditID"] = id.into();
        line.as_object_mut().unwrap().remove("responseStatus");
    };
    let mut made = cut();
    received(made.audited("ireland", 3_000, "delete", "anna", in_shop("pods", "")), "a");
    assert_eq!(made.judge().touched.len(), 1);
    made.audited("ireland", 3_001, "delete", "anna", in_shop("pods", ""))["auditID"] = "a".into();
    assert_eq!(made.judge().touched.len(), 1);
    let mut made = cut();
    received(made.audited("ireland", 3_000, "delete", "anna", in_shop("pods", "")), "a");
    let ended = made.audited("ireland", 3_001, "delete", "anna", in_shop("pods", ""));
    ended["auditID"] = "a".into();
    ended["responseStatus"]["code"] = 404.into();
    assert_eq!(made.judge().touched.len(), 0);
}

#[test]
fn an_audit_log_that_ends_before_the_fault_is_a_reason_unless_its_site_crashed() {
    let mut made = cut();
    made.audit.get_mut("ireland").unwrap().truncate(3);
    assert_eq!(made.judge().reasons, ["audit/ireland.jsonl ends before the fault: what was touched there is unknown"]);
    assert!(crash().judge().passed());
}
