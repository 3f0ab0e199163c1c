//! Objects as JSON: how they are named, ordered, labelled and selected.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt};
use serde::Deserialize;
use serde_json::Value;

/// Labels of an object, or of a selector's `matchLabels`.
pub type Labels = BTreeMap<String, String>;

/// Orders all keys, whatever the maps of this build of `serde_json` do.
pub fn canonical(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut pairs: Vec<(String, Value)> = map.into_iter().collect();
            pairs.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(pairs.into_iter().map(|(k, v)| (k, canonical(v))).collect())
        }
        Value::Array(list) => Value::Array(list.into_iter().map(canonical).collect()),
        other => other,
    }
}

/// A text field of an object.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// A number of an object; 0 where there is none.
pub fn number(object: &Value, pointer: &str) -> u64 {
    object.pointer(pointer).and_then(Value::as_u64).unwrap_or_default()
}

/// The items of a list of an object; none where there is no list.
pub fn items<'a>(object: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    object.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

/// The beginning of a text, at most so many bytes of it.
pub fn shortened(text: &str, bytes: usize) -> &str {
    let end = text.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= bytes).last();
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}

/// The first of several sentences, and how many more there are.
pub fn listed<T: ToString>(all: &[T], most: usize) -> String {
    let named = all.iter().take(most).map(T::to_string).collect::<Vec<_>>().join("; ");
    match all.len().saturating_sub(most) {
        0 => named,
        more => format!("{named}; and {more} more"),
    }
}

/// How messages name an object.
pub fn object_of(object: &Value) -> String {
    format!("{} {}/{}", text(object, "/kind"), text(object, "/metadata/namespace"), text(object, "/metadata/name"))
}

/// The texts of a map of an object: labels, annotations.
pub fn labels(object: &Value, pointer: &str) -> Labels {
    let map = object.pointer(pointer).and_then(Value::as_object);
    map.into_iter().flatten().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect()
}

/// Whether a workload's, policy's or budget's `LabelSelector` matches labels, as Kubernetes
/// does: every part must hold, an empty selector matches all, and a missing one none.
pub fn selects(selector: Option<&Value>, of: &Labels) -> bool {
    let read = selector.and_then(|s| LabelSelector::deserialize(s).ok());
    // With an operator that this build doesn't know, no pod is taken for the workload's.
    read.and_then(|s| Selector::try_from(s).ok()).is_some_and(|s| s.matches(of))
}

/// The controller that made an object: kind, name and UID.
pub fn controller_of(object: &Value) -> Option<(&str, &str, &str)> {
    let owner = items(object, "/metadata/ownerReferences").find(|o| o.get("controller") == Some(&Value::Bool(true)))?;
    Some((text(owner, "/kind"), text(owner, "/name"), text(owner, "/uid")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        for (bytes, cut) in [(9, "aéb"), (4, "aéb"), (3, "aé"), (2, "a"), (0, "")] {
            assert_eq!(shortened("aéb", bytes), cut);
        }
    }

    #[test]
    fn a_label_selector_matches_as_kubernetes_does() {
        let of: Labels = [("role".to_owned(), "ledger".to_owned())].into();
        let expression = |operator: &str, values: &[&str]| json!({ "matchExpressions": [{ "key": "role", "operator": operator, "values": values }] });
        let cases = [
            (json!({}), true),
            (json!(null), false),
            (json!({ "matchLabels": { "role": "ledger" } }), true),
            (json!({ "matchLabels": { "role": "desk" } }), false),
            (expression("In", &["ledger", "old"]), true),
            (expression("NotIn", &["ledger", "old"]), false),
            (expression("Exists", &[]), true),
            (expression("DoesNotExist", &[]), false),
            (expression("Gt", &["1"]), false),
            (
                json!({ "matchLabels": { "role": "ledger" }, "matchExpressions": [{ "key": "zone", "operator": "Exists" }] }),
                false,
            ),
        ];
        for (selector, matches) in cases {
            assert_eq!(selects(Some(&selector), &of), matches, "{selector}");
        }
    }
}
