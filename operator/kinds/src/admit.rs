//! What a standby accepts of a bundle.
//!
//! A home may sign whatever it likes; at the partner's site a bundle may reach nothing but
//! itself. One refused object blocks the group, and nothing of it is applied: a part of a
//! group that starts is worse than a standby of lower rank that starts all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use regent_api::SiteSpec;
use serde_json::{Map, Value, json};

use crate::fold::fold;
use crate::images::{here, images, is_allowed};
use crate::kind::{KINDS, is_workload};
use crate::marks::is_let_in;
use crate::needs::{is_default_account, is_token};
use crate::object::{items, listed, object_of, text};
use crate::reach::{Names, look, pull_secrets};
use crate::select::serves;
use crate::strip::{strip, unknown_fields};
use crate::template::dangers;

/// How many refusals a message lists.
const LISTED: usize = 5;
/// How many refusals and notices are kept.
const KEPT: usize = 64;
/// How long one of them may be: what a bundle says is of any length.
const LONG: usize = 400;

/// Something of a bundle that this site does not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// `Kind NAMESPACE/NAME`.
    pub object: String,
    /// The field of it.
    pub field: String,
    /// Why, and what to do.
    pub message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.object, self.field, self.message)
    }
}

/// What a standby makes its copies of.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Admitted {
    /// The objects, in the bundle's order.
    pub objects: Vec<Value>,
    /// What is refused; nothing may be applied while there is any.
    pub refusals: Vec<Refusal>,
    /// What copies go without, or have otherwise than home.
    pub notices: Vec<String>,
}

impl Admitted {
    /// What blocks the group, in one message.
    pub fn blocked(&self) -> Option<String> {
        (!self.refusals.is_empty()).then(|| listed(&self.refusals, LISTED))
    }

    fn refuse(&mut self, object: &Value, field: &str, message: &str) {
        if self.refusals.len() < KEPT {
            let (object, field, message) = (short(&object_of(object)), short(field), short(message));
            self.refusals.push(Refusal { object, field, message });
        }
    }

    fn tell(&mut self, object: &Value, what: &str) {
        if self.notices.len() < KEPT {
            self.notices.push(short(&format!("{}: {what}", object_of(object))));
        }
    }
}

fn short(words: &str) -> String {
    match words.char_indices().nth(LONG) {
        Some((end, _)) => format!("{}...", &words[..end]),
        None => words.to_owned(),
    }
}

/// Looks at a bundle's objects, given the site's own tables.
pub fn admit(objects: &[Value], tables: &SiteSpec) -> Admitted {
    let mut admitted = Admitted::default();
    let names: Names = objects.iter().filter(|o| !is_token(o)).map(name_of).collect();
    // Home's says which secrets its pods pull with; the standby's own is the partner's.
    let defaults: BTreeMap<&str, Vec<Value>> = objects
        .iter()
        .filter(|o| is_default_account(o))
        .map(|o| (text(o, "/metadata/namespace"), items(o, "/imagePullSecrets").cloned().collect()))
        .collect();
    for object in objects.iter().filter(|o| !is_default_account(o)) {
        refuse_whole(object, &mut admitted);
        for field in unknown_fields(object) {
            admitted.tell(object, &format!("{field} is unknown to this version of Regent and left out"));
        }
        let mut copy = strip(object);
        let (kind, namespace) = (text(object, "/kind"), text(object, "/metadata/namespace"));
        annotations(&mut copy, tables, &mut admitted);
        if is_workload(kind) {
            let pulls = defaults.get(namespace).map(Vec::as_slice).unwrap_or_default();
            workload(&mut copy, objects, &names, pulls, &mut admitted);
            foreign_images(&copy, tables, &mut admitted);
        }
        if kind == "ServiceAccount"
            && let Value::Object(account) = &mut copy
        {
            let told = pull_secrets(account, namespace, &names);
            told.iter().for_each(|what| admitted.tell(object, what));
        }
        admitted.objects.push(copy);
    }
    admitted
}

fn name_of(object: &Value) -> (String, String, String) {
    let part = |pointer| text(object, pointer).to_owned();
    (part("/kind"), part("/metadata/namespace"), part("/metadata/name"))
}

/// Objects that no copy is made of.
fn refuse_whole(object: &Value, admitted: &mut Admitted) {
    if !KINDS.contains(&(text(object, "/apiVersion"), text(object, "/kind"))) {
        admitted.refuse(
            object,
            "kind",
            "is of no kind that travels; this site needs home's version of Regent, or home is not what it says",
        );
    }
    if is_token(object) {
        let why = "is the token of a ServiceAccount, which the API server would fill with an identity of this site; leave it out";
        admitted.refuse(object, "type", why);
    }
    if (text(object, "/kind"), text(object, "/metadata/name")) == ("ConfigMap", "kube-root-ca.crt") {
        admitted.refuse(object, "metadata.name", "each namespace has its own; leave it out");
    }
}

