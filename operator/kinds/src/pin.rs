//! Pins images to what home's pods really run.
//!
//! A tag may name another image tomorrow, or in another registry: with the digest beside
//! it, what starts at a standby is what ran at home.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::object::{items, object_of, text};

/// The repository digest of an `imageID`: `repo@sha256:…`, perhaps with a scheme before it.
/// An image that was only ever built on the node has none.
fn digest_of(image_id: &str) -> Option<&str> {
    let (_, digest) = image_id.rsplit_once('@')?;
    let (algorithm, hex) = digest.split_once(':')?;
    let is_hex = hex.len() >= 32 && hex.bytes().all(|b| b.is_ascii_hexdigit());
    (!algorithm.is_empty() && is_hex).then_some(digest)
}

/// What a pod runs in a container; empty where nothing says it.
fn image_id<'a>(pod: &'a Value, container: &str) -> &'a str {
    let lists = ["/status/containerStatuses", "/status/initContainerStatuses"];
    let mut statuses = lists.into_iter().flat_map(|list| items(pod, list));
    statuses.find(|s| text(s, "/name") == container).map_or("", |s| text(s, "/imageID"))
}

/// Writes the digests that a workload's ready pods run into its template, and tells what
/// could not be pinned. The newest pod's digest counts: it is what the next one would get.
pub fn pin(workload: &mut Value, pods: &[&Value]) -> Vec<String> {
    let mut notices = Vec::new();
    let age = |p: &&&Value| (text(p, "/metadata/creationTimestamp").to_owned(), text(p, "/metadata/name").to_owned());
    let Some(newest) = pods.iter().max_by_key(age) else { return notices };
    let object = object_of(workload);
    for list in ["initContainers", "containers"] {
        let containers = workload.pointer_mut(&format!("/spec/template/spec/{list}")).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let (name, image) = (text(container, "/name").to_owned(), text(container, "/image").to_owned());
            if image.is_empty() || image.contains('@') {
                continue;
            }
            let Some(digest) = digest_of(image_id(newest, &name)) else {
                notices.push(format!(
                    "{object}, container {name}: image {image} has no repository digest at home: a standby runs whatever its registry has under that tag"
                ));
                continue;
            };
            let all: BTreeSet<&str> = pods.iter().filter_map(|p| digest_of(image_id(p, &name))).collect();
            if all.len() > 1 {
                notices.push(format!(
                    "{object}, container {name}: pods run {} images under {image}; that of the newest pod {} travels: {digest}",
                    all.len(),
                    text(newest, "/metadata/name")
                ));
            }
            container["image"] = format!("{image}@{digest}").into();
        }
    }
    notices
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sha(c: char) -> String {
        format!("sha256:{}", String::from(c).repeat(64))
    }

    fn workload() -> Value {
        json!({ "kind": "Deployment", "metadata": { "name": "kiosk", "namespace": "case" }, "spec": { "template": { "spec": {
            "initContainers": [{ "name": "schema", "image": "registry.ireland.example/kiosk-schema:7" }],
            "containers": [{ "name": "kiosk", "image": "registry.ireland.example/kiosk:7" }] } } } })
    }

    fn pod(name: &str, made: &str, schema: &str, kiosk: &str) -> Value {
        json!({ "metadata": { "name": name, "creationTimestamp": made }, "status": {
            "initContainerStatuses": [{ "name": "regent-gate", "imageID": "x" }, { "name": "schema", "imageID": schema }],
            "containerStatuses": [{ "name": "kiosk", "imageID": kiosk }] } })
    }

    fn images(of: &Value) -> (String, String) {
        let spec = "/spec/template/spec";
        (
            text(of, &format!("{spec}/initContainers/0/image")).into(),
            text(of, &format!("{spec}/containers/0/image")).into(),
        )
    }

    #[test]
    fn each_image_gets_the_digest_that_home_runs_and_keeps_its_tag_and_registry() {
        let one = pod(
            "a",
            "2026-01-01T00:00:00Z",
            &format!("mirror.example/kiosk-schema@{}", sha('a')),
            &format!("docker-pullable://registry.ireland.example/kiosk@{}", sha('b')),
        );
        let mut pinned = workload();
        assert_eq!(pin(&mut pinned, &[&one]), Vec::<String>::new());
        let expected = (
            format!("registry.ireland.example/kiosk-schema:7@{}", sha('a')),
            format!("registry.ireland.example/kiosk:7@{}", sha('b')),
        );
        assert_eq!(images(&pinned), expected);
        let mut again = pinned.clone();
        assert_eq!(pin(&mut again, &[&one]), Vec::<String>::new());
        assert_eq!(again, pinned, "a digest that is there stays");
    }

    #[test]
    fn an_image_without_a_repository_digest_stays_and_is_told() {
        let local = pod("a", "", &sha('a'), "");
        let mut pinned = workload();
        let notices = pin(&mut pinned, &[&local]);
        assert_eq!(pinned, workload());
        assert!(notices.len() == 2 && notices[1].contains("Deployment case/kiosk, container kiosk"), "{notices:?}");
        assert_eq!(pin(&mut pinned, &[]), Vec::<String>::new(), "nothing runs, nothing is told");
    }

    #[test]
    fn the_newest_pods_digest_counts_whatever_the_order_of_the_list() {
        let id = |c| format!("r/kiosk@{}", sha(c));
        let (old, new) = (
            pod("b", "2026-01-01T00:00:00Z", &id('a'), &id('1')),
            pod("a", "2026-01-02T00:00:00Z", &id('a'), &id('2')),
        );
        for pods in [[&old, &new], [&new, &old]] {
            let mut pinned = workload();
            let notices = pin(&mut pinned, &pods);
            assert!(images(&pinned).1.ends_with(&sha('2')));
            assert!(notices.len() == 1 && notices[0].contains("2 images"), "{notices:?}");
        }
    }
}
