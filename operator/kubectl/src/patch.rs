//! Merge patches (RFC 7386) out of differences, whose places are JSON pointers (RFC 6901).
//!
//! A merge patch replaces a list as a whole, so one that changes an item needs the list as it
//! is at home:
//!
//! ```text
//!   home's object --differences--> as it is at the holder --what differs--> merge patch
//! ```

use anyhow::{Context, Result, bail};
use regent_api::group::Difference;
use regent_kinds::pointer::{self, tokens};
use serde_json::{Map, Value};

/// Whether the values of a difference are told. They aren't of Secrets, nor if they are long.
pub fn is_told(difference: &Difference) -> bool {
    difference.home.is_some() || difference.here.is_some()
}

/// The patch that makes `live`, home's object, what it is at the holder. Refused where home
/// has changed since: the report is about another revision then.
pub fn against(live: &Value, differences: &[&Difference]) -> Result<Value> {
    let mut wanted = Vec::new();
    for d in differences {
        let (home, here) = values(d)?;
        let now = added(live, d, here.as_ref()).or_else(|| live.pointer(&d.path));
        if now == here.as_ref() {
            continue;
        }
        if now != home.as_ref() {
            bail!(
                "{} {}: home says {} now, and {} in the revision that the holder's report is about; change it by hand",
                d.object,
                d.path,
                now.map_or_else(|| "nothing".to_owned(), Value::to_string),
                d.home.as_deref().unwrap_or("nothing"),
            );
        }
        wanted.push((*d, here));
    }
    let mut after = live.clone();
    change(&mut after, wanted)?;
    Ok(merge_patch(live, &after))
}

/// What home's list has in the place of an item that was added at the holder: `-` is behind the
/// last one (RFC 6901), and items of lists are told apart by their names.
fn added<'a>(live: &'a Value, d: &Difference, here: Option<&Value>) -> Option<&'a Value> {
    let list = live.pointer(d.path.strip_suffix("/-")?)?.as_array()?;
    let name = here?.get("name")?;
    list.iter().find(|item| item.get("name") == Some(name))
}

/// The patch by the report alone, where home's object can't be read. Lists can't be patched so.
pub fn alone(differences: &[&Difference]) -> Result<Value> {
    let (mut before, mut wanted) = (Value::Object(Map::new()), Vec::new());
    for d in differences {
        let (home, here) = values(d)?;
        if tokens(&d.path)?.iter().any(|token| token == "-" || token.parse::<usize>().is_ok()) {
            bail!(
                "{} {}: an item of a list is replaced with its whole list, which is at home: run this there",
                d.object,
                d.path
            );
        }
        if let Some(home) = home {
            pointer::set(&mut before, &d.path, home).with_context(|| d.object.clone())?;
        }
        wanted.push((*d, here));
    }
    let mut after = before.clone();
    change(&mut after, wanted)?;
    Ok(merge_patch(&before, &after))
}

/// Both values, parsed; the place is one that a person may have changed.
fn values(d: &Difference) -> Result<(Option<Value>, Option<Value>)> {
    let is_below = |tops: &[&str]| tops.iter().any(|t| d.path == *t || d.path.starts_with(&format!("{t}/")));
    if d.path.is_empty() {
        bail!("{} is at one of the two sites only: make or delete it at home by hand", d.object);
    }
    let is_own = is_below(&["/apiVersion", "/kind", "/status", "/metadata"]);
    if is_own && !is_below(&["/metadata/labels", "/metadata/annotations"]) {
        bail!("{} {}: no field that is copied between sites", d.object, d.path);
    }
    let parse = |text: &Option<String>| {
        let parsed = text.as_deref().map(serde_json::from_str).transpose();
        parsed.with_context(|| format!("{} {}: the report's value is no JSON", d.object, d.path))
    };
    Ok((parse(&d.home)?, parse(&d.here)?))
}

/// Sets and removes what is wanted.
fn change(object: &mut Value, wanted: Vec<(&Difference, Option<Value>)>) -> Result<()> {
    let named = wanted.first().map(|(d, _)| d.object.clone()).unwrap_or_default();
    let places = wanted.into_iter().map(|(d, value)| (d.path.as_str(), value));
    pointer::change(object, places).with_context(|| named)
}

