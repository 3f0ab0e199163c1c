//! Releases at home: what standbys hold while one comes, while one never gets ready, and when
//! everything at home is gone.

use std::time::Duration;

use anyhow::{Result, ensure};
use regent_demo::federation::wait_for;
use regent_demo::group::Group;
use regent_scenarios::{LIMIT, Stage, group};

fn rates() -> Group {
    Group { home: "germany".into(), ..group("rates", &["france", "ireland"], 8120) }
}

fn emptied() -> Group {
    Group { replicas: 1, home: "germany".into(), ..group("emptied", &["france", "ireland"], 8121) }
}

/// The words of the condition Mirrored at home, once it has a reason.
fn mirrored(stage: &Stage, group: &Group, reason: &str) -> Result<String> {
    wait_for(&format!("{reason} of {}", group.key()), LIMIT, || {
        let path = "jsonpath={range .status.conditions[?(@.type==\"Mirrored\")]}{.reason} {.message}{end}";
        let said = stage.federation.kubectl(&group.home, &["get", "failovergroup", &group.name, "-o", path], None)?;
        Ok(said.strip_prefix(reason).map(|message| message.trim().to_owned()))
    })
}

fn at_home(stage: &Stage, group: &Group, args: &[&str]) -> Result<String> {
    stage.federation.kubectl(&group.home, args, None)
}

/// A release that gets ready replaces the old one, and at no moment less is held; one that
/// doesn't replaces nothing; and an emptied home empties nobody else.
pub fn releases(stage: &Stage, set: &Group) -> Result<()> {
    for group in [rates(), emptied()] {
        group.apply(&stage.federation)?;
    }
    for group in [rates(), emptied()] {
        stage.federation.plugin(&group.home, &["protect", &group.name, "--yes", "--wait", "180s"])?;
        stage.settled(&group)?;
    }
    roll(stage, &rates(), "deployment/shop", &["france", "ireland"])?;
    roll(stage, set, "statefulset/shop", &["germany"])?;

    let rates = rates();
    let before = stage.entry(&rates.home, &rates, "france", "revision")?;
    at_home(stage, &rates, &["-n", "rates", "set", "image", "deployment/shop", "shop=registry.rig/shop:bad"])?;
    let said = mirrored(stage, &rates, "BetweenRevisions")?;
    ensure!(said.contains("Deployment rates/shop") && said.contains("stays held"), "{said}");
    stage.keep("release-not-ready", &rates.home, &["status", "rates"])?;
    still_armed(stage, &rates, &before)?;

    let emptied = emptied();
    let before = stage.entry(&emptied.home, &emptied, "france", "revision")?;
    at_home(stage, &emptied, &["-n", "emptied", "delete", "deployment", "shop"])?;
    let said = mirrored(stage, &emptied, "Emptied")?;
    ensure!(said.contains("home is empty since") && said.contains(&before), "{said}");
    stage.keep("home-emptied", &emptied.home, &["status", "emptied"])?;
    still_armed(stage, &emptied, &before)
}

/// What must not happen needs time to happen in: copies that follow home to nothing are gone within 10 s.
fn still_armed(stage: &Stage, group: &Group, revision: &str) -> Result<()> {
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_secs(12) {
        for standby in group.standbys.iter().map(String::as_str) {
            let state = stage.entry(&group.home, group, standby, "state")?;
            ensure!(state == "Armed", "{standby} says {state} of {}", group.key());
            ensure!(
                stage.entry("ireland", group, standby, "revision")? == revision,
                "{standby} holds another revision"
            );
            held(stage, group, standby, group.replicas as usize)?;
        }
        std::thread::sleep(Duration::from_millis(300));
    }
    Ok(())
}

/// At least so many pods stand at their gates.
fn held(stage: &Stage, group: &Group, site: &str, least: usize) -> Result<()> {
    let path = "jsonpath={range .items[*]}{range .status.initContainerStatuses[?(@.name==\"regent-gate\")]}\
                {.state.running.startedAt}{'\\n'}{end}{end}";
    let text = stage.federation.kubectl(site, &["-n", &group.name, "get", "pods", "-o", path], None)?;
    let count = text.lines().filter(|l| !l.trim().is_empty()).count();
    ensure!(count >= least, "{count} pods of {} are held at {site}, {least} are wanted", group.key());
    Ok(())
}

/// A new release at home: standbys say Armed at every moment until they hold it.
fn roll(stage: &Stage, group: &Group, workload: &str, standbys: &[&str]) -> Result<()> {
    let revision = |standby: &str| stage.entry(&group.home, group, standby, "revision");
    let before: Vec<String> = standbys.iter().map(|s| revision(s)).collect::<Result<_>>()?;
    at_home(stage, group, &["-n", &group.name, "set", "env", workload, "RELEASE=2"])?;
    // A set renews one ordinal at a time; of a Deployment all old ones stay.
    let least = if workload.starts_with("stateful") { group.replicas - 1 } else { group.replicas };
    wait_for(&format!("the new release of {} to be held", group.key()), LIMIT, || {
        let mut done = true;
        for (standby, old) in standbys.iter().zip(&before) {
            let state = stage.entry(&group.home, group, standby, "state")?;
            let is_whole = state == "Armed" || workload.starts_with("stateful");
            ensure!(is_whole, "{standby} says {state} in the middle of a release");
            held(stage, group, standby, least as usize)?;
            done &= &revision(standby)? != old && state == "Armed";
        }
        Ok(done.then_some(()))
    })
}

