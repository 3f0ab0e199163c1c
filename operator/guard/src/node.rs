//! The guard of one node at work: takes what comes in, feeds the core, and carries out
//! what it decides.

use std::collections::BTreeMap;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use regent_core::ids::{Epoch, GroupKey};
use regent_core::instruction::Instruction;
use regent_core::time::Moment;
use regent_lease::guard::{Certification, Effect, Guard, GuardError, Nonce, Pod, PodState, PodUid};
use regent_proto::v1;
use tokio::sync::{oneshot, watch};

use crate::clock::now;
use crate::disk::{Disk, Done};
use crate::fence::{Fence, Report};
use crate::gates::{Asker, Gates};
use crate::input::{Input, PublishError};
use crate::journal::Volume;
use crate::output::Output;
use crate::steps::{Next, Step, Steps};
use crate::volume::Published;

/// How often the tree is searched for the cgroup of a pod whose gate asks.
const SEARCH_PACE: Duration = Duration::from_millis(100);

/// The state of a guard's shell.
pub struct Node {
    guard: Guard,
    volumes: BTreeMap<PodUid, Volume>,
    fence: Fence,
    gates: Gates,
    disk: Disk,
    /// The epoch that each pod can read.
    epochs: BTreeMap<PodUid, Epoch>,
    output: Output,
    steps: Steps,
    waiting: Vec<Waiting>,
    states: watch::Sender<v1::GuardState>,
    changed: bool,
    next_search: Moment,
}

/// Who waits for the end of an instruction.
type Waiting = (GroupKey, Instruction, oneshot::Sender<Result<(), GuardError>>);

impl Node {
    /// A node that goes on from its journal.
    pub fn new(
        guard: Guard,
        volumes: BTreeMap<PodUid, Volume>,
        fence: Fence,
        gates: Gates,
        disk: Disk,
        output: Output,
        states: watch::Sender<v1::GuardState>,
    ) -> Self {
        let (epochs, steps, waiting, next_search) = (BTreeMap::new(), Steps::default(), Vec::new(), Moment::default());
        Self { guard, volumes, fence, gates, disk, epochs, output, steps, waiting, states, changed: true, next_search }
    }

    /// What lies on the node: a pod that the journal doesn't know is killed, and held.
    pub fn find(&mut self, found: BTreeMap<PodUid, Option<Published>>) {
        for (uid, published) in found {
            if self.volumes.contains_key(&uid) {
                continue;
            }
            tracing::warn!(pod = uid.0, "the journal doesn't know this pod: it is killed, and held at its gate");
            match published {
                Some(Published { pod, volume }) => {
                    self.guard.on_found(pod);
                    self.volumes.insert(uid, volume);
                }
                None => self.fence.kill(&uid),
            }
        }
    }

    /// Does again what the guard before may have left half done.
    pub fn resume(&mut self) {
        let effects = self.guard.resume(now());
        self.add(effects);
    }

    /// The volumes of all pods.
    pub fn volumes(&self) -> &BTreeMap<PodUid, Volume> {
        &self.volumes
    }

    /// Answers at the gate of a pod that was there before this guard.
    pub fn reopen(&mut self, uid: &PodUid, listener: UnixListener) {
        if let Err(error) = self.gates.listen(uid, listener) {
            tracing::error!(pod = uid.0, %error, "a gate can't be answered");
        }
    }

    /// When [`Self::tick`] is due.
    pub fn next_deadline(&self) -> Option<Moment> {
        self.guard.next_deadline()
    }

    /// How soon [`Self::poll`] is due, if at all.
    pub fn pace(&self) -> Option<Duration> {
        self.fence.pace().or_else(|| self.gates.has_unreachable().then_some(SEARCH_PACE))
    }

    /// A deadline has come.
    pub fn tick(&mut self) {
        let effects = self.guard.tick(now());
        self.add(effects);
    }

    /// Looks at whatever takes its time.
    pub fn poll(&mut self) {
        let reports = self.fence.poll();
        self.report(reports);
        if self.next_search.passed_for_waiting(now()) {
            self.next_search = now().after(SEARCH_PACE);
            for (uid, asker) in self.gates.take_unreachable() {
                self.on_gate(uid, asker, false);
            }
        }
    }

    /// Returns when the disk has done what it was given.
    pub async fn written(&mut self) {
        let done = self.disk.done().await;
        self.steps.written();
        match done {
            Done::Saved => {}
            Done::WroteEpoch(uid, epoch, Ok(())) => drop(self.epochs.insert(uid, epoch)),
            Done::WroteEpoch(uid, _, Err(error)) => {
                tracing::error!(pod = uid.0, %error, "an epoch can't be written; the gate stays closed");
            }
        }
    }