/// What a merge patch has to say to make `after` out of `before`.
fn merge_patch(before: &Value, after: &Value) -> Value {
    let (Value::Object(old), Value::Object(new)) = (before, after) else { return after.clone() };
    let mut patch = Map::new();
    for (key, value) in new {
        match old.get(key) {
            Some(same) if same == value => {}
            Some(other) => drop(patch.insert(key.clone(), merge_patch(other, value))),
            None => drop(patch.insert(key.clone(), value.clone())),
        }
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    Value::Object(patch)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn difference(path: &str, home: Value, here: Value) -> Difference {
        let text = |v: Value| (!v.is_null()).then(|| v.to_string());
        Difference { object: "Deployment shop/shop".into(), path: path.into(), home: text(home), here: text(here) }
    }

    fn patch(live: &Value, differences: &[Difference]) -> Result<Value> {
        against(live, &differences.iter().collect::<Vec<_>>())
    }

    fn deployment() -> Value {
        json!({
            "metadata": { "annotations": { "example.com/team": "tills" } },
            "spec": { "replicas": 3, "template": { "spec": { "containers": [
                { "name": "shop", "image": "shop:1", "args": ["a", "b", "c"] }, { "name": "log", "image": "log:1" },
            ] } } },
        })
    }

    #[test]
    fn an_item_that_was_added_at_the_holder_is_added_at_home_once() {
        let home = |env: Value| json!({ "spec": { "env": env } });
        let item = json!({ "name": "HOTFIX", "value": "1" });
        let d = Difference { object: "o".into(), path: "/spec/env/-".into(), home: None, here: Some(item.to_string()) };
        let before = home(json!([{ "name": "A" }]));
        let patched = home(json!([{ "name": "A" }, item]));
        assert_eq!(against(&before, &[&d]).unwrap(), patched);
        assert_eq!(against(&patched, &[&d]).unwrap(), json!({}), "it is there already");
        let other = home(json!([{ "name": "HOTFIX", "value": "2" }]));
        assert!(against(&other, &[&d]).unwrap_err().to_string().contains("by hand"));
        assert!(alone(&[&d]).is_err(), "a list is patched whole");
    }

    #[test]
    fn fields_are_patched_in_place_and_lists_as_a_whole() {
        let changes = [
            difference("/spec/replicas", json!(3), json!(5)),
            difference("/spec/template/spec/containers/0/image", json!("shop:1"), json!("shop:2")),
            difference("/metadata/annotations/example.com~1team", json!("tills"), Value::Null),
            difference("/metadata/annotations/example.com~1on~0call", Value::Null, json!("yes")),
        ];
        let expected = json!({
            "metadata": { "annotations": { "example.com/team": null, "example.com/on~call": "yes" } },
            "spec": { "replicas": 5, "template": { "spec": { "containers": [
                { "name": "shop", "image": "shop:2", "args": ["a", "b", "c"] }, { "name": "log", "image": "log:1" },
            ] } } },
        });
        assert_eq!(patch(&deployment(), &changes).unwrap(), expected);
    }

    #[test]
    fn items_leave_a_list_from_its_end_and_are_added_there() {
        let args = "/spec/template/spec/containers/0/args";
        let gone = |i: usize, was: &str| difference(&format!("{args}/{i}"), json!(was), Value::Null);
        let found = patch(&deployment(), &[gone(1, "b"), gone(2, "c")]).unwrap();
        assert_eq!(found.pointer("/spec/template/spec/containers/0/args"), Some(&json!(["a"])));
        let more = patch(&deployment(), &[difference(&format!("{args}/3"), Value::Null, json!("d"))]).unwrap();
        assert_eq!(more.pointer("/spec/template/spec/containers/0/args"), Some(&json!(["a", "b", "c", "d"])));
        assert!(patch(&deployment(), &[difference(&format!("{args}/7"), Value::Null, json!("d"))]).is_err());
    }

    #[test]
    fn an_object_that_replaces_another_leaves_none_of_its_fields() {
        let live = json!({ "spec": { "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1 } } } });
        let to = difference("/spec/strategy", live["spec"]["strategy"].clone(), json!({ "type": "Recreate" }));
        let expected = json!({ "spec": { "strategy": { "type": "Recreate", "rollingUpdate": null } } });
        assert_eq!(patch(&live, &[to]).unwrap(), expected);
    }

    #[test]
    fn what_home_says_already_is_no_change_and_what_it_said_never_is_refused() {
        let done = difference("/spec/replicas", json!(2), json!(3));
        assert_eq!(patch(&deployment(), &[done]).unwrap(), json!({}));
        let error = patch(&deployment(), &[difference("/spec/replicas", json!(2), json!(5))]).unwrap_err().to_string();
        assert!(error.contains("Deployment shop/shop /spec/replicas: home says 3 now, and 2"), "{error}");
    }

    #[test]
    fn a_report_can_not_reach_what_is_not_copied() {
        for path in ["", "/status/replicas", "/kind", "/metadata/name", "/metadata", "/metadata/ownerReferences/0"] {
            assert!(patch(&deployment(), &[difference(path, Value::Null, json!("x"))]).is_err(), "{path}");
        }
        assert!(patch(&deployment(), &[difference("spec", Value::Null, json!("x"))]).is_err());
        let torn = Difference { here: Some("{".into()), ..difference("/spec/a", Value::Null, Value::Null) };
        assert!(patch(&deployment(), &[torn]).unwrap_err().to_string().contains("no JSON"));
    }

    #[test]
    fn without_homes_object_fields_are_patched_and_lists_are_left_to_home() {
        let by_report = |d: &Difference| alone(&[d]);
        let strategy = difference("/spec/strategy", json!({ "type": "A", "b": 1 }), json!({ "type": "C" }));
        assert_eq!(by_report(&strategy).unwrap(), json!({ "spec": { "strategy": { "type": "C", "b": null } } }));
        let gone = difference("/data/a", json!("x"), Value::Null);
        assert_eq!(by_report(&gone).unwrap(), json!({ "data": { "a": null } }));
        let item = difference("/spec/containers/0/image", json!("a"), json!("b"));
        assert!(by_report(&item).unwrap_err().to_string().contains("run this there"));
    }
}
