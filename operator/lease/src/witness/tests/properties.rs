//! One honest witness under every disorder that its shell and its store can cause:
//! writes that fail, that land although they failed, that land much later; crashes and
//! changes of lead at any moment; answers that are concluded late and out of order.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::support::*;
use crate::witness::{LeadTerm, Receipt, Record, Start, Witness};
use regent_core::ids::Epoch;
use regent_core::message::{Ask, Line, Submission};

const LEASE: u64 = 9_000;
const T1: u64 = 8_000;
const CLAIMANTS: [&str; 3] = ["ireland", "french", "german"];

/// What becomes of a write.
#[derive(Debug, Clone, Copy)]
enum Write {
    Done,
    Lost,
    DoneButReportedLost,
    LandsLater,
}

#[derive(Debug, Clone)]
enum Step {
    Pass(u64),
    Ask { who: usize, renews: bool, ahead: u64, proven: bool, at_old: bool, write: Write, open: bool },
    Query { who: usize, degraded: bool },
    Plan { drops: usize },
    Conclude { which: usize, write: Write },
    HandOver { who: usize, heir: usize, stopped: bool, write: Write },
    Land { which: usize },
    Reload,
    Crash { after: u64 },
    ConfirmLead,
    TakeLead { after: u64 },
}

fn write() -> impl Strategy<Value = Write> {
    prop_oneof![
        12 => Just(Write::Done),
        1 => Just(Write::Lost),
        1 => Just(Write::DoneButReportedLost),
        2 => Just(Write::LandsLater),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0..CLAIMANTS.len();
    let ahead = prop_oneof![1 => Just(0), 8 => Just(1), 1 => Just(2u64)];
    let flags = (any::<bool>(), any::<bool>(), prop::bool::weighted(0.25), prop::bool::weighted(0.15));
    let ask = (who.clone(), ahead, flags, write());
    prop_oneof![
        3 => (1..D).prop_map(Step::Pass),
        5 => (LAPSE..LAPSE + D).prop_map(Step::Pass),
        16 => ask.prop_map(|(who, ahead, (renews, proven, at_old, open), write)| {
            Step::Ask { who, renews, ahead, proven, at_old, write, open }
        }),
        1 => (who.clone(), any::<bool>()).prop_map(|(who, degraded)| Step::Query { who, degraded }),
        1 => who.clone().prop_map(|drops| Step::Plan { drops }),
        2 => (0..4usize, write()).prop_map(|(which, write)| Step::Conclude { which, write }),
        3 => (who.clone(), who, any::<bool>(), write())
            .prop_map(|(who, heir, stopped, write)| Step::HandOver { who, heir, stopped, write }),
        3 => (0..4usize).prop_map(|which| Step::Land { which }),
        10 => Just(Step::Reload),
        1 => (0..D / 2).prop_map(|after| Step::Crash { after }),
        3 => Just(Step::ConfirmLead),
        1 => (0..LEASE / 2).prop_map(|after| Step::TakeLead { after }),
    ]
}

/// What was asked in a receipt that is not concluded yet.
struct Open {
    receipt: Receipt,
    expected: u64,
    asked: Option<(usize, Epoch)>,
    retired: Option<Epoch>,
    received: u64,
}

struct Process {
    witness: Witness,
    /// The version of the object that it read or wrote last.
    known: u64,
    open: Vec<Open>,
}

/// One object with compare-and-swap, the processes over it, and what was promised to whom.
struct World {
    now: u64,
    leads: bool,
    last_sent: u64,
    starts: u64,
    object: Option<Record>,
    version: u64,
    in_flight: Vec<(Record, u64)>,
    processes: Vec<Process>,
    promises: Vec<(usize, Epoch, u64, u64)>,
    /// What was acknowledged as retired, and when.
    retired: Vec<(Epoch, u64)>,
    tags: BTreeMap<usize, regent_core::message::Tag>,
    plan_version: u64,
    ids: u64,
}

impl World {
    fn new(leads: bool) -> Self {
        let mut world = Self {
            now: START,
            leads,
            last_sent: START,
            starts: 0,
            object: None,
            version: 0,
            in_flight: Vec::new(),
            processes: Vec::new(),
            promises: Vec::new(),
            retired: Vec::new(),
            tags: BTreeMap::new(),
            plan_version: 1,
            ids: 0,
        };
        world.start(Start::First);
        let bench = &mut world.processes[0];
        let mut ask = submission(&mut world.ids, "ireland", Ask::Query { line: Line::Beside }, None, None);
        ask.plans = vec![signed(&protected(1))];
        let receipt = bench.witness.receive(at(START), &ask, None).unwrap();
        world.object = Some(receipt.persists[0].1.clone());
        world.version = 1;
        bench.known = 1;
        let _grant = bench.witness.conclude(receipt, &[]);
        world
    }

    fn start(&mut self, how: Start) {
        self.starts += 1;
        let mut config = config(self.starts, self.now, how);
        let term = LeadTerm { answers_for: Duration::from_millis(T1), lease: Duration::from_millis(LEASE) };
        config.lead = self.leads.then_some(term);
        let records = self.object.iter().map(|r| (shop(), r.clone())).collect();
        let mut witness = Witness::new(config, records).unwrap();
        self.last_sent = self.now;
        witness.confirm_lead(at(self.now));
        self.processes.push(Process { witness, known: self.version, open: Vec::new() });
    }

    fn swap(&mut self, record: Record, expected: u64) -> bool {
        if expected != self.version {
            return false;
        }
        self.object = Some(record);
        self.version += 1;
        true
    }

    fn highest_term(&self) -> u64 {
        let vote = self.object.as_ref().and_then(|r| r.vote.as_ref()).map_or(0, |v| v.epoch.term);
        let retired = self.object.as_ref().and_then(|r| r.retired.as_ref()).map_or(0, |r| r.epoch.term);
        vote.max(retired)
    }

    /// What a claimant would ask for: its own vote again, or something higher.
    fn own_epoch(&self, who: usize, renews: bool, ahead: u64) -> Epoch {
        let number = number(CLAIMANTS[who]);
        let held = self.object.as_ref().and_then(|r| r.vote.clone()).filter(|v| v.epoch.site == number);
        match held {
            Some(vote) if renews => vote.epoch,
            _ => Epoch { term: self.highest_term() + ahead, site: number },
        }
    }

    fn receive(&mut self, process: usize, ask: &Submission, asked: Option<(usize, Epoch)>, retired: Option<Epoch>) {
        let Some(process) = self.processes.get_mut(process) else { return };
        if let Ok(receipt) = process.witness.receive(at(self.now), ask, None) {
            process.open.push(Open { receipt, expected: process.known, asked, retired, received: self.now });
        }
    }

    fn conclude_newest(&mut self, process: usize, write: Write) {
        let newest = self.processes.get(process).and_then(|p| p.open.len().checked_sub(1));
        if let Some(newest) = newest {
            self.conclude(process, newest, write);
        }
    }

    fn conclude(&mut self, process: usize, which: usize, write: Write) {
        let open = match self.processes.get_mut(process) {
            Some(p) if !p.open.is_empty() => {
                let which = which % p.open.len();
                p.open.remove(which)
            }
            _ => return,
        };
        let record = open.receipt.persists.first().map(|(_, record)| record.clone());
        let mut failed = false;
        if let Some(record) = record {
            let done = match write {
                Write::Lost => false,
                Write::LandsLater => {
                    self.in_flight.push((record, open.expected));
                    false
                }
                Write::Done | Write::DoneButReportedLost => self.swap(record, open.expected),
            };
            failed = !done || matches!(write, Write::DoneButReportedLost);
            if !failed {
                self.processes[process].known = self.version;
            }
        }
        let failed = if failed { vec![shop()] } else { Vec::new() };
        let grant = self.processes[process].witness.conclude(open.receipt, &failed);
        if let Some((who, epoch)) = open.asked {
            self.tags.insert(who, grant.tag.clone());
            if grant.exceptions.is_empty() {
                self.granted(who, epoch, open.received);
            }
        }
        if let Some(epoch) = open.retired.filter(|_| grant.exceptions.is_empty()) {
            self.retired.push((epoch, self.now));
        }
    }

    /// The heart: what must hold whenever a grant leaves the witness.
    fn granted(&mut self, who: usize, epoch: Epoch, received: u64) {
        let until = received + D;
        for &(other, earlier, from, to) in &self.promises {
            let apart = until <= from || to <= received;
            assert!(other == who || apart, "{who} by {epoch} at {received}, {other} by {earlier} from {from} to {to}");
            // I2, in the order of receipt: an answer may be concluded late.
            assert!(received < from || epoch >= earlier || other == who, "{epoch} after {earlier}");
        }
        let gone = |(retired, since): &(Epoch, u64)| epoch <= *retired && received > *since;
        assert!(!self.retired.iter().any(gone), "{epoch} is retired");
        self.promises.push((who, epoch, received, until));
    }

    fn run(&mut self, step: Step) {
        let last = self.processes.len() - 1;
        match step {
            Step::Pass(ms) => self.now += ms,
            Step::Ask { who, renews, ahead, proven, at_old, write, open } => {
                if !at_old {
                    self.confirm_lead();
                }
                let epoch = self.own_epoch(who, renews, ahead);
                let tag = self.tags.get(&who).cloned();
                let ask = submission(&mut self.ids, CLAIMANTS[who], Ask::Grant, Some(epoch), tag.filter(|_| proven));
                let process = if at_old { last.saturating_sub(1) } else { last };
                self.receive(process, &ask, Some((who, epoch)), None);
                if !open {
                    self.conclude_newest(process, write);
                }
            }
            Step::Query { who, degraded } => {
                let line = if degraded { Line::Degraded } else { Line::Ready };
                let epoch = self.own_epoch(who, false, 1);
                let ask = submission(&mut self.ids, CLAIMANTS[who], Ask::Query { line }, Some(epoch), None);
                self.receive(last, &ask, None, None);
                self.conclude_newest(last, Write::Done);
            }
            Step::Plan { drops } => self.plan(last, drops),
            Step::Conclude { which, write } => {
                let process = which % self.processes.len();
                self.conclude(process, which, write);
            }
            Step::HandOver { who, heir, stopped, write } => {
                self.retire(last, who, heir, write);
                if stopped {
                    self.release(last, who);
                }
            }
            Step::Land { which } if !self.in_flight.is_empty() => {
                let (record, expected) = self.in_flight.remove(which % self.in_flight.len());
                self.swap(record, expected);
            }
            Step::Land { .. } => {}
            Step::Reload => {
                for process in &mut self.processes {
                    if !process.witness.unsettled().is_empty() {
                        process.known = self.version;
                        process.witness.reload(at(self.now), &shop(), self.object.clone());
                    }
                }
            }
            Step::Crash { after } => self.crash(after),
            Step::ConfirmLead => self.confirm_lead(),
            Step::TakeLead { after } if self.leads => {
                self.now = (self.now + after).max(self.last_sent + LEASE);
                self.start(Start::Restarted);
            }
            Step::TakeLead { .. } => {}
        }
    }

    /// Home signs its next plan, which drops a standby, or none: it can't drop itself.
    fn plan(&mut self, process: usize, drops: usize) {
        self.plan_version += 1;
        let mut plan = protected(self.plan_version);
        plan.standbys.retain(|s| s.as_str() != CLAIMANTS[drops]);
        let mut ask = submission(&mut self.ids, "ireland", Ask::Query { line: Line::Beside }, None, None);
        ask.plans = vec![signed(&plan)];
        self.receive(process, &ask, None, None);
        self.conclude_newest(process, Write::Done);
    }

    fn confirm_lead(&mut self) {
        self.last_sent = self.now;
        if let Some(leader) = self.processes.last_mut() {
            leader.witness.confirm_lead(at(self.now));
        }
    }

    fn retire(&mut self, process: usize, who: usize, heir: usize, write: Write) {
        self.confirm_lead();
        let epoch = self.own_epoch(who, true, 0);
        let ask = Ask::Retire { group: shop(), epoch, successor: site(CLAIMANTS[heir]) };
        let ask = submission(&mut self.ids, CLAIMANTS[who], ask, None, None);
        self.receive(process, &ask, None, Some(epoch));
        self.conclude_newest(process, write);
    }

    /// A holder whose retirement was acknowledged has stopped everywhere: it uses no
    /// promise any more, and releases.
    fn release(&mut self, process: usize, who: usize) {
        let epoch = self.own_epoch(who, true, 0);
        if !self.retired.iter().any(|(retired, _)| *retired == epoch) {
            return;
        }
        for promise in self.promises.iter_mut().filter(|p| p.0 == who) {
            promise.3 = promise.3.min(self.now);
        }
        // What is still on its way to it grants an epoch that every guard has as retired.
        for open in self.processes.iter_mut().flat_map(|p| &mut p.open) {
            open.asked = open.asked.filter(|(asker, _)| *asker != who);
        }
        let ask = submission(&mut self.ids, CLAIMANTS[who], Ask::Release { group: shop(), epoch }, None, None);
        self.receive(process, &ask, None, None);
        self.conclude_newest(process, Write::Done);
    }

    /// Every process dies at once; what it was writing may still land.
    fn crash(&mut self, after: u64) {
        for open in self.processes.drain(..).flat_map(|p| p.open) {
            let write = open.receipt.persists.into_iter().map(|(_, record)| (record, open.expected));
            self.in_flight.extend(write);
        }
        self.now += after;
        self.start(Start::Restarted);
        if self.leads {
            // L9 holds for a crash of all replicas as for one: the lead is taken again.
            self.processes.clear();
            self.now = self.now.max(self.last_sent + LEASE);
            self.start(Start::Restarted);
        }
    }
}

fn submission(
    ids: &mut u64,
    name: &str,
    ask: Ask,
    epoch: Option<Epoch>,
    proven: Option<regent_core::message::Tag>,
) -> Submission {
    *ids += 1;
    let entries: Vec<_> = epoch.iter().map(|e| entry(&e.to_string())).collect();
    let tags: BTreeMap<_, _> = proven.iter().map(|t| (site("swiss"), t.clone())).collect();
    let proofs =
        proven.iter().map(|_| proof_of(name, &entries, tags.clone(), &["french", "german", "luxembourg"])).collect();
    let request = request(name, ask, &entries, tags, *ids);
    let request = regent_core::sign::Envelope::sign(&request, name, &key(name));
    Submission { request, entries, proofs, plans: Vec::new() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn a_witness_never_promises_a_group_to_two_sites_whatever_its_store_does(
        steps in prop::collection::vec(step(), 1..150)
    ) {
        let mut world = World::new(false);
        steps.into_iter().for_each(|s| world.run(s));
    }

    #[test]
    fn nor_do_two_replicas_of_which_one_leads(steps in prop::collection::vec(step(), 1..150)) {
        let mut world = World::new(true);
        steps.into_iter().for_each(|s| world.run(s));
    }

    #[test]
    fn eligibility_is_exactly_d_w_and_two_p_after_the_last_proven_tag(
        w in 0u64..20_000,
        renewals in prop::collection::vec((1..P, any::<bool>()), 1..12),
    ) {
        let mut bench = Bench::empty();
        let plan = regent_core::plan::Plan { takeover_after_ms: w, ..protected(1) };
        bench.register(START, &signed(&plan));
        bench.ask("ireland", "1.1", START).unwrap();
        let (mut now, mut last_tag, mut proven) = (START, START, START);
        for (gap, proves) in renewals {
            now += gap;
            if proves {
                bench.renew_proven("ireland", "1.1", now).unwrap();
                proven = last_tag;
            } else {
                bench.ask("ireland", "1.1", now).unwrap();
            }
            last_tag = now;
        }
        let eligible = (proven + D + w + 2 * P).max(now + D);
        prop_assert_eq!(bench.query("french", "2.2", eligible - 1).map_err(|e| e.1), Err(Some(1)));
        prop_assert_eq!(bench.query("french", "2.2", eligible), Ok(()));
    }

    #[test]
    fn no_sequence_of_plans_lowers_a_version_or_takes_protection_off(
        offers in prop::collection::vec((1u64..5, 0usize..3, 0usize..2), 1..20)
    ) {
        use regent_core::plan::Protection::{Observed, Protected, Retiring};
        let mut bench = Bench::empty();
        let (mut version, mut was_protected) = (0, false);
        for (offered, protection, signer) in offers {
            let protection = [Observed, Protected, Retiring][protection];
            let plan = regent_core::plan::Plan { protection, ..protected(offered) };
            let signer = ["ireland", "french"][signer];
            bench.register(START, &regent_core::sign::Envelope::sign(&plan, "ireland", &key(signer)));
            let Some(view) = bench.witness.explain_group(&shop(), at(START)) else { continue };
            prop_assert!(view.plan_version.unwrap() >= version);
            prop_assert!(!was_protected || view.protection == Some(Protected));
            prop_assert!(view.protection != Some(Retiring));
            version = view.plan_version.unwrap();
            was_protected = view.protection == Some(Protected);
        }
    }
}
