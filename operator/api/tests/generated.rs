//! The chart's definitions are those of this crate.

use std::fs;
use std::path::Path;

#[test]
fn the_charts_definitions_are_the_generated_ones() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts/regent/crds");
    let files = regent_api::crd_files().unwrap();
    for (name, text) in &files {
        let found = fs::read_to_string(dir.join(name)).unwrap_or_default();
        assert!(&found == text, "charts/regent/crds/{name} differs from operator/api: run `make generate`");
    }
    assert_eq!(fs::read_dir(&dir).unwrap().count(), files.len(), "a file in charts/regent/crds is nobody's");
}

#[test]
fn every_kind_is_found_by_the_category_and_says_what_it_is() {
    for crd in regent_api::crds() {
        let name = crd.metadata.name.clone().unwrap();
        assert_eq!(crd.spec.names.categories.as_deref(), Some(&["regent".to_owned()][..]), "{name}");
        for version in &crd.spec.versions {
            let schema = version.schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap();
            assert!(!schema.description.as_deref().unwrap_or("Auto").starts_with("Auto"), "{name}");
            assert!(version.additional_printer_columns.as_ref().is_some_and(|c| !c.is_empty()), "{name}");
        }
    }
}

/// What a peer, a pod or a user can make longer grows no object without bound: the kinds of
/// conditions are the operator's own, and a `ControlLease` must name every node (L12).
#[test]
fn every_list_of_a_status_has_a_bound() {
    let free = [
        "charters.status.conditions",
        "controlleases.status.nodes",
        "failovergroups.status.conditions",
        "sites.status.conditions",
        "takeovers.status.conditions",
    ];
    let mut found = Vec::new();
    for crd in regent_api::crds() {
        let text = serde_json::to_value(&crd.spec.versions[0].schema).unwrap();
        let status = text["openAPIV3Schema"]["properties"]["status"].clone();
        unbounded(&format!("{}.status", crd.spec.names.plural), &status, &mut found);
    }
    found.sort();
    assert_eq!(found, free);
}

fn unbounded(path: &str, schema: &serde_json::Value, found: &mut Vec<String>) {
    if schema["type"] == "array" && schema["maxItems"].is_null() {
        found.push(path.to_owned());
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        unbounded(&format!("{path}.{name}"), property, found);
    }
    if schema["items"].is_object() {
        unbounded(path, &schema["items"], found);
    }
}

/// The API server warns of formats that it doesn't know, at every request.
#[test]
fn no_number_has_a_format_that_kubernetes_does_not_know() {
    for (name, text) in regent_api::crd_files().unwrap() {
        let unknown = text.lines().find(|l| l.contains("format: uint"));
        assert_eq!(unknown, None, "{name}");
    }
}

#[test]
fn the_api_server_knows_the_countries_that_core_knows() {
    let files = regent_api::crd_files().unwrap();
    let (_, text) = files.iter().find(|(name, _)| name == "failovergroups.yaml").unwrap();
    assert_eq!(text.matches(regent_core::plan::COUNTRIES).count(), 1);
}