/// Drops annotations that are neither inert nor let in.
fn annotations(copy: &mut Value, tables: &SiteSpec, admitted: &mut Admitted) {
    let mut dropped = BTreeSet::new();
    let mut clear = |of: Option<&mut Value>| {
        let Some(Value::Object(metadata)) = of else { return };
        let Some(Value::Object(map)) = metadata.get_mut("annotations") else { return };
        map.retain(|key, _| {
            let stays = is_let_in(key, &tables.annotations);
            if !stays {
                dropped.insert(key.clone());
            }
            stays
        });
        if map.is_empty() {
            metadata.remove("annotations");
        }
    };
    clear(copy.get_mut("metadata"));
    clear(copy.pointer_mut("/spec/template/metadata"));
    for claim in copy.pointer_mut("/spec/volumeClaimTemplates").and_then(Value::as_array_mut).into_iter().flatten() {
        clear(claim.get_mut("metadata"));
    }
    let volumes = copy.pointer_mut("/spec/template/spec/volumes").and_then(Value::as_array_mut);
    for volume in volumes.into_iter().flatten() {
        clear(volume.pointer_mut("/ephemeral/volumeClaimTemplate/metadata"));
    }
    if !dropped.is_empty() {
        let keys: Vec<&str> = dropped.iter().take(LISTED).map(String::as_str).collect();
        let more = dropped.len().saturating_sub(LISTED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let what = format!(
            "annotations {}{more} are left out; the partner may list them in annotations of its Site",
            keys.join(", ")
        );
        admitted.tell(copy, &what);
    }
}

fn workload(copy: &mut Value, objects: &[Value], names: &Names, pulls: &[Value], admitted: &mut Admitted) {
    for (field, why) in dangers(copy) {
        admitted.refuse(copy, &field, &why);
    }
    let whole = copy.clone();
    let namespace = text(&whole, "/metadata/namespace");
    let ports = ports_named(&whole, objects);
    let Some(pod) = copy.pointer_mut("/spec/template/spec") else { return };
    if let Value::Object(pod) = pod {
        pull_as_the_default_account(pod, pulls);
    }
    let folded = fold(pod, &ports);
    let needs = look(pod, namespace, names);
    for (field, why) in folded.refused.iter().chain(&needs.refused) {
        admitted.refuse(&whole, field, why);
    }
    folded.told.iter().chain(&needs.told).for_each(|what| admitted.tell(&whole, what));
    for gate in items(&whole, "/spec/template/spec/readinessGates") {
        let gate = text(gate, "/conditionType");
        admitted
            .tell(&whole, &format!("readiness gate {gate}: unless something here sets it, no pod of it is ever Ready"));
    }
}

/// As home's API server does with a pod that names neither account nor pull secrets.
fn pull_as_the_default_account(pod: &mut Map<String, Value>, pulls: &[Value]) {
    let account = pod.get("serviceAccountName").and_then(Value::as_str).unwrap_or_default();
    let has_own = pod.get("imagePullSecrets").and_then(Value::as_array).is_some_and(|own| !own.is_empty());
    if matches!(account, "" | "default") && !has_own && !pulls.is_empty() {
        pod.insert("imagePullSecrets".into(), json!(pulls));
    }
}

/// The names by which Services of the bundle reach a workload's ports.
fn ports_named(workload: &Value, objects: &[Value]) -> BTreeSet<String> {
    let is_near = |s: &&Value| text(s, "/metadata/namespace") == text(workload, "/metadata/namespace");
    let services = objects.iter().filter(|s| text(s, "/kind") == "Service").filter(is_near);
    let ports = services.filter(|s| serves(s, workload)).flat_map(|s| items(s, "/spec/ports"));
    ports.map(|p| text(p, "/targetPort").to_owned()).filter(|name| !name.is_empty()).collect()
}

fn foreign_images(workload: &Value, tables: &SiteSpec, admitted: &mut Admitted) {
    let pod = workload.pointer("/spec/template/spec").unwrap_or(&Value::Null);
    for (holder, image) in images(pod) {
        let image = here(&image, &tables.registries);
        if !is_allowed(&image, &tables.allowed_registries) {
            let why = format!(
                "image {image} is of no registry that this site lets in; map its registry in registries of the Site, or list it in allowedRegistries"
            );
            admitted.refuse(workload, &holder, &why);
        }
    }
}

#[cfg(test)]
mod tests;
