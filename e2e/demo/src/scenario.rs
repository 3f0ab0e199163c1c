//! The scenarios of the demo: what is done to the federation, and what it is waited for.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use regent_evidence::{Epoch, Event, Evidence, Kind, Report, Scenario, boot_ns};
use regent_rig::Component;

use crate::federation::Federation;
use crate::group::Group;
use crate::record::Recording;
use crate::screen::Screen;

/// How long is recorded before the fault.
const BEFORE: Duration = Duration::from_secs(2);
/// How long is recorded after the last `all_ready` or `thawed`.
const AFTER: Duration = Duration::from_secs(5);
/// What takes longer than this will not happen any more.
const LIMIT: Duration = Duration::from_secs(90);

/// Runs one scenario on one group and judges it.
pub fn play(
    federation: &Federation,
    group: &Group,
    scenario: Scenario,
    dir: &Path,
    screen: Screen,
) -> Result<(Report, Evidence)> {
    let mut recording = Recording::start(federation, group, scenario, dir, screen)?;
    recording.go_on(BEFORE)?;
    match scenario {
        Scenario::Cut => cut(federation, group, &mut recording)?,
        Scenario::Blip => blip(federation, group, &mut recording)?,
        Scenario::Crash => crash(federation, group, &mut recording)?,
        Scenario::Planned => {
            move_to(federation, group, &mut recording, &group.home, &group.standbys[0], Kind::Takeover)?;
        }
        Scenario::Failback => {
            move_to(federation, group, &mut recording, &group.home, &group.standbys[0], Kind::Takeover)?;
            recording.go_on(Duration::from_secs(3))?;
            move_to(federation, group, &mut recording, &group.standbys[0], &group.home, Kind::Failback)?;
        }
        Scenario::Steady | Scenario::Held => bail!("scenario {scenario} belongs to the tests, not to the demo"),
    }
    recording.go_on(AFTER)?;
    recording.finish()
}

fn cut(federation: &Federation, group: &Group, recording: &mut Recording) -> Result<()> {
    let at = federation.rig.cut(&group.home, &[], false)?;
    recording.fault(&group.home, Kind::Cut, at);
    taken_over(group, recording, at)
}

fn crash(federation: &Federation, group: &Group, recording: &mut Recording) -> Result<()> {
    let at = federation.rig.kill(&group.home, &Component::All)?;
    recording.fault(&group.home, Kind::Crash, at);
    taken_over(group, recording, at)
}

fn taken_over(group: &Group, recording: &mut Recording, since_ns: u64) -> Result<()> {
    recording.wait("a takeover with all pods ready", LIMIT, since_ns, |events| {
        events.iter().any(|e| e.event == Kind::AllReady && e.site != group.home)
    })
}

fn blip(federation: &Federation, group: &Group, recording: &mut Recording) -> Result<()> {
    let nodes = federation.nodes_with_pods(group)?;
    let at = federation.rig.cut(&group.home, &[], false)?;
    recording.fault(&group.home, Kind::Cut, at);
    recording.wait("the end of the lease on every node", LIMIT, at, |events| {
        nodes.iter().all(|node| of_node(events, node, &Kind::LeaseEnd))
    })?;
    let last = recording.last(at, &Kind::LeaseEnd);
    let until_heal = (last + 1_000_000_000).saturating_sub(boot_ns());
    recording.go_on(Duration::from_nanos(until_heal))?;
    let healed = federation.rig.heal(Some(&group.home))?;
    recording.fault(&group.home, Kind::Heal, healed);
    recording.wait("the thaw on every node", LIMIT, healed, |events| {
        nodes.iter().all(|node| of_node(events, node, &Kind::Thawed))
    })
}

fn of_node(events: &[&Event], node: &str, kind: &Kind) -> bool {
    events.iter().any(|e| e.event == *kind && e.node.as_deref() == Some(node))
}

/// A planned move, asked for with the plugin at the holder's site.
pub fn move_to(
    federation: &Federation,
    group: &Group,
    recording: &mut Recording,
    from: &str,
    to: &str,
    kind: Kind,
) -> Result<()> {
    let before = recording.epoch();
    let at = boot_ns();
    recording.fault(from, kind.clone(), at);
    match kind {
        Kind::Failback => federation.plugin(from, &["failback", &group.name, "--yes"])?,
        _ => federation.plugin(from, &["takeover", &group.name, "--to", to, "--yes"])?,
    };
    recording.wait(&format!("the move to {to} with all pods ready"), LIMIT, at, |events| {
        let newer = |e: &&&Event| e.epoch > before || (e.epoch.is_none() && before.is_none());
        events.iter().filter(newer).any(|e| e.event == Kind::AllReady && e.site == to)
    })
}

/// The highest epoch that any event names.
pub fn highest(events: &[Event], group: &str) -> Option<Epoch> {
    events.iter().filter(|e| e.group.as_deref() == Some(group)).filter_map(|e| e.epoch).max()
}
