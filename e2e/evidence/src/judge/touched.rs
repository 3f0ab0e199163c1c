//! I4: nobody's objects were deleted, evicted or scaled, and Regent wrote nothing at home.
//!
//! The API servers' audit logs tell. What a cluster does to keep itself running (leases, events,
//! endpoints, nodes) and Regent's own objects are no users' objects.

use super::story::Story;
use crate::clock::Clock;
use crate::event::Kind;
use crate::records::{AuditLine, AuditObject};
use crate::report::Touched;
use std::collections::BTreeMap;

/// Prefix of the names of Regent's own users.
const REGENT_USERS: &str = "system:serviceaccount:regent-system:";
const REGENT_GROUP: &str = "regent.dev";
/// Namespaces that hold no users' objects.
pub(crate) const INFRASTRUCTURE_NAMESPACES: [&str; 4] =
    ["kube-system", "kube-public", "kube-node-lease", "regent-system"];
/// Resources by which a cluster keeps itself running, whatever their namespace.
const INFRASTRUCTURE: [&str; 25] = [
    "apiservices",
    "certificatesigningrequests",
    "componentstatuses",
    "controllerrevisions",
    "csinodes",
    "csistoragecapacities",
    "endpoints",
    "endpointslices",
    "events",
    "flowschemas",
    "ipaddresses",
    "leases",
    "localsubjectaccessreviews",
    "nodes",
    "podcertificaterequests",
    "prioritylevelconfigurations",
    "resourceslices",
    "selfsubjectaccessreviews",
    "selfsubjectreviews",
    "selfsubjectrulesreviews",
    "servicecidrs",
    "storageversions",
    "subjectaccessreviews",
    "tokenreviews",
    "volumeattachments",
];

/// What was touched from the first fault on, and the reasons that follow.
pub fn touched(story: &Story) -> (Vec<Touched>, Vec<String>) {
    let mut reasons = Vec::new();
    let mut found = Vec::new();
    let Some(fault) = story.faults.first() else {
        return (found, reasons);
    };
    let Some(clock) = Clock::new(&story.evidence.events) else {
        reasons.push("no event carries detail.realtime_ns: audit times can't be placed".to_owned());
        return (found, reasons);
    };
    let fault_ns = i128::from(fault.event.boot_ns);
    for (site, lines) in &story.evidence.audit {
        for line in outcomes(lines) {
            let at = clock.boot_ns(line.stage_timestamp);
            if let Some(why) = verdict(story, site, line).filter(|_| at >= fault_ns) {
                found.push(Touched {
                    at_ms: crate::report::ms(at - fault_ns),
                    site: site.clone(),
                    user: line.user.username.clone(),
                    verb: line.verb.clone(),
                    object: name_of(line.object_ref.as_ref()),
                    why: why.to_owned(),
                });
            }
        }
    }
    found.sort_by(|a, b| a.at_ms.total_cmp(&b.at_ms));
    reasons.extend(coverage(story, &clock, fault_ns));
    reasons.extend(
        found.iter().map(|t| {
            format!("{} at {}: {} {} by {} at +{:.3} s", t.why, t.site, t.verb, t.object, t.user, t.at_ms / 1e3)
        }),
    );
    (found, reasons)
}

/// Each request's last stage: whether it was refused is known only at its end. A request without
/// an end counts as done.
fn outcomes(lines: &[AuditLine]) -> impl Iterator<Item = &AuditLine> {
    let mut last: BTreeMap<&str, &AuditLine> = BTreeMap::new();
    for line in lines {
        let kept = last.entry(&line.audit_id).or_insert(line);
        if line.response_status.is_some() || kept.response_status.is_none() {
            *kept = line;
        }
    }
    let refused = |line: &AuditLine| line.response_status.as_ref().is_some_and(|s| s.code >= 400);
    last.into_values().filter(move |l| !refused(l) && !l.request_uri.contains("dryRun=All"))
}

/// True for regent.dev and what is below it.
fn is_regents(api_group: &str) -> bool {
    api_group.strip_suffix(REGENT_GROUP).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Why a request touches a user's object, or `None`.
fn verdict(story: &Story, site: &str, line: &AuditLine) -> Option<&'static str> {
    let object = line.object_ref.as_ref()?;
    if is_regents(&object.api_group)
        || INFRASTRUCTURE_NAMESPACES.contains(&object.namespace.as_str())
        || (object.resource == "namespaces" && INFRASTRUCTURE_NAMESPACES.contains(&object.name.as_str()))
        || INFRASTRUCTURE.contains(&object.resource.as_str())
    {
        return None;
    }
    let writes = matches!(line.verb.as_str(), "create" | "update" | "patch");
    match line.verb.as_str() {
        "delete" | "deletecollection" => return Some("a user's object was deleted"),
        "create" if object.subresource == "eviction" => return Some("a user's pod was evicted"),
        "update" | "patch" if object.subresource == "scale" => {
            return Some("a user's object was scaled");
        }
        _ => {}
    }
    let by_regent_at_home = site == story.home() && line.user.username.starts_with(REGENT_USERS);
    (writes && by_regent_at_home).then_some("Regent wrote a user's object at home")
}

fn name_of(object: Option<&AuditObject>) -> String {
    let Some(object) = object else {
        return String::new();
    };
    let parts = [&object.namespace, &object.resource, &object.name, &object.subresource];
    let parts: Vec<&str> = parts.into_iter().filter(|p| !p.is_empty()).map(String::as_str).collect();
    parts.join("/")
}

/// Reasons: a site that ran the group has no audit log of the time after the fault. An API server
/// that a crash killed has none.
fn coverage(story: &Story, clock: &Clock, fault_ns: i128) -> Vec<String> {
    let mut reasons = Vec::new();
    let mut sites = story.sites();
    sites.insert(story.home());
    for site in sites {
        let Some(lines) = story.evidence.audit.get(site) else {
            reasons.push(format!("audit/{site}.jsonl is absent: what was touched there is unknown"));
            continue;
        };
        let crashed = story.faults.iter().any(|f| f.event.event == Kind::Crash && f.event.site == site);
        let last = lines.iter().map(|l| clock.boot_ns(l.stage_timestamp)).max();
        if !crashed && last.is_some_and(|last| last < fault_ns) {
            reasons.push(format!("audit/{site}.jsonl ends before the fault: what was touched there is unknown"));
        }
    }
    reasons
}