/// A set whose owner wants its claims gone with it, on a volume that is made by hand.
const VAULT: &str = r#"
{apiVersion: v1, kind: Service, metadata: {name: vault, namespace: vault}, spec: {clusterIP: None, selector: {app: shop}, ports: [{port: 8080}]}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: vault, namespace: vault}
spec:
  replicas: 1
  serviceName: vault
  persistentVolumeClaimRetentionPolicy: {whenDeleted: Delete, whenScaled: Delete}
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec:
      terminationGracePeriodSeconds: 1
      securityContext: {runAsNonRoot: true, runAsUser: 10001, fsGroup: 10001, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: app
        image: registry.rig/shop:dev
        env:
        - {name: GROUP, value: ireland/vault}
        - {name: SINK, value: "127.0.0.1:9"}
        - {name: JOURNAL_DIR, value: /journal}
        - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
        - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: POD_UID, valueFrom: {fieldRef: {fieldPath: metadata.uid}}}
        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
        volumeMounts: [{name: journal, mountPath: /journal}, {name: data, mountPath: /data}]
      volumes: [{name: journal, emptyDir: {}}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {storageClassName: by-hand, accessModes: [ReadWriteOnce], resources: {requests: {storage: 64Mi}}}
"#;
const VOLUME: &str = "{apiVersion: v1, kind: PersistentVolume, metadata: {name: vault-0}, spec: {capacity: {storage: 64Mi}, \
    accessModes: [ReadWriteOnce], storageClassName: by-hand, persistentVolumeReclaimPolicy: Retain, \
    hostPath: {path: /var/lib/vault-0, type: DirectoryOrCreate}}}";
const NAMESPACE: &str = "{apiVersion: v1, kind: Namespace, metadata: {name: vault, labels: {pod-security.kubernetes.io/enforce: restricted}}}";
const VAULT_GROUP: &str = "{apiVersion: regent.dev/v1alpha1, kind: FailoverGroup, metadata: {name: vault}, spec: {home: ireland, \
    namespaces: [vault], selector: {matchLabels: {app: shop}}, standbys: [france], takeoverAfter: 3s}}";

/// Made anew at home with another claim template, a set is made anew at the standby too, and
/// its claim there keeps what it holds.
pub fn claims(stage: &Stage) -> Result<()> {
    let (federation, vault) = (&stage.federation, Group { replicas: 1, ..group("vault", &["france"], 8122) });
    for site in ["ireland", "france"] {
        federation.kubectl(site, &["apply", "-f", "-"], Some(VOLUME))?;
    }
    vault.prepare_standbys(federation)?;
    for manifest in [NAMESPACE, VAULT, VAULT_GROUP] {
        federation.kubectl("ireland", &["apply", "-f", "-"], Some(manifest))?;
    }
    let role = federation.plugin("ireland", &["home", "prepare", "--namespace", "vault"])?;
    federation.kubectl("ireland", &["apply", "-f", "-"], Some(&role))?;
    let armed = |what: &str, old: &str| {
        wait_for(what, LIMIT, || {
            let state = stage.entry("ireland", &vault, "france", "state")?;
            let revision = stage.entry("ireland", &vault, "france", "revision")?;
            Ok((state == "Armed" && revision != old).then_some(revision))
        })
    };
    let revision = armed("france to hold the vault ready", "")?;
    let claim = || {
        let path = "jsonpath={.metadata.uid} {.status.phase}";
        federation.kubectl("france", &["-n", "vault", "get", "pvc", "data-vault-0", "-o", path], None)
    };
    let before = claim()?;
    ensure!(before.ends_with(" Bound"), "{before}");
    at_home(stage, &vault, &["-n", "vault", "delete", "statefulset", "vault"])?;
    // Its owner wanted the claim gone with it, and the volume is free for the next one.
    wait_for("home's claim to be gone", LIMIT, || {
        Ok(at_home(stage, &vault, &["-n", "vault", "get", "pvc", "-o", "name"])?.is_empty().then_some(()))
    })?;
    let free = r#"{"spec":{"claimRef":null}}"#;
    at_home(stage, &vault, &["patch", "pv", "vault-0", "--type=merge", "-p", free])?;
    let other = VAULT.replace("requests: {storage: 64Mi}", "requests: {storage: 32Mi}");
    federation.kubectl("ireland", &["apply", "-f", "-"], Some(&other))?;
    armed("france to hold the vault that was made anew", &revision)?;
    let path = "jsonpath={.spec.volumeClaimTemplates[0].spec.resources.requests.storage}";
    let copy = federation.kubectl("france", &["-n", "vault", "get", "statefulset", "vault", "-o", path], None)?;
    ensure!(copy == "32Mi", "the copy is not made anew: {copy}");
    let after = claim()?;
    ensure!(after == before, "the claim was {before}, and is {after}");
    Ok(())
}

/// Germany is cut off: France runs what was last ready there.
pub fn taken(stage: &Stage) -> Result<()> {
    for group in [rates(), emptied()] {
        wait_for(&format!("france to run {}", group.key()), LIMIT, || {
            Ok((stage.entry("france", &group, "france", "state")? == "Holding").then_some(()))
        })?;
        let path = "jsonpath={range .items[?(@.status.phase==\"Running\")]}{.spec.containers[0].image}{'\\n'}{end}";
        let images = stage.federation.kubectl("france", &["-n", &group.name, "get", "pods", "-o", path], None)?;
        let good = images.lines().filter(|i| i.starts_with("registry.rig/shop:dev@sha256:")).count();
        ensure!(good == images.lines().count() && good == group.replicas as usize, "{}: {images}", group.key());
    }
    stage.keep("release-taken-over", "france", &["status"])
}

/// Takes the groups away.
pub fn clear(stage: &Stage) -> Result<()> {
    [rates(), emptied()].iter().try_for_each(|group| stage.clear(&group.home, &group.name))
}
