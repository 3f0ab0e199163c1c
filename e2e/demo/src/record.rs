//! Records a failover from outside: journals, sinks, a client, audit logs and events.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use regent_evidence::clock::Clock;
use regent_evidence::merge::{AuditFilter, add_eligible, copy_audit, events_of_logs, write_events};
use regent_evidence::{Actor, Epoch, Event, Evidence, Kind, Report, Scenario, boot_ns, judge};
use regent_rig::Where;

use crate::federation::Federation;
use crate::group::Group;
use crate::screen::Screen;
use crate::tail::{Tail, event_logs};

/// A recording of one group under one scenario.
pub struct Recording<'a> {
    federation: &'a Federation,
    group: Group,
    scenario: Scenario,
    dir: PathBuf,
    programs: Vec<Child>,
    faults: Vec<Event>,
    seen: Vec<Event>,
    tail: Tail,
    screen: Screen,
    began_ns: u64,
}

impl<'a> Recording<'a> {
    /// Starts the receivers and the client.
    pub fn start(
        federation: &'a Federation,
        group: &Group,
        scenario: Scenario,
        dir: &Path,
        screen: Screen,
    ) -> Result<Self> {
        if dir.exists() {
            fs::remove_dir_all(dir).with_context(|| format!("remove the old recording {}", dir.display()))?;
        }
        for folder in ["journal", "sink", "audit"] {
            fs::create_dir_all(dir.join(folder))?;
        }
        let mut this = Self {
            federation,
            group: group.clone(),
            scenario,
            dir: dir.to_owned(),
            programs: Vec::new(),
            faults: vec![Event::now(&group.home, Actor::Demo, Kind::Other("recording".into())).with_realtime()],
            seen: Vec::new(),
            tail: Tail::default(),
            screen,
            began_ns: boot_ns(),
        };
        this.start_client()?;
        // What was said before belongs to the record, not to the screen.
        this.seen = this.tail.news(federation)?;
        Ok(this)
    }

    fn start_client(&mut self) -> Result<()> {
        // However this program ends, the kernel ends the client with it. It does so when the
        // thread that started it ends: record in a thread that outlives the recording.
        let mut client = self.federation.rig.command(&Where::Client, "setpriv")?;
        client
            .args(["--pdeathsig", "KILL", "--"])
            .arg(self.federation.program("client"))
            .arg("--out")
            .arg(self.dir.join("client.jsonl"));
        for site in self.federation.rig.sites().iter().filter(|s| s.site.is_full()) {
            client.args(["--target", &format!("{}={}:{}", site.site.name, site.wan_ip(), self.group.port)]);
        }
        client.stdin(Stdio::null());
        self.programs.push(client.spawn().context("start the client")?);
        Ok(())
    }

    /// Notes a fault, or what heals it.
    pub fn fault(&mut self, site: &str, kind: Kind, at_ns: u64) {
        let mut event = Event::now(site, Actor::Demo, kind).with_realtime();
        let since = event.boot_ns.saturating_sub(at_ns);
        if let Some(real) = event.realtime_ns() {
            event.detail.insert("realtime_ns".into(), real.saturating_sub(since).into());
        }
        event.boot_ns = at_ns;
        self.screen.show(&event);
        self.faults.push(event);
    }

