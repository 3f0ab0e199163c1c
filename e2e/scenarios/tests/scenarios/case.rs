//! What is legal at home, at its standby and at its holder: held as it runs at home, run as its
//! people want, and gone when its partner says so.

use anyhow::{Context, Result, ensure};
use regent_demo::federation::wait_for;
use regent_demo::group::Group;
use regent_scenarios::{LIMIT, Stage, group};

const POD: &str = r#"{terminationGracePeriodSeconds: 1,RESTART
      securityContext: {runAsNonRoot: true, runAsUser: 10001, fsGroup: 10001, seccompProfile: {type: RuntimeDefault}},
      containers: [{name: app, image: "registry.rig/shop:dev",
        env: [{name: MODE, value: trial}, {name: MODE, value: live}, {name: GROUP, value: ireland/case}, {name: SINK, value: "127.0.0.1:9"},
              {name: JOURNAL_DIR, value: /journal}, {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}},
              {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}, {name: POD_UID, valueFrom: {fieldRef: {fieldPath: metadata.uid}}}],
        readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1, timeoutSeconds: 5},
        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}},
        volumeMounts: [{name: journal, mountPath: /journal}]}],
      volumes: [{name: journal, emptyDir: {}}]}"#;
const NAMESPACE: &str = "{apiVersion: v1, kind: Namespace, metadata: {name: case, labels: {pod-security.kubernetes.io/enforce: restricted}}}";

fn the_case() -> Group {
    // Five pods: two of the ledger, the desk's, the tariff's and the vault's.
    Group { replicas: 5, ..group("case", &["france", "germany"], 8130) }
}

fn manifest() -> String {
    let text = include_str!("../../manifests/case.yaml");
    text.replace("${POD}", &POD.replace("RESTART", ""))
        .replace("${JOB}", &POD.replace("RESTART", " restartPolicy: Never,"))
}

fn get(stage: &Stage, site: &str, what: &str, path: &str) -> Result<String> {
    let path = format!("jsonpath={{{path}}}");
    stage.federation.kubectl(site, &["-n", "case", "get", what, "--ignore-not-found", "-o", &path], None)
}

fn is(stage: &Stage, site: &str, what: &str, path: &str, wanted: &str) -> Result<()> {
    let found = get(stage, site, what, path)?;
    ensure!(found == wanted, "{what} at {site}, {path}: {found:?}, should be {wanted:?}");
    Ok(())
}

/// Held in France as it runs in Ireland, and what will be missing is said.
pub fn held(stage: &Stage) -> Result<()> {
    let (federation, case) = (&stage.federation, the_case());
    federation.kubectl("ireland", &["apply", "-f", "-"], Some(NAMESPACE))?;
    let account = r#"{"imagePullSecrets":[{"name":"pull-from-home"}]}"#;
    wait_for("the namespace's own account", LIMIT, || {
        let patched =
            federation.kubectl("ireland", &["-n", "case", "patch", "serviceaccount", "default", "-p", account], None);
        Ok(patched.ok())
    })?;
    federation.kubectl("ireland", &["-n", "case", "create", "-f", "-"], Some(&manifest()))?;
    case.prepare_standbys(federation)?;
    let role = federation.plugin("ireland", &["home", "prepare", "--namespace", "case"])?;
    federation.kubectl("ireland", &["apply", "-f", "-"], Some(&role))?;
    federation.plugin("ireland", &["protect", "case", "--yes", "--wait", "180s"])?;
    for standby in ["france", "germany"] {
        wait_for(&format!("{standby} to hold the case ready"), LIMIT, || {
            let armed = stage.entry("ireland", &case, standby, "armedPods")?;
            Ok((stage.entry("ireland", &case, standby, "state")? == "Armed" && armed == "5").then_some(()))
        })?;
    }
    let pods = || get(stage, "france", "pods", ".items[*].metadata.uid");
    let held = pods()?;
    is(stage, "france", "deployment/desk", ".spec.template.spec.imagePullSecrets[*].name", "pull-from-home")?;
    is(stage, "france", "secret/pull-from-home", ".type", "kubernetes.io/dockerconfigjson")?;
    is(stage, "france", "serviceaccount/default", ".imagePullSecrets", "")?;
    is(stage, "france", "deployment/desk", ".spec.template.spec.containers[0].env[?(@.name==\"MODE\")].value", "live")?;
    is(stage, "france", "deployment/next-tariff", ".spec.paused", "true")?;
    is(stage, "france", "cronjob", ".items[*].metadata.name", "")?;
    is(stage, "france", "service/front", ".spec.type", "ClusterIP")?;
    is(stage, "france", "service/front", ".metadata.annotations.metallb\\.io/loadBalancerIPs", "")?;
    is(stage, "france", "service/both", ".spec.ports[*].protocol", "UDP TCP")?;
    let notices = stage.entry("ireland", &case, "france", "notices")?;
    ensure!(
        notices.contains("MODE") && notices.contains("metallb.io"),
        "what france does otherwise is not said: {notices}"
    );
    let said = |text: &str| stage.said("ireland", &case, text);
    said("CronJob case/interest")?;
    said("Deployment case/next-tariff is paused at home")?;
    said("reason: Incomplete")?;
    stage.keep("rest-of-the-release", "ireland", &["status", "case"])?;
    // Selectors overlap: a set that took others' pods for its own would renew them without end.
    let still = pods()?;
    ensure!(still == held, "held pods were deleted: {held} are {still}");
    let accepted = r#"{"spec":{"staysHome":["CronJob case/interest"]}}"#;
    federation.kubectl("ireland", &["patch", "failovergroup", "case", "--type=merge", "-p", accepted], None)?;
    wait_for("the group to be Ready", LIMIT, || {
        let path = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
        Ok((federation.kubectl("ireland", &["get", "failovergroup", "case", "-o", path], None)? == "True")
            .then_some(()))
    })
}