    /// Does what can be done now.
    pub fn work(&mut self) {
        loop {
            // What follows may be a thaw or an opened gate, whose time may be over by now.
            if self.next_deadline().is_some_and(|at| at.passed_for_stopping(now())) {
                self.tick();
            }
            match self.steps.take() {
                Next::Step(Step::Do(effect)) => self.perform(effect),
                Next::Step(Step::Answer(answer)) => answer(),
                Next::Save(journal, durable) => self.disk.save(*journal, self.volumes.clone(), durable),
                Next::WriteEpoch(uid, epoch) => match self.volumes.get(&uid) {
                    Some(volume) => self.disk.write_epoch(uid, epoch, volume.target.clone()),
                    // Unpublished meanwhile.
                    None => self.steps.written(),
                },
                Next::Wait | Next::Done => break,
            }
        }
        if std::mem::take(&mut self.changed) && self.states.receiver_count() > 0 {
            self.states.send_replace(self.state());
        }
    }

    fn add(&mut self, effects: Vec<Effect>) {
        self.changed |= effects.iter().any(|e| matches!(e, Effect::Journal { .. }));
        let over = self.steps.add(effects);
        if !over.freeze.is_empty() {
            let reports = self.fence.freeze(&over.freeze);
            self.report(reports);
        }
        for uid in over.close {
            self.gates.close(&uid);
        }
        if !over.kill.is_empty() {
            for uid in over.kill {
                self.gates.close(&uid);
                self.fence.kill(&uid);
            }
            let reports = self.fence.poll();
            self.report(reports);
        }
    }

    fn add_or_log(&mut self, outcome: Result<Vec<Effect>, GuardError>) {
        match outcome {
            Ok(effects) => self.add(effects),
            // A pod may be unpublished while something is done to it.
            Err(error) => tracing::debug!(%error, "a report came too late"),
        }
    }

    fn report(&mut self, reports: Vec<Report>) {
        for report in reports {
            let at = now();
            let outcome = match report {
                Report::Frozen(uid, took) => self.guard.on_frozen(at, &uid, took),
                Report::FreezeFailed(uid) => self.guard.on_freeze_failed(at, &uid),
                Report::Thawed(uid) => self.guard.on_thawed(at, &uid),
                Report::Killed(uid) => self.guard.on_killed(at, &uid),
            };
            self.add_or_log(outcome);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            // `Steps` hands out none of these.
            Effect::Journal { .. } | Effect::WriteEpoch(..) | Effect::Freeze(_) | Effect::Kill(_) => {}
            Effect::OpenGate(uid) => self.open(&uid),
            Effect::Thaw(uid) => self.thaw(&uid),
            Effect::Confirm(group, done) => self.confirm(&group, done),
            Effect::Event(event) => self.output.event(&event),
        }
    }

    fn state_of(&self, uid: &PodUid) -> Option<PodState> {
        self.guard.journal().pods.get(uid).map(|p| p.state)
    }

    /// Thaws a pod, if it still may run: another site's certificate may have come while
    /// this waited for the disk.
    fn thaw(&mut self, uid: &PodUid) {
        if matches!(self.state_of(uid), Some(PodState::Running { .. })) {
            let report = self.fence.thaw(uid);
            self.report(report.into_iter().collect());
        }
    }

    /// Opens a gate, if its pod still may run and can read its epoch.
    fn open(&mut self, uid: &PodUid) {
        let Some(PodState::Running { epoch }) = self.state_of(uid) else { return self.gates.close(uid) };
        if self.epochs.get(uid) != Some(&epoch) {
            // A newer one is on its way, or it could not be written: whoever asks then finds it.
            self.gates.close(uid);
            return self.add(vec![Effect::WriteEpoch(uid.clone(), epoch)]);
        }
        if self.gates.open(uid, epoch) {
            let outcome = self.guard.on_gate_opened(now(), uid);
            self.add_or_log(outcome);
        }
    }

    fn confirm(&mut self, of: &GroupKey, done: Instruction) {
        let waiting = std::mem::take(&mut self.waiting);
        for (group, wanted, reply) in waiting {
            if &group == of && done.covers(wanted) {
                let _ = reply.send(Ok(()));
            } else if !reply.is_closed() {
                self.waiting.push((group, wanted, reply));
            }
        }
    }

    /// What came in.
    pub fn on_input(&mut self, input: Input) {
        match input {
            Input::Publish { published, listener, reply } => self.on_publish(published, listener, reply),
            Input::Unpublish { id, reply } => self.on_unpublish(&id, reply),
            Input::Gate { uid, asker } => self.on_gate(uid, asker, true),
            Input::GateGone { uid, id } => {
                if self.gates.gone(&uid, id) {
                    self.guard.on_gate_closed(&uid);
                }
            }
            Input::Nonce { reply } => {
                let _ = reply.send(self.new_nonce());
            }
            Input::Certify { certificate, reply } => {
                let Certification { effects, accepted, rejected } = self.guard.on_certificate(now(), &certificate);
                self.add(effects);
                let _ = reply.send((accepted, rejected.iter().map(ToString::to_string).collect()));
            }
            Input::Instruct { group, instruction, reply } => self.on_instruction(group, instruction, reply),
            Input::Watch => self.changed = true,
        }
    }

