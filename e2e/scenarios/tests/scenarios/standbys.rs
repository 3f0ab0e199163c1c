//! What a standby says that it could not start, and who goes first then.
//!
//! Each group is at home in Germany, ready in Ireland and, for a reason of its own, not in
//! France, which ranks before it. One group ranks Ireland first: the measure of how late the
//! others come. Home is Germany, so that cutting it off moves nothing of the other tests'.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use regent_demo::federation::{run, wait_for};
use regent_demo::group::{Group, Workload};
use regent_demo::tail::event_logs;
use regent_evidence::Kind;
use regent_evidence::merge::events_of_logs;
use regent_rig::ImageFile;
use regent_scenarios::{LIMIT, Stage, group};

/// Home of these groups.
const HOME: &str = "germany";
/// The standby that ranks second for all but one of them.
const NEXT: &str = "ireland";
/// Within this time a standby says what is in the way (the operators look every 2 s at most).
const SAID: Duration = Duration::from_secs(10);
/// The same, once a namespace is gone.
const GONE: Duration = Duration::from_secs(5);

/// A way in which France is not ready, and words of who refuses there.
struct Way {
    name: &'static str,
    says: &'static [&'static str],
}

const WAYS: [Way; 6] = [
    Way { name: "quota", says: &["exceeded quota", "pods=1"] },
    Way { name: "class", says: &["no PriorityClass with name home-payments was found"] },
    Way { name: "security", says: &["violates PodSecurity", "restricted"] },
    Way { name: "image", says: &["registry.rig/absent/schema", "container schema", "not found"] },
    Way { name: "secret", says: &["Secret secret/shop exists already and is not Regent's"] },
    Way { name: "nons", says: &["namespace nons is missing or closed to Regent"] },
];

const QUOTA: &str =
    "{apiVersion: v1, kind: ResourceQuota, metadata: {name: none, namespace: quota}, spec: {hard: {pods: \"0\"}}}";
const CLASS: &str =
    "{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {name: home-payments}, value: 1000}";
const ELSEWHERE: &str = r#"{"spec":{"registries":[{"from":"registry.rig/only","to":"registry.rig/absent"}]}}"#;

/// The group of a way: one pod, a port of its own.
fn of(name: &str) -> Group {
    let place = names().position(|n| n == name).and_then(|n| u16::try_from(n).ok()).unwrap_or_default();
    let standbys: &[&str] = if name == "measure" { &[NEXT, "france"] } else { &["france", NEXT] };
    // A set has no condition that would say why its pods are refused.
    let workload = if name == "class" { Workload::StatefulSet } else { Workload::Deployment };
    Group { replicas: 1, home: HOME.into(), workload, ..group(name, standbys, 8100 + place) }
}

fn names() -> impl Iterator<Item = &'static str> {
    WAYS.iter().map(|w| w.name).chain(["measure", "lost"])
}

fn groups() -> impl Iterator<Item = Group> {
    names().map(of)
}

fn manifest(stage: &Stage, group: &Group) -> String {
    let text = group.manifest(&stage.federation);
    match group.name.as_str() {
        "class" => {
            text.replace("      serviceAccountName", "      priorityClassName: home-payments\n      serviceAccountName")
        }
        // Legal where baseline is enforced, and not where restricted is.
        "security" => text
            .replace("enforce: restricted", "enforce: baseline")
            .replace("          capabilities: {drop: [ALL]}\n", ""),
        // Not the image that the pod begins with: one that is needed only behind the gate.
        "image" => text.replace(
            "      containers:\n",
            "      initContainers:\n      - name: schema\n        image: registry.rig/only/schema:dev\n        \
             command: [/regent-gate, try]\n        securityContext: {allowPrivilegeEscalation: false, \
             capabilities: {drop: [ALL]}}\n      containers:\n",
        ),
        _ => text,
    }
}

/// Makes everything, and hears what each standby says of it.
pub fn say(stage: &Stage) -> Result<()> {
    let federation = &stage.federation;
    let schema = ImageFile { source: federation.program("regent-gate"), target: "/regent-gate".into() };
    federation.rig.image("only/schema", &[schema], &["/regent-gate".into()])?;
    federation.kubectl("france", &["patch", "site", "france", "--type=merge", "-p", ELSEWHERE], None)?;
    for site in [HOME, NEXT] {
        federation.kubectl(site, &["apply", "-f", "-"], Some(CLASS))?;
    }
    for group in groups() {
        prepare(stage, &group)?;
        federation.kubectl(HOME, &["apply", "-f", "-"], Some(&manifest(stage, &group)))?;
        let role = federation.plugin(HOME, &["home", "prepare", "--namespace", &group.name])?;
        federation.kubectl(HOME, &["apply", "-f", "-"], Some(&role))?;
    }
    for group in groups() {
        federation.plugin(HOME, &["protect", &group.name, "--yes", "--wait", "180s"])?;
    }
    for group in groups() {
        wait_for(&format!("{NEXT} to hold {} ready", group.key()), LIMIT, || {
            Ok((stage.entry(HOME, &group, NEXT, "state")? == "Armed").then_some(()))
        })?;
    }
    for way in &WAYS {
        let heard = stage.heard(&of(way.name), "france", SAID, |state, message| {
            state != "Armed" && way.says.iter().all(|words| message.contains(words))
        });
        heard.with_context(|| format!("what france says of {}", way.name))?;
        // Without a bundle of it there is nothing that could be refused.
        if way.name != "nons" {
            let after = said_after(stage, &of(way.name))?;
            println!("{{\"group\":\"{}\",\"said_after_s\":{after}}}", way.name);
            ensure!(after <= 10, "{}: france said so {after} s after it had the bundle", way.name);
        }
    }
    stage.keep("standbys-not-ready", HOME, &["status"])?;
    lose_the_namespace(stage)
}

