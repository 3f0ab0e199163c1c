//! Whose fields of an object are whose (server-side apply, KEP-555).
//!
//! An apply takes away only what its own manager once applied. What people set on a copy while
//! the group ran here would stay in it for ever, in pods that say that they are home's revision.
//! So before a copy is applied again its other managers' fields become Regent's: those that the
//! copy doesn't have go with the apply that follows.

use serde_json::{Map, Value};

use crate::object::text;

/// Who writes what is no person's: revisions, statuses.
const CONTROLLERS: &str = "kube-controller-manager";

/// The `managedFields` by which `manager` owns what other managers set; none if nobody did.
pub fn claim(object: &Value, manager: &str) -> Option<Value> {
    let entries = object.pointer("/metadata/managedFields")?.as_array()?;
    let is_own = |e: &Value| text(e, "/manager") == manager && text(e, "/operation") == "Apply";
    let is_others = |e: &&Value| !is_own(e) && text(e, "/manager") != CONTROLLERS && text(e, "/subresource").is_empty();
    let own = entries.iter().find(|e| is_own(e))?;
    let others: Vec<&Value> = entries.iter().filter(is_others).collect();
    if others.is_empty() {
        return None;
    }
    let mut whole = own.clone();
    let mut fields = own.get("fieldsV1").cloned().unwrap_or_else(|| Value::Object(Map::new()));
    others.iter().filter_map(|e| e.get("fieldsV1")).for_each(|f| unite(&mut fields, f));
    whole["fieldsV1"] = fields;
    let kept = entries.iter().filter(|e| !is_own(e) && !is_others(e)).cloned();
    Some(Value::Array(std::iter::once(whole).chain(kept).collect()))
}

/// Both sets of fields: each is a tree whose leaves are empty.
fn unite(fields: &mut Value, others: &Value) {
    let (Value::Object(fields), Value::Object(others)) = (fields, others) else { return };
    for (key, below) in others {
        unite(fields.entry(key.clone()).or_insert_with(|| Value::Object(Map::new())), below);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(manager: &str, operation: &str, subresource: &str, fields: Value) -> Value {
        json!({ "manager": manager, "operation": operation, "subresource": subresource, "apiVersion": "apps/v1", "fieldsV1": fields })
    }

    #[test]
    fn what_people_set_becomes_regents_and_what_controllers_write_stays_theirs() {
        let own = entry("regent", "Apply", "", json!({ "f:spec": { "f:replicas": {}, "f:template": { "f:a": {} } } }));
        let person = entry("kubectl-set", "Update", "", json!({ "f:spec": { "f:template": { "f:b": {} } } }));
        let status = entry("kube-controller-manager", "Update", "status", json!({ "f:status": {} }));
        let scale = entry("kubectl", "Update", "scale", json!({ "f:spec": { "f:replicas": {} } }));
        let object = |entries: &[&Value]| json!({ "metadata": { "managedFields": entries } });
        let claimed = claim(&object(&[&person, &own, &status, &scale]), "regent").unwrap();
        let fields = json!({ "f:spec": { "f:replicas": {}, "f:template": { "f:a": {}, "f:b": {} } } });
        assert_eq!(claimed, json!([entry("regent", "Apply", "", fields), status, scale]));
        assert_eq!(claim(&object(&[&own, &status, &scale]), "regent"), None);
        assert_eq!(claim(&object(&[&person]), "regent"), None, "nothing of it is ours");
    }
}
