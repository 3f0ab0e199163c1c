//! What people changed at the site that holds a group, against home's revision.
//!
//! Only what home's copy says is compared: an API server fills in the rest. In lists whose
//! items have names, and in maps of people's own keys, what was added counts too. Indices of a
//! path leave Regent's own containers and volumes out, so that they are home's.

use regent_api::group::Difference;
use regent_core::quantity::nano;
use serde_json::Value;

use crate::object::{object_of, text};
use crate::pointer::escaped;

/// Fields whose keys are people's own: an added one is a difference.
const OPEN: [&str; 8] =
    ["data", "binaryData", "labels", "matchLabels", "nodeSelector", "limits", "requests", "selector"];
/// Fields that are quantities, or hold them.
const QUANTITIES: [&str; 2] = ["resources", "sizeLimit"];
/// Beginning of the names of containers and volumes that Regent adds to a copy.
pub(crate) const OURS: &str = "regent-";

/// Fields of an object that are compared.
pub const COMPARED: [&str; 5] = ["spec", "data", "binaryData", "imagePullSecrets", "automountServiceAccountToken"];

/// A place in an object, with home's value and the one that is here.
pub(crate) type Changed = (String, Option<Value>, Option<Value>);

/// How an object differs from what home's revision would be here.
pub fn differences(home: &Value, here: Option<&Value>) -> Vec<Difference> {
    let object = object_of(home);
    let Some(here) = here else {
        return vec![Difference { object, home: Some("{…}".into()), ..Difference::default() }];
    };
    let secret = text(home, "/kind") == "Secret";
    let told = |(path, wanted, is): Changed| Difference {
        object: object.clone(),
        path,
        home: wanted.filter(|_| !secret).map(|v| v.to_string()),
        here: is.filter(|_| !secret).map(|v| v.to_string()),
    };
    changed(home, here).into_iter().map(told).collect()
}

/// Every place of an object that is not as home's revision would have it here.
pub(crate) fn changed(home: &Value, here: &Value) -> Vec<Changed> {
    let mut found = Vec::new();
    for field in COMPARED {
        let nothing = Value::Null;
        let (wanted, is) = (home.get(field).unwrap_or(&nothing), here.get(field).unwrap_or(&nothing));
        if !wanted.is_null() || field == "data" {
            compare(&format!("/{field}"), field, wanted, is, &mut found);
        }
    }
    found
}

fn compare(path: &str, field: &str, wanted: &Value, is: &Value, found: &mut Vec<Changed>) {
    match (wanted, is) {
        (Value::Object(wanted), Value::Object(is)) => {
            for (key, value) in wanted.iter().filter(|(k, _)| !k.starts_with("regent.dev/")) {
                compare(&format!("{path}/{}", escaped(key)), key, value, is.get(key).unwrap_or(&Value::Null), found);
            }
            let added = is.iter().filter(|(k, _)| OPEN.contains(&field) && !wanted.contains_key(*k));
            for (key, value) in added.filter(|(k, _)| !k.starts_with("regent.dev/")) {
                found.push((format!("{path}/{}", escaped(key)), None, Some(value.clone())));
            }
        }
        (Value::Array(wanted), Value::Array(is)) if wanted.iter().chain(is).all(|i| i.get("name").is_some()) => {
            named(path, wanted, is, found);
        }
        _ if is_same(path.contains("/resources/") || QUANTITIES.contains(&field), wanted, is) => {}
        _ => {
            let some = |v: &Value| (!v.is_null()).then(|| v.clone());
            found.push((path.to_owned(), some(wanted), some(is)));
        }
    }
}

/// Lists whose items have names: each item by its name, in home's order.
fn named(path: &str, wanted: &[Value], is: &[Value], found: &mut Vec<Changed>) {
    let name = |v: &Value| text(v, "/name").to_owned();
    let is_theirs = |v: &&Value| !text(v, "/name").starts_with(OURS);
    for (index, item) in wanted.iter().filter(is_theirs).enumerate() {
        match is.iter().find(|i| name(i) == name(item)) {
            Some(other) => compare(&format!("{path}/{index}"), "", item, other, found),
            None => found.push((format!("{path}/{index}"), Some(item.clone()), None)),
        }
    }
    for item in is.iter().filter(is_theirs).filter(|i| !wanted.iter().any(|w| name(w) == name(i))) {
        found.push((format!("{path}/-"), None, Some(item.clone())));
    }
}