    /// Waits until the events since `since_ns` satisfy `holds`, showing them as they come.
    pub fn wait(
        &mut self,
        what: &str,
        limit: Duration,
        since_ns: u64,
        holds: impl Fn(&[&Event]) -> bool,
    ) -> Result<()> {
        let begun = Instant::now();
        let key = self.group.key();
        loop {
            for event in self.tail.news(self.federation)? {
                if event.group.as_deref() == Some(key.as_str()) {
                    self.screen.show(&event);
                }
                self.seen.push(event);
            }
            let ours = |e: &&Event| e.boot_ns >= since_ns && e.group.as_deref() == Some(key.as_str());
            let since: Vec<&Event> = self.seen.iter().filter(ours).collect();
            if holds(&since) {
                return Ok(());
            }
            if begun.elapsed() > limit {
                bail!("{what} did not happen within {limit:?}; the recording so far is in {}", self.dir.display());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// When the last event of a kind was, since a moment; that moment if there was none.
    pub fn last(&self, since_ns: u64, kind: &Kind) -> u64 {
        let key = self.group.key();
        let ours = |e: &&Event| e.event == *kind && e.group.as_deref() == Some(key.as_str()) && e.boot_ns >= since_ns;
        self.seen.iter().filter(ours).map(|e| e.boot_ns).max().unwrap_or(since_ns)
    }

    /// The group's highest epoch so far.
    pub fn epoch(&self) -> Option<Epoch> {
        crate::scenario::highest(&self.seen, &self.group.key())
    }

    /// Records on for a while: what must *not* happen needs time to happen in.
    pub fn go_on(&mut self, time: Duration) -> Result<()> {
        let begun = Instant::now();
        self.wait("the end of the recording", time + Duration::from_secs(5), u64::MAX, |_| begun.elapsed() >= time)
    }

    /// Stops the programs, gathers everything and judges it.
    pub fn finish(mut self) -> Result<(Report, Evidence)> {
        for program in &mut self.programs {
            // The client writes each line at once: nothing is lost by a kill.
            let _ = program.kill();
            let _ = program.wait();
        }
        let key = self.group.key();
        let mut events = events_of_logs(&event_logs(self.federation)?)?.events;
        if self.scenario == Scenario::Crash {
            events.extend(self.lease_ends_on_disk()?);
        }
        events.extend(self.faults.clone());
        events.retain(|e| e.group.as_deref().is_none_or(|g| g == key));
        add_eligible(&mut events, self.federation.quorum());
        write_events(&self.dir, &events)?;
        let since = Clock::new(&events).map(|clock| (clock, self.began_ns));
        let filter = AuditFilter { since, namespaces: vec![self.group.name.clone()] };
        for site in self.federation.rig.sites() {
            copy_audit(&self.dir, &site.site.name, &[site.audit_log()], &filter)?;
        }
        self.copy_journals()?;
        for site in self.federation.full_sites() {
            let to = self.dir.join("sink").join(format!("{site}.jsonl"));
            copy_lines(&self.federation.sink_file(&site), &to, &key, self.began_ns)?;
        }
        let evidence = Evidence::load(&self.dir)?;
        let report = judge(&evidence, Some(self.scenario), &[key]);
        report.write(&self.dir)?;
        Ok((report, evidence))
    }

    /// After a crash no guard is left to say when its lease ended: its journal on disk does.
    fn lease_ends_on_disk(&self) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        for node in self.federation.rig.site(&self.group.home)?.nodes() {
            let path = node.outside("/var/lib/regent/guard").join(regent_guard::journal::FILE);
            for end in regent_guard::journal::lease_ends(&path)? {
                let mut event = Event::now(end.site.as_str(), Actor::Guard, Kind::LeaseEnd);
                event.boot_ns = end.boot_ns;
                event.group = Some(end.group.to_string());
                event.epoch = Some(end.epoch.to_string().parse()?);
                event.node = Some(end.node.to_string());
                event.detail.insert("pods".into(), end.pods.into());
                event.detail.insert("source".into(), "journal on disk".into());
                events.push(event);
            }
        }
        Ok(events)
    }

    /// The pods' journals are files of their emptyDirs, on their nodes' disks.
    fn copy_journals(&self) -> Result<()> {
        let key = self.group.key();
        // A line that arrived as the recording began was written a little before.
        let from_ns = self.began_ns.saturating_sub(500_000_000);
        for site in self.federation.rig.sites() {
            for node in site.nodes() {
                let pods = node.outside("/var/lib/kubelet").join("pods");
                for pod in fs::read_dir(&pods).into_iter().flatten().flatten() {
                    let volume = pod.path().join("volumes/kubernetes.io~empty-dir/journal");
                    for file in fs::read_dir(&volume).into_iter().flatten().flatten() {
                        copy_lines(&file.path(), &self.dir.join("journal").join(file.file_name()), &key, from_ns)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Copies the lines of one group from a moment on: pods that were replaced before have left no
/// journal, and an earlier recording of the group is none of this one's. A torn last line is
/// copied as it is: the reader tells.
fn copy_lines(from: &Path, to: &Path, group: &str, from_ns: u64) -> Result<()> {
    let text = fs::read_to_string(from).with_context(|| format!("read {}", from.display()))?;
    let needle = format!("\"group\":\"{group}\"");
    let recent = |line: &&str| written_ns(line).is_none_or(|at| at >= from_ns);
    let ours: Vec<&str> = text.lines().filter(|line| line.contains(&needle)).filter(recent).collect();
    if ours.is_empty() {
        return Ok(());
    }
    fs::write(to, ours.join("\n") + "\n").with_context(|| format!("write {}", to.display()))
}

fn written_ns(line: &str) -> Option<u64> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    line.get("boot_ns").or_else(|| line.get("received_ns"))?.as_u64()
}
