//! Every scenario on one rig of real sites; see the crate's documentation.

mod case;
mod force;
mod release;
mod standbys;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use libtest_mimic::{Arguments, Failed, Trial};
use regent_demo::federation::{NAMESPACE, run, wait_for, workspace};
use regent_demo::group::{Group, Workload};
use regent_demo::scenario::{move_to, play};
use regent_demo::screen::Screen;
use regent_evidence::{Kind, Scenario};
use regent_rig::{Component, Where};
use regent_scenarios::{LIMIT, Stage, group, pass, ready_at};

/// What somebody at Germany says when Ireland is lost.
const APPROVAL: &str = "\
apiVersion: regent.dev/v1alpha1
kind: Takeover
metadata: {name: asked-approved}
spec: {group: ireland/asked, to: germany, type: Approval, approve: true, reason: Ireland is lost}
";

type Test = fn(&Stage) -> Result<()>;

fn main() {
    let mut arguments = Arguments::from_args();
    // One stage, one fault at a time. Programs of the stage live as long as the thread that
    // started them: with one thread the tests run in this one.
    arguments.test_threads = Some(1);
    if arguments.list {
        libtest_mimic::run(&arguments, trials(&Arc::default())).exit();
    }
    let stage = Arc::new(Mutex::new(None));
    match Stage::set() {
        Ok(set) => *stage.lock().unwrap_or_else(PoisonError::into_inner) = Some(set),
        Err(error) => {
            eprintln!("the stage can't be set: {error:#}");
            std::process::exit(1);
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials(&stage));
    let set = stage.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(Err(error)) = set.map(|s| s.federation.down()) {
        eprintln!("the stage can't be taken down: {error:#}");
        std::process::exit(1);
    }
    conclusion.exit();
}

fn trials(stage: &Arc<Mutex<Option<Stage>>>) -> Vec<Trial> {
    // In this order: what destroys more comes later.
    let tests: [(&str, Test); 21] = [
        ("the_chart_lints_and_an_api_server_accepts_all_of_it", chart),
        ("wrong_input_is_refused_with_object_field_and_remedy", wrong_input),
        ("groups_become_protected_and_armed_and_a_taken_name_is_said", protect),
        ("a_guard_without_its_journal_sends_what_runs_back_to_the_gates", journal_lost),
        ("a_killed_operator_replica_pauses_nothing", operator_killed),
        ("a_planned_move_and_back_wait_for_no_lease", planned),
        ("a_pod_that_is_deleted_by_force_and_lives_on_is_waited_for_by_a_move", deleted_by_force),
        ("a_short_cut_is_a_pause_and_nothing_else", blip),
        ("a_holder_that_reaches_a_minority_of_witnesses_is_replaced", minority),
        ("what_is_legal_at_home_is_held_as_it_runs_there_and_what_stays_is_said", case::held),
        ("people_at_the_holder_are_its_masters_and_a_plan_without_it_waits", case::run),
        ("a_partner_can_take_a_group_out_of_its_cluster_and_let_it_in_again", case::left),
        ("a_standby_says_beforehand_what_it_could_not_start_in_the_words_of_who_refuses", standbys::say),
        ("only_a_release_that_got_ready_is_held_and_an_emptied_home_empties_nobody", releases),
        ("a_claim_with_data_outlives_the_copy_that_is_made_anew", release::claims),
        ("the_next_in_rank_takes_what_the_best_could_not_start_and_what_was_ready_last_runs", next_in_rank),
        ("a_cut_moves_what_may_move_and_holds_what_may_not", cut),
        ("a_healed_home_stays_held_until_somebody_moves_the_group_back", heal),
        ("with_the_first_standby_down_the_next_takes_over", standby_down),
        ("a_stopped_api_server_at_home_pauses_nothing", api_server_killed),
        ("a_crashed_site_is_taken_over", crash),
    ];
    tests
        .into_iter()
        .map(|(name, test)| {
            let stage = Arc::clone(stage);
            Trial::test(name, move || {
                let guard = stage.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(stage) = guard.as_ref() else { return Err(Failed::from("there is no stage")) };
                let outcome = test(stage);
                // Whatever failed, the next test begins on a connected federation.
                let healed = stage.federation.rig.heal(None);
                outcome.map_err(|e| Failed::from(format!("{e:#}")))?;
                healed.map(drop).map_err(|e| Failed::from(e.to_string()))
            })
        })
        .collect()
}

fn main_group() -> Group {
    group("shop", &["france", "germany"], 8080)
}

/// At France a Deployment of that name belongs to somebody else.
fn taken_group() -> Group {
    group("taken", &["france", "germany"], 8081)
}

/// The only standby is no longer lawful.
fn nowhere_group() -> Group {
    group("nowhere", &["france"], 8082)
}

/// A StatefulSet that nobody takes over before somebody at the standby approves.
fn asked_group() -> Group {
    Group { workload: Workload::StatefulSet, ..group("asked", &["germany"], 8083) }
}

/// At a witness: its API server knows the CRDs, and nothing of the chart is installed there.
fn chart(stage: &Stage) -> Result<()> {
    let (federation, site) = (&stage.federation, "luxembourg");
    let (chart, values) = (workspace().join("charts/regent"), federation.keys("france").join("values.yaml"));
    let values = values.display().to_string();
    let helm = |verb: &[&str]| -> Result<String> {
        let mut command = federation.rig.command(&Where::Site(site.into()), "helm")?;
        command.args(verb).arg(&chart).args(["--namespace", NAMESPACE, "--values", &values]);
        command.args(["--set", "image.repository=registry.rig/regent,image.tag=dev"]);
        run(command, &[], None)
    };
    let said = helm(&["lint", "--strict"])?;
    ensure!(said.contains("0 chart(s) failed"), "{said}");
    let rendered = helm(&["template", "regent"])?;
    let answers = federation.kubectl(site, &["apply", "--dry-run=server", "-f", "-"], Some(&rendered))?;
    ensure!(answers.contains("daemonset.apps/regent-agent created"), "{answers}");
    Ok(())
}

fn wrong_input(stage: &Stage) -> Result<()> {
    let shop = main_group();
    let manifest = shop.manifest(&stage.federation);
    let refused = |what: &str, edit: &dyn Fn(&str) -> String, says: &[&str]| -> Result<()> {
        let group = manifest.split("---\n").last().unwrap_or_default();
        let answer = stage.federation.kubectl("ireland", &["apply", "--dry-run=server", "-f", "-"], Some(&edit(group)));
        let Err(error) = answer else { bail!("{what} was accepted") };
        let text = format!("{error:#}");
        ensure!(says.iter().all(|s| text.contains(s)), "{what}: the message lacks one of {says:?}: {text}");
        Ok(())
    };
    refused("standby equal to home", &|g| g.replace("[france, germany]", "[ireland]"), &["standbys", "home"])?;
    refused("an impossible takeoverAfter", &|g| g.replace("takeoverAfter: ", "takeoverAfter: -"), &["takeoverAfter"])?;
    refused("an impossible country", &|g| g.replace("  tier:", "  countries: [france]\n  tier:"), &["countries", "FR"])
}

fn protect(stage: &Stage) -> Result<()> {
    let federation = &stage.federation;
    let (shop, taken, nowhere, asked) = (main_group(), taken_group(), nowhere_group(), asked_group());
    taken.prepare_standbys(federation)?;
    let foreign = taken.manifest(federation);
    let deployment = foreign.split("---\n").find(|d| d.contains("kind: Deployment")).unwrap_or_default();
    let deployment = deployment.replace("replicas: 2", "replicas: 0");
    federation.kubectl("france", &["apply", "-f", "-"], Some(&deployment))?;
    for group in [&shop, &taken, &nowhere, &asked] {
        group.apply(federation)?;
    }
    let approval = "{\"spec\":{\"trigger\":\"Approval\"}}";
    federation.kubectl("ireland", &["patch", "failovergroup", "asked", "--type=merge", "-p", approval], None)?;
    for group in [&shop, &taken, &nowhere, &asked] {
        federation.plugin("ireland", &["protect", &group.name, "--yes", "--wait", "180s"])?;
    }
    stage.settled(&shop)?;
    stage.settled(&nowhere)?;
    stage.settled(&asked)?;
    stage.said("ireland", &taken, "NameTaken")?;
    let lawful = "{\"spec\":{\"countries\":[\"IE\"]}}";
    federation.kubectl("ireland", &["patch", "failovergroup", "nowhere", "--type=merge", "-p", lawful], None)?;
    stage.said("ireland", &nowhere, "france is in FR")
}

/// What a guard can't know until when it may run is killed, and starts again by a certificate:
/// agent and hubs tell the guard anew what it must know.
fn journal_lost(stage: &Stage) -> Result<()> {
    let (federation, shop) = (&stage.federation, main_group());
    let path = "jsonpath={.items[0].metadata.name} {.items[0].spec.nodeName}";
    let first = ["-n", NAMESPACE, "get", "pods", "-l", "app.kubernetes.io/component=agent", "-o", path];
    let found = federation.kubectl("ireland", &first, None)?;
    let Some((agent, node)) = found.split_once(' ') else { bail!("no agent at ireland: {found:?}") };
    let on_node = format!("spec.nodeName={node}");
    let path = "jsonpath={range .items[*]}{.metadata.name} {.status.containerStatuses[0].restartCount} \
                {.status.containerStatuses[0].ready}{'\\n'}{end}";
    let pods = || -> Result<BTreeMap<String, (u32, bool)>> {
        let args = ["-n", &shop.name, "get", "pods", "--field-selector", &on_node, "-o", path];
        let text = federation.kubectl("ireland", &args, None)?;
        let pod = |line: &str| {
            let mut words = line.split(' ');
            let (name, restarts) = (words.next()?.to_owned(), words.next()?.parse().ok()?);
            Some((name, (restarts, words.next() == Some("true"))))
        };
        Ok(text.lines().filter_map(pod).collect())
    };
    let before = pods()?;
    ensure!(!before.is_empty(), "no pod of {} runs on {node}", shop.key());
    federation.kill_in_pod("ireland", agent, "regent-guard")?;
    let place = Where::Node("ireland".into(), node.into());
    federation.rig.exec(&place, &["rm", "/var/lib/regent/guard/journal.json"])?;
    wait_for(&format!("pods on {node} to be killed, and started again"), LIMIT, || {
        let now = pods()?;
        let again = |(name, (restarts, _)): (&String, &(u32, bool))| {
            now.get(name).is_some_and(|(count, ready)| count > restarts && *ready)
        };
        Ok((now.len() == before.len() && before.iter().all(again)).then_some(()))
    })
}

fn operator_killed(stage: &Stage) -> Result<()> {
    let shop = main_group();
    let mut recording = stage.record("operator-killed", &shop, Scenario::Steady)?;
    recording.go_on(Duration::from_secs(2))?;
    let at = stage.federation.kill_in_pod("ireland", "regent-operator", "regent-operator")?;
    recording.fault("ireland", Kind::Kill, at);
    recording.go_on(Duration::from_secs(12))?;
    pass(&recording.finish()?.0, &stage.dir("operator-killed", &shop))
}

fn api_server_killed(stage: &Stage) -> Result<()> {
    let shop = main_group();
    let mut recording = stage.record("api-server-killed", &shop, Scenario::Steady)?;
    recording.go_on(Duration::from_secs(2))?;
    let at = stage.federation.rig.kill("ireland", &Component::Control("apiserver"))?;
    recording.fault("ireland", Kind::Kill, at);
    recording.go_on(Duration::from_secs(20))?;
    stage.federation.rig.start("ireland", &Component::Control("apiserver"))?;
    // Long enough for kubelets to renew their leases: the audit log must reach past the fault.
    recording.go_on(Duration::from_secs(12))?;
    let (report, _) = recording.finish()?;
    pass(&report, &stage.dir("api-server-killed", &shop))
}

fn planned(stage: &Stage) -> Result<()> {
    let shop = main_group();
    let dir = stage.dir("planned", &shop);
    let (report, _) = play(&stage.federation, &shop, Scenario::Failback, &dir, Screen::silent())?;
    pass(&report, &dir)?;
    stage.settled(&shop)
}

fn deleted_by_force(stage: &Stage) -> Result<()> {
    force::deleted(stage, &main_group())
}

fn blip(stage: &Stage) -> Result<()> {
    let shop = main_group();
    let dir = stage.dir("blip", &shop);
    let (report, _) = play(&stage.federation, &shop, Scenario::Blip, &dir, Screen::silent())?;
    pass(&report, &dir)
}

/// Home loses its quorum for every group: all that may move do.
fn minority(stage: &Stage) -> Result<()> {
    let (shop, taken) = (main_group(), taken_group());
    let mut first = stage.record("minority", &shop, Scenario::Cut)?;
    let mut second = stage.record("minority", &taken, Scenario::Cut)?;
    first.go_on(Duration::from_secs(2))?;
    let from = ["germany".to_owned(), "luxembourg".to_owned()];
    let at = stage.federation.rig.cut("ireland", &from, false)?;
    first.fault("ireland", Kind::Cut, at);
    second.fault("ireland", Kind::Cut, at);
    first.wait("France to take the shop over", LIMIT, at, ready_at("france"))?;
    second.wait("Germany to take over what France can't", LIMIT, at, ready_at("germany"))?;
    second.go_on(Duration::from_secs(5))?;
    pass(&first.finish()?.0, &stage.dir("minority", &shop))?;
    pass(&second.finish()?.0, &stage.dir("minority", &taken))?;
    stage.federation.rig.heal(None)?;
    stage.federation.plugin("germany", &["failback", &taken.name, "--yes", "--wait", "90s"])?;
    stage.bring_home(&shop, "france")
}

fn releases(stage: &Stage) -> Result<()> {
    release::releases(stage, &asked_group())
}

/// Germany, at home of the groups of two tests before, is cut off.
fn next_in_rank(stage: &Stage) -> Result<()> {
    let at = stage.cut(&["germany"], &mut [])?;
    standbys::take(stage, at)?;
    release::taken(stage)?;
    stage.federation.rig.heal(None)?;
    standbys::clear(stage)?;
    release::clear(stage)
}

fn cut(stage: &Stage) -> Result<()> {
    let (shop, taken, nowhere, asked) = (main_group(), taken_group(), nowhere_group(), asked_group());
    // The minority of witnesses held it too long to be thawed.
    let rollout = ["-n", &asked.name, "rollout", "status", "statefulset/shop", "--timeout=90s"];
    stage.federation.kubectl("ireland", &rollout, None)?;
    let mut first = stage.record("cut", &shop, Scenario::Cut)?;
    let mut second = stage.record("cut", &taken, Scenario::Cut)?;
    let mut third = stage.record("cut", &nowhere, Scenario::Held)?;
    let mut fourth = stage.record("cut", &asked, Scenario::Cut)?;
    first.go_on(Duration::from_secs(2))?;
    let at = stage.cut(&["ireland"], &mut [&mut first, &mut second, &mut third, &mut fourth])?;
    first.wait("France to take the shop over", LIMIT, at, ready_at("france"))?;
    second.wait("Germany to take over what France can't", LIMIT, at, ready_at("germany"))?;
    fourth.go_on(Duration::from_secs(5))?;
    ensure!(fourth.last(at, &Kind::Certificate) == at, "{} moved before anybody approved", asked.key());
    stage.federation.kubectl("germany", &["create", "-f", "-"], Some(APPROVAL))?;
    fourth.wait("Germany to take over as approved", LIMIT, at, ready_at("germany"))?;
    fourth.go_on(Duration::from_secs(5))?;
    pass(&first.finish()?.0, &stage.dir("cut", &shop))?;
    pass(&second.finish()?.0, &stage.dir("cut", &taken))?;
    pass(&third.finish()?.0, &stage.dir("cut", &nowhere))?;
    pass(&fourth.finish()?.0, &stage.dir("cut", &asked))
}

/// Continues from [`cut`]: France holds the shop, and Ireland is connected again.
fn heal(stage: &Stage) -> Result<()> {
    let shop = main_group();
    let restarts = |site: &str| -> Result<String> {
        let path = "jsonpath={.items[*].status.containerStatuses[*].started}";
        stage.federation.kubectl(site, &["-n", "shop", "get", "pods", "-o", path], None)
    };
    wait_for("Ireland's pods to stand at their gates", LIMIT, || {
        let started = restarts("ireland")?;
        Ok((!started.is_empty() && !started.contains("true")).then_some(()))
    })?;
    let mut recording = stage.record("heal", &shop, Scenario::Planned)?;
    recording.go_on(Duration::from_secs(5))?;
    move_to(&stage.federation, &shop, &mut recording, "france", "ireland", Kind::Takeover)?;
    recording.go_on(Duration::from_secs(5))?;
    pass(&recording.finish()?.0, &stage.dir("heal", &shop))?;
    stage.settled(&shop)
}

fn standby_down(stage: &Stage) -> Result<()> {
    let shop = main_group();
    let mut recording = stage.record("standby-down", &shop, Scenario::Cut)?;
    recording.go_on(Duration::from_secs(2))?;
    let at = stage.cut(&["france", "ireland"], &mut [&mut recording])?;
    recording.wait("Germany to take over", LIMIT, at, ready_at("germany"))?;
    recording.go_on(Duration::from_secs(5))?;
    pass(&recording.finish()?.0, &stage.dir("standby-down", &shop))?;
    stage.federation.rig.heal(None)?;
    stage.bring_home(&shop, "germany")
}

fn crash(stage: &Stage) -> Result<()> {
    let shop = main_group();
    let dir = stage.dir("crash", &shop);
    let (report, _) = play(&stage.federation, &shop, Scenario::Crash, &dir, Screen::silent())?;
    pass(&report, &dir)
}
