//! Places in JSON (pointers, RFC 6901): values are set there and removed.

use std::cmp::Reverse;

use serde_json::{Map, Value};

/// Why a value can't be put at a place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PointerError {
    /// It begins with no `/`.
    #[error("{0:?} is no JSON pointer: it must begin with /")]
    NoPointer(String),
    /// A list has no such item.
    #[error("{path}: a list of {items} items has no place {place}")]
    NoPlace {
        /// The pointer.
        path: String,
        /// How many items the list has.
        items: usize,
        /// The item that is meant.
        place: String,
    },
    /// What is above the place has no fields.
    #[error("{0}: what is above it has no fields")]
    NoFields(String),
}

/// The tokens of a pointer.
pub fn tokens(path: &str) -> Result<Vec<String>, PointerError> {
    let Some(rest) = path.strip_prefix('/') else { return Err(PointerError::NoPointer(path.to_owned())) };
    Ok(rest.split('/').map(|token| token.replace("~1", "/").replace("~0", "~")).collect())
}

/// A key as a token.
pub fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// Sets what is wanted, then removes, of a list the last item first: others keep their places.
pub fn change<'a>(
    object: &mut Value,
    wanted: impl IntoIterator<Item = (&'a str, Option<Value>)>,
) -> Result<(), PointerError> {
    let mut removed = Vec::new();
    for (path, value) in wanted {
        match value {
            Some(value) => set(object, path, value)?,
            None => removed.push((Reverse(order(path)?), path)),
        }
    }
    removed.sort_by(|a, b| a.0.cmp(&b.0));
    removed.into_iter().try_for_each(|(_, path)| remove(object, path))
}

/// The tokens of a pointer, numbers by their value.
fn order(path: &str) -> Result<Vec<(Option<usize>, String)>, PointerError> {
    Ok(tokens(path)?.into_iter().map(|token| (token.parse().ok(), token)).collect())
}

/// The last token of a pointer, and the pointer before it.
fn split(path: &str) -> Result<(&str, String), PointerError> {
    let none = || PointerError::NoPointer(path.to_owned());
    let last = tokens(path)?.pop().ok_or_else(none)?;
    let (parent, _) = path.rsplit_once('/').ok_or_else(none)?;
    Ok((parent, last))
}

/// Puts a value at a place: a field, an item, or `-`, behind the last item. What is missing
/// above it is made.
pub fn set(object: &mut Value, path: &str, value: Value) -> Result<(), PointerError> {
    let (parent, last) = split(path)?;
    if object.pointer(parent).is_none() {
        let made = if last == "-" { Value::Array(Vec::new()) } else { Value::Object(Map::new()) };
        set(object, parent, made)?;
    }
    match object.pointer_mut(parent) {
        Some(Value::Object(map)) => drop(map.insert(last, value)),
        Some(Value::Array(list)) => match last.parse::<usize>() {
            Ok(index) if index < list.len() => list[index] = value,
            Ok(index) if index == list.len() => list.push(value),
            Err(_) if last == "-" => list.push(value),
            _ => return Err(PointerError::NoPlace { path: path.to_owned(), items: list.len(), place: last }),
        },
        _ => return Err(PointerError::NoFields(path.to_owned())),
    }
    Ok(())
}

fn remove(object: &mut Value, path: &str) -> Result<(), PointerError> {
    let (parent, last) = split(path)?;
    match object.pointer_mut(parent) {
        Some(Value::Object(map)) => drop(map.remove(&last)),
        Some(Value::Array(list)) => match last.parse::<usize>() {
            Ok(index) if index < list.len() => drop(list.remove(index)),
            _ => return Err(PointerError::NoPlace { path: path.to_owned(), items: list.len(), place: last }),
        },
        _ => return Err(PointerError::NoFields(path.to_owned())),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn items_are_set_first_and_leave_a_list_from_its_end() {
        let mut object = json!({ "args": ["a", "b", "c"] });
        change(&mut object, [("/args/1", None), ("/args/2", None), ("/args/-", Some(json!("d")))]).unwrap();
        assert_eq!(object, json!({ "args": ["a", "d"] }));
        let error = change(&mut object, [("/args/7", None)]).unwrap_err().to_string();
        assert_eq!(error, "/args/7: a list of 2 items has no place 7");
    }

    #[test]
    fn what_is_missing_above_a_place_is_made() {
        let mut object = json!({ "name": "a" });
        change(&mut object, [("/map/a~1b", Some(json!(1))), ("/list/-", Some(json!(2)))]).unwrap();
        assert_eq!(object, json!({ "name": "a", "map": { "a/b": 1 }, "list": [2] }));
        assert!(set(&mut object, "/name/x", json!(1)).is_err(), "a text has no fields");
        assert!(set(&mut object, "name", json!(1)).is_err(), "no pointer");
    }
}
