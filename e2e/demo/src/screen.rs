//! What happens, as it happens, in words for a visitor.

use std::collections::BTreeSet;
use std::io::IsTerminal;

use regent_evidence::{Event, Kind};

/// Prints events with their time since the fault.
#[derive(Debug, Clone)]
pub struct Screen {
    fault_ns: Option<u64>,
    /// What was said since the last fault: several pods and both replicas say the same.
    said: BTreeSet<String>,
    quiet: bool,
    colour: bool,
}

impl Screen {
    /// A screen that speaks.
    pub fn new() -> Self {
        Self { fault_ns: None, said: BTreeSet::new(), quiet: false, colour: std::io::stdout().is_terminal() }
    }

    /// A screen that says nothing, for tests.
    pub fn silent() -> Self {
        Self { fault_ns: None, said: BTreeSet::new(), quiet: true, colour: false }
    }

    /// Shows an event, if a visitor would want to know of it.
    pub fn show(&mut self, event: &Event) {
        let is_fault = matches!(event.event, Kind::Cut | Kind::Crash | Kind::Takeover | Kind::Failback);
        if is_fault && self.fault_ns.is_none() {
            self.fault_ns = Some(event.boot_ns);
        }
        if is_fault {
            self.said.clear();
        }
        let (false, Some(words)) = (self.quiet, words(event)) else { return };
        if !self.said.insert(words.clone()) {
            return;
        }
        let since = self.fault_ns.map_or(0.0, |f| (i128::from(event.boot_ns) - i128::from(f)) as f64 / 1e9);
        let (bold, plain) = if self.colour && is_fault { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        println!("{since:>+8.3} s  {bold}{words}{plain}");
    }
}

impl Default for Screen {
    fn default() -> Self {
        Self::new()
    }
}

/// An event in a visitor's words; none for what only the record needs.
fn words(event: &Event) -> Option<String> {
    let (site, node) = (&event.site, event.node.as_deref().unwrap_or("?"));
    let epoch = event.epoch.map_or_else(|| "?".to_owned(), |e| e.to_string());
    Some(match &event.event {
        Kind::Cut => format!("{site} is cut off from the world: every packet vanishes, nothing is closed"),
        Kind::Crash => format!("{site}: every process of the site was killed at once"),
        Kind::Takeover => format!("somebody asks for a planned takeover from {site}"),
        Kind::Failback => format!("somebody asks to go back, from {site}"),
        Kind::Heal => format!("{site} is connected again"),
        Kind::LeaseEnd => format!("{node}: the lease of epoch {epoch} is over for {}", event.pods().join(", ")),
        Kind::Frozen => format!("{node}: stands still; nobody had to ask it to"),
        Kind::Thawed => format!("{node}: goes on under the same epoch {epoch}"),
        Kind::Killed => format!("{node}: stopped for good, and held at its own gate"),
        Kind::Lapsed => format!("witness {site}: no proof of a quorum for long enough, the holder has lapsed"),
        Kind::Proven => format!("witness {site}: there is proof of a quorum for epoch {epoch}"),
        Kind::Eligible => format!("{site} may take over: a quorum of witnesses says so"),
        Kind::Certificate => format!("{site} holds the lease: a quorum of witnesses signed epoch {epoch}"),
        Kind::GateOpened => format!("{node}: gates open under epoch {epoch}"),
        Kind::FirstStarted => format!("{site}: the first container runs"),
        Kind::AllReady => format!("{site}: all pods are ready"),
        Kind::Kill => format!("{site}: a process of Regent is killed"),
        Kind::Other(word) if word == "retired" => format!("epoch {epoch} is retired: {site} will not get it again"),
        Kind::Other(_) => return None,
    })
}