    fn new_nonce(&mut self) -> std::io::Result<Nonce> {
        let mut random = [0u8; 32];
        let filled = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
        if filled != random.len() {
            return Err(std::io::Error::other("the kernel gave too few random bytes"));
        }
        Ok(self.guard.new_nonce(now(), random))
    }

    fn on_publish(
        &mut self,
        published: Published,
        listener: UnixListener,
        reply: oneshot::Sender<Result<(), PublishError>>,
    ) {
        let Published { pod, volume } = published;
        let uid = pod.uid.clone();
        if let Err(error) = self.take_volume(&pod, &volume, listener) {
            let _ = reply.send(Err(error));
            return;
        }
        let effects = self.guard.on_publish(now(), pod);
        self.add(effects);
        if self.volumes.get(&uid) != Some(&volume) {
            self.volumes.insert(uid, volume);
            self.save_volumes();
        }
        self.steps.answer(move || drop(reply.send(Ok(()))));
    }

    fn take_volume(&mut self, pod: &Pod, volume: &Volume, listener: UnixListener) -> Result<(), PublishError> {
        if let Some(has) = self.guard.journal().pods.get(&pod.uid).map(|p| &p.pod.group).filter(|g| *g != &pod.group) {
            let (pod, has, wants) = (pod.name.clone(), has.clone(), pod.group.clone());
            return Err(PublishError::TwoGroups { pod, has, wants });
        }
        if self.volumes.get(&pod.uid).is_some_and(|v| v.id != volume.id) {
            return Err(PublishError::TwoVolumes(pod.name.clone()));
        }
        self.gates.listen(&pod.uid, listener).map_err(|e| PublishError::Socket(e.to_string()))
    }

    fn on_unpublish(&mut self, id: &str, reply: oneshot::Sender<Result<(), GuardError>>) {
        let found = self.volumes.iter().find(|(_, v)| v.id == id).map(|(uid, _)| uid.clone());
        if let Some(uid) = found {
            let lives = self.fence.may_live(&uid);
            let effects = match self.guard.on_unpublish(now(), &uid, lives) {
                Ok(effects) => effects,
                Err(error) => return drop(reply.send(Err(error))),
            };
            self.gates.remove(&uid);
            self.fence.forget(&uid);
            self.volumes.remove(&uid);
            self.epochs.remove(&uid);
            self.add(effects);
            self.save_volumes();
        }
        self.steps.answer(move || drop(reply.send(Ok(()))));
    }

    fn save_volumes(&mut self) {
        let state = Box::new(self.guard.journal().clone());
        self.add(vec![Effect::Journal { state, durable: false }]);
    }

    /// A gate is asked only for a pod that can be fenced. The gate runs in the pod's own
    /// cgroup, so there is one by now.
    fn on_gate(&mut self, uid: PodUid, asker: Asker, first: bool) {
        if let Err(error) = self.fence.can_reach(&uid) {
            if first {
                tracing::warn!(pod = uid.0, %error, "the gate stays closed: its pod could not be fenced");
            }
            return self.gates.wait_unreachable(uid, asker);
        }
        self.gates.wait(uid.clone(), asker);
        let outcome = self.guard.on_gate(now(), &uid);
        self.add_or_log(outcome);
    }

    fn on_instruction(
        &mut self,
        group: GroupKey,
        instruction: Instruction,
        reply: oneshot::Sender<Result<(), GuardError>>,
    ) {
        match self.guard.on_instruction(now(), &group, instruction) {
            Ok(effects) => {
                self.waiting.push((group, instruction, reply));
                self.add(effects);
            }
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    fn state(&self) -> v1::GuardState {
        let pods = self.guard.pods(now()).into_iter().map(|(record, left)| v1::GatePod {
            uid: record.pod.uid.0,
            namespace: record.pod.namespace,
            name: record.pod.name,
            group: record.pod.group.to_string(),
            state: wire(record.state).into(),
            epoch: record.state.epoch().map(|e| e.to_string()).unwrap_or_default(),
            lease_left_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
        });
        v1::GuardState { journal_id: self.disk.journal_id().to_owned(), pods: pods.collect() }
    }
}

fn wire(state: PodState) -> v1::PodState {
    match state {
        PodState::Gated => v1::PodState::Gated,
        PodState::Running { .. } => v1::PodState::Running,
        PodState::Frozen { .. } => v1::PodState::Frozen,
        PodState::Killing => v1::PodState::Killing,
    }
}
