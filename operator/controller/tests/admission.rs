//! What a real API server refuses, with the chart's policies in force, and what it says.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A helper that fails fails its test.

mod common;

use common::{Clusters, until};

const OPERATOR: &str = "--as=system:serviceaccount:regent-system:regent-operator";

/// An API server with everything that the chart installs at site `ireland`.
async fn ireland() -> Clusters {
    let clusters = Clusters::start(1).await;
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/../../charts/regent");
    let set = "site=ireland,image.repository=registry.example/regent,charter=x";
    let rendered = Clusters::run_tool(
        "helm",
        &["template", "regent", chart, "--namespace", "regent-system", "--kube-version", "1.36.0", "--set", set],
    );
    clusters.kubectl(0, &["apply", "--server-side", "-f", "-"], &rendered).unwrap();
    // A policy acts some time after it was made.
    let foreign = group("probe", "{home: france, namespaces: [shop]}");
    let is_refused = || async { clusters.kubectl(0, &["apply", "--dry-run=server", "-f", "-"], &foreign).err() };
    until("the policies to be in force", is_refused).await;
    clusters
}

fn object(kind: &str, name: &str, spec: &str) -> String {
    format!("apiVersion: regent.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}

fn group(name: &str, spec: &str) -> String {
    object("FailoverGroup", name, spec)
}

/// Applies something that must be refused with these words.
fn refused(clusters: &Clusters, manifest: &str, words: &[&str]) {
    let error = clusters.kubectl(0, &["apply", "-f", "-"], manifest).expect_err(manifest);
    for word in words {
        assert!(error.contains(word), "{manifest}\nlacks {word:?}: {error}");
    }
}

fn refused_command(clusters: &Clusters, args: &[&str], words: &[&str]) {
    let error = clusters.kubectl(0, args, "").expect_err(&args.join(" "));
    for word in words {
        assert!(error.contains(word), "{args:?} lacks {word:?}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_groups_takeovers_and_meddling_are_refused_with_the_way_out() {
    let clusters = ireland().await;
    let apply = |manifest: &str, who: &[&str]| {
        let args: Vec<&str> = ["apply", "-f", "-"].iter().chain(who).copied().collect();
        clusters.kubectl(0, &args, manifest)
    };
    for (spec, words) in [
        ("{home: ireland, namespaces: [shop], standbys: [ireland]}", ["standbys", "list other sites only"]),
        ("{home: ireland, namespaces: [shop], standbys: [france, france]}", ["standbys", "Duplicate"]),
        ("{home: ireland, namespaces: [shop], takeoverAfter: 5x}", ["takeoverAfter", "such as 5s"]),
        ("{home: ireland, namespaces: [shop], takeoverAfter: 25h}", ["takeoverAfter", "at most 24h"]),
        ("{home: ireland, namespaces: [shop], thawLimit: 2h}", ["thawLimit", "at most 1h"]),
        ("{home: ireland, namespaces: [shop], rto: 0s}", ["rto", "above zero"]),
        ("{home: ireland, namespaces: [shop], countries: [France]}", ["countries", "such as FR"]),
        ("{home: ireland, namespaces: [shop], protection: Protected}", ["Protected", "name one in standbys"]),
        ("{home: ireland, standbys: [france]}", ["namespaces", "at least one"]),
        ("{home: Ireland, namespaces: [shop]}", ["home", "kubectl get sites"]),
        ("{home: france, namespaces: [shop]}", ["spec.home", "at its home"]),
    ] {
        refused(&clusters, &group("bad", spec), &words);
    }
    refused(&clusters, &group("france.bad", "{home: ireland, namespaces: [shop]}"), &["name", "DNS label"]);

    let good = "{home: ireland, namespaces: [shop], standbys: [france], takeoverAfter: 0s, protection: Protected}";
    apply(&group("shop", good), &[]).unwrap();
    apply(&group("france.bank", "{home: france}"), &[OPERATOR]).unwrap();
    let patch = |spec: &str| {
        vec![
            "patch".to_owned(),
            "failovergroup".into(),
            "shop".into(),
            "--type=merge".into(),
            "-p".into(),
            format!("{{\"spec\":{spec}}}"),
        ]
    };
    for (spec, words) in [
        (r#"{"protection":"Observed"}"#, "can't go back"),
        (r#"{"selector":{"matchLabels":{"app":"x"}}}"#, "would run without a fence"),
        (r#"{"namespaces":["other"]}"#, "would run without a fence"),
        (r#"{"home":"france"}"#, "home can't change"),
    ] {
        let args = patch(spec);
        refused_command(&clusters, &args.iter().map(String::as_str).collect::<Vec<_>>(), &[words]);
    }
    refused_command(&clusters, &["delete", "failovergroup", "shop"], &["Protected", "regent.dev/confirm-delete=shop"]);
    refused_command(&clusters, &["delete", "failovergroup", "france.bank"], &["read-only copy"]);
    refused(&clusters, &object("ControlLease", "ireland.shop", "{group: ireland/shop}"), &["by the operator alone"]);

    for (spec, words) in [
        ("{group: shop, to: france, type: Planned}", "HOME/NAME"),
        ("{group: ireland/shop, to: france, type: Planned, approve: true}", "type Approval only"),
        ("{group: france/bank, to: germany, type: Approval}", "made at the standby"),
        ("{group: france/bank, to: ireland, type: Lapse}", "by the operator alone"),
    ] {
        refused(&clusters, &object("Takeover", "t", spec), &[words]);
    }
    let approval = object("Takeover", "t", "{group: france/bank, to: ireland, type: Approval, approve: true}");
    let error = apply(&approval, &[OPERATOR]).unwrap_err();
    assert!(error.contains("regent-takeover-approver"), "{error}");
    apply(&approval, &[]).unwrap();

    let planned = object("Takeover", "move", "{group: ireland/shop, to: france, type: Planned}");
    apply(&planned, &[]).unwrap();
    let reaches = |phase: &str| {
        let status = format!(r#"{{"status":{{"phase":"{phase}","oldEpoch":"3.1"}}}}"#);
        let args = ["patch", "takeover", "move", "--subresource=status", "--type=merge", "-p", &status];
        clusters.kubectl(0, &args, "").unwrap();
    };
    for phase in ["Pending", "Closed", "Retired", "Stopped"] {
        reaches(phase);
        refused_command(&clusters, &["delete", "takeover", "move"], &["half released", phase, "Released or later"]);
    }
    reaches("Released");
    clusters.kubectl(0, &["delete", "takeover", "move"], "").unwrap();

    clusters.kubectl(0, &["annotate", "failovergroup", "shop", "regent.dev/confirm-delete=shop"], "").unwrap();
    clusters.kubectl(0, &["delete", "failovergroup", "shop"], "").unwrap();
}

fn pod(name: &str, labels: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{{labels}}}}}\nspec:\n  \
         securityContext: {{runAsNonRoot: true, runAsUser: 10001, seccompProfile: {{type: RuntimeDefault}}}}\n  \
         containers:\n  - name: c\n    image: registry.example/shop:1\n    \
         securityContext: {{allowPrivilegeEscalation: false, capabilities: {{drop: [ALL]}}}}\n  {more}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn gates_are_injected_checked_and_kept_in_a_restricted_namespace() {
    let clusters = ireland().await;
    let apply = |manifest: &str| clusters.kubectl(0, &["apply", "-f", "-"], manifest);
    let get = |name: &str, path: &str| {
        clusters.kubectl(0, &["-n", "shop", "get", "pod", name, "-o", &format!("jsonpath={{{path}}}")], "").unwrap()
    };
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n  labels: {pod-security.kubernetes.io/enforce: restricted}\n";
    apply(namespace).unwrap();
    clusters.kubectl(0, &["-n", "shop", "create", "serviceaccount", "default"], "").unwrap();
    clusters
        .kubectl(
            0,
            &[
                "create",
                "clusterrolebinding",
                "op",
                "--clusterrole=cluster-admin",
                "--serviceaccount=regent-system:regent-operator",
            ],
            "",
        )
        .unwrap();
    for (name, spec) in [
        ("ireland.shop", "{group: ireland/shop, selector: {matchLabels: {app: shop}}}"),
        ("ireland.both", "{group: ireland/both, selector: {matchExpressions: [{key: both, operator: Exists}]}}"),
    ] {
        clusters.kubectl(0, &["-n", "shop", "apply", "-f", "-", OPERATOR], &object("GatedPods", name, spec)).unwrap();
    }
    until("a gate to be injected", || async {
        clusters
            .kubectl(0, &["-n", "shop", "delete", "pod", "a", "--ignore-not-found", "--force", "--grace-period=0"], "")
            .ok()?;
        apply(&pod("a", "app: shop", "")).ok()?;
        (get("a", ".spec.initContainers[0].name") == "regent-gate").then_some(())
    })
    .await;
    assert_eq!(get("a", ".spec.initContainers[0].image"), "registry.example/shop:1");
    assert_eq!(get("a", ".spec.volumes[?(@.name==\"regent-gate\")].csi.volumeAttributes.group"), "ireland/shop");
    assert_eq!(get("a", ".status.qosClass"), "BestEffort");

    let volume = |group: &str| {
        format!(
            "volumes: [{{name: regent-gate, csi: {{driver: gate.regent.dev, readOnly: true, volumeAttributes: {{group: {group}}}}}}}]"
        )
    };
    apply(&pod("declared", "app: shop", &volume("ireland/shop"))).unwrap();
    assert_eq!(get("declared", ".spec.volumes[*].name").matches("regent-gate").count(), 1);
    assert_eq!(get("declared", ".spec.initContainers[*].name"), "regent-gate");
    apply(&pod("stranger", "app: other", "")).unwrap();
    assert_eq!(get("stranger", ".spec.initContainers"), "");

    let fake = "initContainers: [{name: regent-gate, image: registry.example/shop:1, command: [\"true\"], securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}}]";
    refused(&clusters, &pod("fake", "app: shop", fake), &["unchanged regent-gate", "ireland/shop"]);
    refused(
        &clusters,
        &pod("foreign", "app: shop", &volume("ireland/other")),
        &["two groups may not select the same pod"],
    );
    refused(&clusters, &pod("twice", "app: shop, both: \"yes\"", ""), &["two groups may not select the same pod"]);

    refused_command(&clusters, &["-n", "shop", "set", "image", "pod/a", "regent-gate=evil"], &["it is the gate"]);
    clusters.kubectl(0, &["-n", "shop", "set", "image", "pod/a", "c=registry.example/shop:2"], "").unwrap();
    let debug = ["-n", "shop", "debug", "a", "--image=busybox", "--profile=restricted"];
    refused_command(&clusters, &debug, &["held by its gate"]);
    refused_command(&clusters, &["-n", "shop", "delete", "gatedpods", "ireland.shop"], &["by the operator alone"]);
}
