//! Images at a standby: where they come from, and that no registry is asked at a start.

use regent_api::SiteSpec;
use regent_api::site::Mapping;
use serde_json::Value;

use crate::object::{items, text};

/// The image at this site: the longest mapping that ends at a `/` of the name counts.
pub fn here(image: &str, mappings: &[Mapping]) -> String {
    mapped(image, mappings.iter().map(|m| (m.from.as_str(), m.to.as_str())))
}

/// How home names an image of this site: the mapping read backwards.
pub fn back(image: &str, mappings: &[Mapping]) -> String {
    mapped(image, mappings.iter().map(|m| (m.to.as_str(), m.from.as_str())))
}

fn mapped<'a>(image: &str, mappings: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let rest = |from: &str| {
        let rest = image.strip_prefix(from)?;
        (rest.starts_with('/') || from.ends_with('/')).then(|| rest.to_owned())
    };
    let best = mappings.filter_map(|(from, to)| Some((from, to, rest(from)?))).max_by_key(|(from, ..)| from.len());
    best.map_or_else(|| image.to_owned(), |(_, to, rest)| format!("{to}{rest}"))
}

/// Whether an image, mapped already, is one that this site lets in. A name without a
/// registry is Docker Hub's.
pub fn is_allowed(image: &str, allowed: &[String]) -> bool {
    let is_below = |beginning: &String| {
        let is_whole = !beginning.contains('/') && is_registry(beginning);
        let wanted = if is_whole { beginning.clone() } else { full(beginning) };
        let image = full(image);
        let Some(rest) = image.strip_prefix(wanted.as_str()) else { return false };
        // Behind a registry alone a colon begins a port, of another registry.
        let ends = if is_whole { &['/'][..] } else { &['/', ':', '@'][..] };
        beginning.ends_with('/') || rest.is_empty() || rest.starts_with(ends)
    };
    allowed.is_empty() || allowed.iter().any(is_below)
}

fn is_registry(name: &str) -> bool {
    name.contains(['.', ':']) || name == "localhost"
}

fn full(image: &str) -> String {
    match image.split_once('/') {
        Some((first, _)) if is_registry(first) => image.to_owned(),
        Some(_) => format!("docker.io/{image}"),
        None => format!("docker.io/library/{image}"),
    }
}

/// The images of a pod: who has it, as messages say it, and its name.
pub fn images(pod: &Value) -> Vec<(String, String)> {
    let containers = items(pod, "/initContainers").chain(items(pod, "/containers"));
    let of_containers = containers.map(|c| (format!("container {}", text(c, "/name")), text(c, "/image").to_owned()));
    let with_image = items(pod, "/volumes").filter(|v| v.get("image").is_some());
    let of_volumes =
        with_image.map(|v| (format!("volume {}", text(v, "/name")), text(v, "/image/reference").to_owned()));
    of_containers.chain(of_volumes).filter(|(_, image)| !image.is_empty()).collect()
}

/// Puts this site's registries in the place of home's, and has no registry asked about an
/// image that is there: it may be gone at the moment of a takeover.
pub fn settle(pod: &mut Value, tables: &SiteSpec) {
    for list in ["initContainers", "containers", "volumes"] {
        for item in pod.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let (holder, name, policy) = match list {
                "volumes" => (item.get_mut("image"), "reference", "pullPolicy"),
                _ => (Some(item), "image", "imagePullPolicy"),
            };
            let Some(Value::Object(holder)) = holder else { continue };
            let Some(image) = holder.get(name).and_then(Value::as_str) else { continue };
            let image = here(image, &tables.registries);
            holder.insert(name.into(), image.into());
            // Absent, it is `Always` for a tag `latest`.
            if holder.get(policy).and_then(Value::as_str) != Some("Never") {
                holder.insert(policy.into(), "IfNotPresent".into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tables() -> SiteSpec {
        let map = |from: &str, to: &str| Mapping { from: from.into(), to: to.into() };
        SiteSpec {
            registries: vec![map("home.example", "here.example/mirror"), map("home.example/team", "here.example/team")],
            ..SiteSpec::default()
        }
    }

    #[test]
    fn the_longest_mapping_counts_and_ends_at_a_slash() {
        let tables = tables();
        assert_eq!(here("home.example/a:1", &tables.registries), "here.example/mirror/a:1");
        assert_eq!(here("home.example/team/a:1", &tables.registries), "here.example/team/a:1");
        assert_eq!(here("home.examples/a:1", &tables.registries), "home.examples/a:1");
        for image in ["home.example/a:1", "home.example/team/a:1", "other.example/a"] {
            assert_eq!(back(&here(image, &tables.registries), &tables.registries), image);
        }
    }

    #[test]
    fn an_image_as_a_volume_goes_through_the_table_as_a_containers_does() {
        let mut pod = json!({ "containers": [{ "image": "home.example/a" }],
            "volumes": [{ "name": "model", "image": { "reference": "home.example/m:1", "pullPolicy": "Always" } }, { "emptyDir": {} }] });
        settle(&mut pod, &tables());
        assert_eq!(
            pod["volumes"][0]["image"],
            json!({ "reference": "here.example/mirror/m:1", "pullPolicy": "IfNotPresent" })
        );
        assert_eq!(pod["containers"][0]["image"], "here.example/mirror/a");
        assert_eq!(pod["volumes"][1], json!({ "emptyDir": {} }));
    }

    #[test]
    fn no_registry_is_asked_at_a_start() {
        let cases = [(json!("Always"), "IfNotPresent"), (json!(null), "IfNotPresent"), (json!("Never"), "Never")];
        for (policy, derived) in cases {
            let mut pod = json!({ "containers": [{ "image": "a:latest", "imagePullPolicy": policy }],
                                  "initContainers": [{ "image": "b", "imagePullPolicy": policy }] });
            settle(&mut pod, &SiteSpec::default());
            assert_eq!(pod["containers"][0]["imagePullPolicy"], derived, "{policy}");
            assert_eq!(pod["initContainers"][0]["imagePullPolicy"], derived, "{policy}");
        }
    }

    #[test]
    fn a_registry_that_is_not_listed_is_foreign() {
        let cases = [
            ("here.example/a:1", "here.example", true),
            ("here.example:5000/a:1", "here.example", false),
            ("here.example.evil/a", "here.example", false),
            ("here.example/team/a@sha256:0", "here.example/team/a", true),
            ("here.example/teams/a", "here.example/team", false),
            ("nginx:1", "docker.io", true),
            ("nginx:1", "docker.io/library/nginx", true),
            ("team/a", "docker.io/team", true),
            ("nginx:1", "here.example", false),
            ("localhost:5000/a", "localhost:5000", true),
        ];
        for (image, allowed, is) in cases {
            assert_eq!(is_allowed(image, &[allowed.to_owned()]), is, "{image} {allowed}");
            assert!(is_allowed(image, &[]));
        }
    }
}