/// Seconds from the arrival of the bundle in France until its word, as it is now, reached home.
fn said_after(stage: &Stage, group: &Group) -> Result<i64> {
    let ask = |site: &str, args: &[&str]| stage.federation.kubectl(site, args, None);
    let label = format!("regent.dev/group={HOME}.{}", group.name);
    let path = "jsonpath={range .items[*]}{.metadata.creationTimestamp}{'\\n'}{end}";
    let came = ask("france", &["-n", "regent-system", "get", "secrets", "-l", &label, "-o", path])?;
    // Times in one form and zone are ordered as their texts are.
    let came = came.lines().max().unwrap_or_default();
    let path = "jsonpath={.metadata.managedFields[?(@.manager==\"regent-standby-france\")].time}";
    let said = ask(HOME, &["get", "failovergroup", &group.name, "--show-managed-fields", "-o", path])?;
    let seconds = |at: &str| -> Result<i64> {
        let mut date = std::process::Command::new("date");
        date.args(["-d", at, "+%s"]);
        Ok(run(date, &[], None)?.trim().parse()?)
    };
    Ok(seconds(&said)? - seconds(came)?)
}

fn prepare(stage: &Stage, group: &Group) -> Result<()> {
    let federation = &stage.federation;
    for standby in group.standbys.iter().filter(|s| !(group.name == "nons" && *s == "france")) {
        let level = if group.name == "security" && standby == NEXT { "baseline" } else { "restricted" };
        let key = group.key();
        let args = ["standby", "prepare", "--namespace", &group.name, "--group", &key, "--pod-security", level];
        let printed = federation.plugin(standby, &args)?;
        federation.kubectl(standby, &["apply", "-f", "-"], Some(&printed))?;
    }
    match group.name.as_str() {
        "quota" => federation.kubectl("france", &["apply", "-f", "-"], Some(QUOTA)).map(drop),
        "secret" => {
            let args = ["-n", "secret", "create", "secret", "generic", "shop", "--from-literal=token=the-partners-own"];
            federation.kubectl("france", &args, None).map(drop)
        }
        _ => Ok(()),
    }
}

/// The partner deletes the namespace of a group that it held ready.
fn lose_the_namespace(stage: &Stage) -> Result<()> {
    let lost = of("lost");
    wait_for("france to hold the group ready", LIMIT, || {
        Ok((stage.entry(HOME, &lost, "france", "state")? == "Armed").then_some(()))
    })?;
    stage.federation.kubectl("france", &["delete", "namespace", "lost", "--wait=false"], None)?;
    stage.heard(&lost, "france", GONE, |state, message| state != "Armed" && message.contains("namespace lost"))?;
    stage.keep("standby-lost-its-namespace", HOME, &["status", "lost"])
}

/// Germany is cut off: Ireland has every group that France could not start, and not late.
pub fn take(stage: &Stage, cut_ns: u64) -> Result<()> {
    for group in groups() {
        wait_for(&format!("{NEXT} to run {}", group.key()), LIMIT, || {
            Ok((stage.entry(NEXT, &group, NEXT, "state")? == "Holding").then_some(()))
        })?;
    }
    stage.keep("standbys-took-over", NEXT, &["status"])?;
    let events = events_of_logs(&event_logs(&stage.federation)?)?.events;
    let mut first: BTreeMap<String, u64> = BTreeMap::new();
    let taken = events.iter().filter(|e| e.event == Kind::Certificate && e.site == NEXT && e.boot_ns > cut_ns);
    for (event, group) in taken.filter_map(|e| Some((e, e.group.clone()?))) {
        let at = first.entry(group).or_insert(u64::MAX);
        *at = (*at).min(event.boot_ns);
    }
    let of = |name: &str| {
        let at = first.get(&format!("{HOME}/{name}")).copied();
        at.with_context(|| format!("{NEXT} has a certificate for {HOME}/{name}"))
    };
    let measure = of("measure")?;
    for name in names().filter(|n| *n != "measure") {
        let late_ms = (of(name)? as f64 - measure as f64) / 1e6;
        println!("{{\"group\":\"{name}\",\"later_than_first_ms\":{late_ms:.1}}}");
        // Counted in one round of requests, as all of them are: no noise of the machine's is in it.
        ensure!(late_ms <= 100.0, "{name} came {late_ms:.0} ms after the group that {NEXT} is first for");
    }
    Ok(())
}

/// Takes the groups away: the tests that follow have the machine for themselves.
pub fn clear(stage: &Stage) -> Result<()> {
    names().try_for_each(|name| stage.clear(HOME, name))?;
    stage.cleared(&names().collect::<Vec<_>>())
}