/// Whether two values mean the same: home's copy may leave out what the API server fills in.
/// Where they are quantities they may be written in more than one way: 1000m is 1.
fn is_same(quantities: bool, wanted: &Value, is: &Value) -> bool {
    match (wanted, is) {
        (Value::Object(wanted), Value::Object(is)) => wanted.iter().all(|(k, v)| {
            is_same(quantities || QUANTITIES.contains(&k.as_str()), v, is.get(k).unwrap_or(&Value::Null))
        }),
        (Value::Array(wanted), Value::Array(is)) => {
            wanted.len() == is.len() && wanted.iter().zip(is).all(|(w, i)| is_same(quantities, w, i))
        }
        (Value::Object(map), Value::Null) => map.is_empty(),
        (Value::Array(list), Value::Null) => list.is_empty(),
        (Value::String(a), Value::String(b)) => a == b || (quantities && nano(a).is_some_and(|q| Some(q) == nano(b))),
        (Value::Number(a), Value::String(b)) => &a.to_string() == b,
        (wanted, is) => wanted == is,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn till(replicas: u32, image: &str, extra: Option<Value>) -> Value {
        let mut env = vec![json!({ "name": "A", "value": "1" })];
        env.extend(extra);
        json!({ "kind": "Deployment", "metadata": { "name": "till", "namespace": "case" }, "spec": { "replicas": replicas,
            "template": { "metadata": { "labels": { "app": "case", "regent.dev/template": image } }, "spec": {
                "initContainers": [{ "name": "regent-gate", "image": image }, { "name": "schema", "image": "s:1" }],
                "containers": [{ "name": "till", "image": image, "env": env, "resources": { "limits": { "cpu": "1000m" } } }] } } } })
    }

    #[test]
    fn what_people_scaled_and_patched_is_named_by_field_with_both_values() {
        let mut here = till(6, "till:1-cve-fixed", Some(json!({ "name": "B", "value": "2" })));
        here["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"] = json!("1");
        here["spec"]["template"]["spec"]["containers"][0]["terminationMessagePath"] = json!("/dev/termination-log");
        here["spec"]["template"]["spec"]["initContainers"][1]["image"] = json!("s:2");
        let found = differences(&till(2, "till:1", None), Some(&here));
        let told: Vec<(&str, Option<&str>, Option<&str>)> =
            found.iter().map(|d| (d.path.as_str(), d.home.as_deref(), d.here.as_deref())).collect();
        assert_eq!(
            told,
            [
                ("/spec/replicas", Some("2"), Some("6")),
                ("/spec/template/spec/containers/0/env/-", None, Some(r#"{"name":"B","value":"2"}"#)),
                ("/spec/template/spec/containers/0/image", Some(r#""till:1""#), Some(r#""till:1-cve-fixed""#)),
                ("/spec/template/spec/initContainers/0/image", Some(r#""s:1""#), Some(r#""s:2""#)),
            ]
        );
        assert!(found.iter().all(|d| d.object == "Deployment case/till"));
        assert_eq!(differences(&till(2, "till:1", None), Some(&till(2, "till:1", None))), vec![]);
    }

    #[test]
    fn a_quantity_has_many_spellings_and_another_text_has_one() {
        let claim = |size: &str| json!([{ "metadata": { "name": "d" }, "spec": { "resources": { "requests": { "storage": size } } } }]);
        let pod = |size: &str| json!({ "volumes": [{ "name": "v", "emptyDir": { "sizeLimit": size } }] });
        let set = |size: &str, text: &str| {
            let template = json!({ "spec": pod(size), "metadata": { "annotations": { "rate": text } } });
            json!({ "kind": "StatefulSet", "metadata": { "name": "s", "namespace": "case" },
                "spec": { "volumeClaimTemplates": claim(size), "template": template } })
        };
        assert_eq!(differences(&set("1Gi", "1"), Some(&set("1024Mi", "1"))), vec![]);
        let found = differences(&set("1Gi", "1"), Some(&set("2Gi", "1000m")));
        let paths: Vec<&str> = found.iter().map(|d| d.path.as_str()).collect();
        let of_template =
            ["/spec/template/metadata/annotations/rate", "/spec/template/spec/volumes/0/emptyDir/sizeLimit"];
        assert_eq!(paths, [of_template[0], of_template[1], "/spec/volumeClaimTemplates"]);
    }

    #[test]
    fn a_missing_object_is_a_difference_and_a_secret_shows_no_value() {
        assert_eq!(differences(&till(2, "till:1", None), None)[0].path, "");
        let secret = |value: &str| json!({ "kind": "Secret", "metadata": { "name": "s", "namespace": "case" }, "data": { "k": value } });
        let found = differences(&secret("YQ=="), Some(&secret("Yg==")));
        assert_eq!((found[0].path.as_str(), &found[0].home, &found[0].here), ("/data/k", &None, &None));
    }
}