/// Who holds it is its master: what people change there stays, is shown, and goes home when
/// they say so; and a plan that leaves the holder out waits until the group is elsewhere.
pub fn run(stage: &Stage) -> Result<()> {
    let (federation, case) = (&stage.federation, the_case());
    federation.plugin("ireland", &["takeover", "case", "--to", "france", "--yes", "--wait", "90s"])?;
    ensure!(stage.entry("france", &case, "france", "state")? == "Holding", "complete, and not all pods are ready");
    is(stage, "france", "pods", ".items[?(@.metadata.labels.role==\"next\")].metadata.name", "")?;
    wait_for("roll-out settings to be home's again", LIMIT, || {
        let strategy = get(stage, "france", "deployment/tariff", ".spec.strategy.type")?;
        let balancer = get(stage, "france", "service/front", ".spec.type")?;
        Ok((strategy == "Recreate" && balancer == "LoadBalancer").then_some(()))
    })?;
    is(stage, "france", "service/front", ".spec.externalTrafficPolicy", "Local")?;

    federation.kubectl("france", &["-n", "case", "scale", "deployment/desk", "--replicas=2"], None)?;
    federation.kubectl("france", &["-n", "case", "set", "env", "deployment/ledger", "HOTFIX=1"], None)?;
    wait_for("home to see what was changed", LIMIT, || {
        let paths = stage.entry("ireland", &case, "france", "differences[*].path")?;
        let all = paths.contains("/spec/replicas") && paths.contains("/env/-");
        Ok(all.then_some(()))
    })?;
    stage.keep("holder-changed", "ireland", &["differences", "case"])?;
    // Of a tag: what Germany is to hold is the image that runs.
    let image = ["-n", "case", "set", "image", "deployment/desk", "app=registry.rig/shop:dev"];
    federation.kubectl("france", &image, None)?;
    wait_for("the fix to run", LIMIT, || {
        let image = get(stage, "france", "pods", ".items[*].spec.containers[0].image")?;
        let tagged = image.split(' ').filter(|image| *image == "registry.rig/shop:dev").count();
        Ok((tagged >= 2 && fixed(stage, "france")?).then_some(()))
    })?;
    // The other standby would start what runs: home's own revision would undo the fix.
    wait_for("germany to hold what was changed", LIMIT, || {
        let armed = stage.entry("germany", &case, "germany", "state")? == "Armed"
            && stage.entry("germany", &case, "germany", "nextRevision")?.is_empty();
        let notices = stage.entry("germany", &case, "germany", "notices[*]")?;
        let desks = get(stage, "germany", "deployment/desk", ".spec.replicas")?;
        let is_there = notices.contains("people changed at france") && desks == "2";
        Ok((armed && is_there && fixed(stage, "germany")?).then_some(()))
    })?;
    stage.keep("holder-changes-are-held", "germany", &["status", "case"])?;
    leave_the_holder_out(stage, &case)?;
    // A new leader looks at everything anew: what people changed stays all the same, and stays held.
    for site in ["france", "germany"] {
        federation.kill_in_pod(site, "regent-operator", "regent-operator")?;
    }
    federation.plugin("ireland", &["adopt", "case", "--yes"])?;
    is(stage, "ireland", "deployment/desk", ".spec.replicas", "2")?;
    is(stage, "france", "deployment/desk", ".spec.replicas", "2")?;
    ensure!(fixed(stage, "france")?, "the fix is gone at france");

    federation.plugin("france", &["takeover", "case", "--to", "germany", "--yes", "--wait", "90s"])?;
    ensure!(fixed(stage, "germany")?, "germany runs without the fix");
    wait_for("germany to say how it differs from home's revision", LIMIT, || {
        let paths = stage.entry("germany", &case, "germany", "differences[*].path")?;
        Ok((paths.contains("/spec/replicas") && paths.contains("/env/-")).then_some(()))
    })?;
    wait_for("the plan without france, and nothing of the group there", LIMIT, || {
        let left = get(
            stage,
            "france",
            "deployments,services,secrets,configmaps",
            ".items[?(@.metadata.labels.regent\\.dev/group)].metadata.name",
        )?;
        Ok(left.is_empty().then_some(()))
    })?;
    federation.plugin("germany", &["failback", "case", "--yes", "--wait", "90s"])?;
    wait_for("both desks at home", LIMIT, || {
        let ready = get(stage, "ireland", "deployment/desk", ".status.readyReplicas")?;
        Ok((ready == "2").then_some(()))
    })
}

/// Whether the ledger has the fix, and a pod of it that is there.
fn fixed(stage: &Stage, site: &str) -> Result<bool> {
    let env = ".spec.containers[0].env[?(@.name==\"HOTFIX\")].value";
    let copy = get(stage, site, "deployment/ledger", &format!(".spec.template{env}"))?;
    Ok(copy == "1" && get(stage, site, "pods", &format!(".items[*]{env}"))?.contains('1'))
}

/// Somebody at home signs plans without the site that holds the group: one that forbids its
/// country, and one that names it no more.
fn leave_the_holder_out(stage: &Stage, case: &Group) -> Result<()> {
    let federation = &stage.federation;
    let pods = || get(stage, "france", "pods", ".items[*].metadata.uid");
    let before = pods()?;
    for without in
        [r#"{"spec":{"countries":["IE","DE"]}}"#, r#"{"spec":{"countries":["IE","FR","DE"],"standbys":["germany"]}}"#]
    {
        federation.kubectl("ireland", &["patch", "failovergroup", "case", "--type=merge", "-p", without], None)?;
        stage.said("ireland", case, "HolderLeaves")?;
        stage.keep("holder-leaves-the-plan", "ireland", &["status", "case"])?;
        // Its pods were gone within 4 s when a plan took effect at once.
        std::thread::sleep(std::time::Duration::from_secs(8));
        let after = pods()?;
        let stays = before.split_whitespace().filter(|uid| after.contains(uid)).count();
        ensure!(stays >= 4, "pods of the holder were replaced under {without}: {before} are {after}");
        ensure!(stage.entry("france", case, "france", "state")? == "Holding", "france holds it no more");
    }
    Ok(())
}

/// The partner takes the group out of its cluster, and lets it in again.
pub fn left(stage: &Stage) -> Result<()> {
    let (federation, case) = (&stage.federation, the_case());
    wait_for("germany to hold the case ready", LIMIT, || {
        Ok((stage.entry("ireland", &case, "germany", "state")? == "Armed").then_some(()))
    })?;
    let printed = federation.plugin("germany", &["standby", "leave", "case", "--yes"]).context("leave")?;
    ensure!(printed.contains("Deployment"), "it does not say what goes: {printed}");
    stage.heard(&case, "germany", LIMIT, |state, _| state == "Left")?;
    stage.keep("standby-left", "ireland", &["status", "case"])?;
    let path = ".items[*].metadata.name";
    is(stage, "germany", "deployments,statefulsets,services,gatedpods", path, "")?;
    federation.plugin("germany", &["standby", "join", "case"])?;
    wait_for("germany to hold it again", LIMIT, || {
        Ok((stage.entry("ireland", &case, "germany", "state")? == "Armed").then_some(()))
    })
}
