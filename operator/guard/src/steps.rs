//! The order in which effects are carried out, and what may overtake what.
//!
//! Effects wait behind the journal, but freezing and killing wait for no disk: a disk that
//! is full or hangs must not let a pod run past its lease. A fence that overtakes takes
//! back what it overtakes for the same pod: a thaw or an opened gate that was decided
//! before it must not follow it. That the journal is behind a kill only makes the next
//! guard kill or fence again; what is *said* of a kill still waits for the journal.

use std::collections::{BTreeSet, VecDeque};

use regent_core::ids::Epoch;
use regent_lease::guard::{Effect, Journal, PodUid};

/// One step.
pub enum Step {
    /// An effect of the core's.
    Do(Effect),
    /// Tells whoever asked that everything before is done.
    Answer(Box<dyn FnOnce() + Send>),
}

/// Steps that are not done yet, in order.
#[derive(Default)]
pub struct Steps {
    queue: VecDeque<Step>,
    /// How many of the queue's journals the save that is under way covers; 0: none is.
    saving: usize,
    /// Whether an epoch is being written.
    writing: bool,
}

/// What to do about new effects at once.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Overtaking {
    /// Freeze these now.
    pub freeze: Vec<PodUid>,
    /// Then kill these.
    pub kill: Vec<PodUid>,
    /// Gates whose opening was taken back: whoever waits there must ask again.
    pub close: BTreeSet<PodUid>,
}

/// What comes next.
pub enum Next {
    /// This step, now.
    Step(Step),
    /// Save this state first, durably or not, then call [`Steps::written`].
    Save(Box<Journal>, bool),
    /// Write this epoch first, then call [`Steps::written`].
    WriteEpoch(PodUid, Epoch),
    /// Nothing until that is done.
    Wait,
    /// Nothing at all.
    Done,
}

impl Steps {
    /// Adds the effects of one input.
    pub fn add(&mut self, effects: Vec<Effect>) -> Overtaking {
        let mut over = Overtaking::default();
        for effect in effects {
            match effect {
                Effect::Freeze(uid) => {
                    self.take_back(&uid, &mut over.close);
                    over.freeze.push(uid);
                }
                Effect::Kill(uid) => {
                    self.take_back(&uid, &mut over.close);
                    over.kill.push(uid);
                }
                Effect::Journal { state, durable } => self.add_journal(state, durable),
                other => self.queue.push_back(Step::Do(other)),
            }
        }
        over
    }

    /// Renewals go on while a disk hangs: a journal right behind one that waits replaces it.
    fn add_journal(&mut self, state: Box<Journal>, durable: bool) {
        let journals = self.queue.iter().filter(|s| matches!(s, Step::Do(Effect::Journal { .. }))).count();
        match self.queue.back_mut() {
            Some(Step::Do(Effect::Journal { state: waiting, durable: must })) if journals > self.saving => {
                *waiting = state;
                *must |= durable;
            }
            _ => self.queue.push_back(Step::Do(Effect::Journal { state, durable })),
        }
    }

    /// Adds an answer behind everything that is queued.
    pub fn answer(&mut self, answer: impl FnOnce() + Send + 'static) {
        self.queue.push_back(Step::Answer(Box::new(answer)));
    }

    fn take_back(&mut self, fenced: &PodUid, closed: &mut BTreeSet<PodUid>) {
        self.queue.retain(|step| match step {
            Step::Do(Effect::Thaw(uid)) => uid != fenced,
            Step::Do(Effect::OpenGate(uid)) if uid == fenced => {
                closed.insert(uid.clone());
                false
            }
            _ => true,
        });
    }

    /// The next step. Of several journals that wait, the newest is saved for all: a
    /// journal may run ahead of what follows it, never behind.
    pub fn take(&mut self) -> Next {
        if self.saving > 0 || self.writing {
            return Next::Wait;
        }
        if let Some(Step::Do(Effect::Journal { .. })) = self.queue.front() {
            return self.save();
        }
        match self.queue.pop_front() {
            Some(Step::Do(Effect::WriteEpoch(uid, epoch))) => {
                self.writing = true;
                Next::WriteEpoch(uid, epoch)
            }
            Some(step) => Next::Step(step),
            None => Next::Done,
        }
    }

    fn save(&mut self) -> Next {
        let mut newest = None;
        let mut any_durable = false;
        for step in &self.queue {
            if let Step::Do(Effect::Journal { state, durable }) = step {
                self.saving += 1;
                any_durable |= durable;
                newest = Some(state);
            }
        }
        newest.cloned().map_or(Next::Done, |state| Next::Save(state, any_durable))
    }

    /// The disk has done what it was given.
    pub fn written(&mut self) {
        self.writing = false;
        let mut covered = std::mem::take(&mut self.saving);
        self.queue.retain(|step| {
            let done = covered > 0 && matches!(step, Step::Do(Effect::Journal { .. }));
            covered -= usize::from(done);
            !done
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(name: &str) -> PodUid {
        PodUid(name.into())
    }

    fn journal(boot: &str, durable: bool) -> Effect {
        Effect::Journal { state: Box::new(Journal { boot_id: boot.into(), ..Journal::default() }), durable }
    }

    #[test]
    fn a_freeze_takes_back_the_thaw_and_the_opening_that_it_overtakes() {
        let mut steps = Steps::default();
        let open =
            vec![journal("a", false), Effect::OpenGate(uid("p")), Effect::Thaw(uid("q")), Effect::Thaw(uid("r"))];
        assert_eq!(steps.add(open), Overtaking::default());
        let over = steps.add(vec![Effect::Freeze(uid("p")), Effect::Freeze(uid("q"))]);
        assert_eq!(over.freeze, [uid("p"), uid("q")]);
        assert_eq!(over.close, BTreeSet::from([uid("p")]));
        assert!(matches!(steps.take(), Next::Save(..)));
        steps.written();
        assert!(matches!(steps.take(), Next::Step(Step::Do(Effect::Thaw(u))) if u == uid("r")));
        assert!(matches!(steps.take(), Next::Done));
    }

    #[test]
    fn a_kill_waits_for_no_disk_and_takes_back_what_it_overtakes() {
        let mut steps = Steps::default();
        steps.add(vec![journal("a", false), Effect::OpenGate(uid("p")), Effect::Thaw(uid("q"))]);
        assert!(matches!(steps.take(), Next::Save(..)));
        let over = steps.add(vec![journal("b", true), Effect::Kill(uid("p")), Effect::Kill(uid("q"))]);
        assert_eq!(over.kill, [uid("p"), uid("q")]);
        assert_eq!(over.close, BTreeSet::from([uid("p")]));
        // The disk has not answered yet; what is left waits for it.
        assert!(matches!(steps.take(), Next::Wait));
        steps.written();
        assert!(matches!(steps.take(), Next::Save(state, true) if state.boot_id == "b"));
        steps.written();
        assert!(matches!(steps.take(), Next::Done));
    }

    #[test]
    fn nothing_passes_an_epoch_that_is_being_written_but_a_fence() {
        let mut steps = Steps::default();
        let epoch = Epoch { term: 1, site: 1 };
        steps.add(vec![Effect::WriteEpoch(uid("p"), epoch), Effect::OpenGate(uid("p"))]);
        assert!(matches!(steps.take(), Next::WriteEpoch(u, e) if u == uid("p") && e == epoch));
        assert!(matches!(steps.take(), Next::Wait));
        assert_eq!(steps.add(vec![Effect::Freeze(uid("q"))]).freeze, [uid("q")]);
        steps.written();
        assert!(matches!(steps.take(), Next::Step(Step::Do(Effect::OpenGate(_)))));
        assert!(matches!(steps.take(), Next::Done));
    }

    #[test]
    fn a_disk_that_hangs_costs_one_waiting_journal_however_often_a_lease_is_renewed() {
        let mut steps = Steps::default();
        steps.add(vec![journal("a", false)]);
        assert!(matches!(steps.take(), Next::Save(state, false) if state.boot_id == "a"));
        for renewal in ["b", "c", "d"] {
            steps.add(vec![journal(renewal, renewal == "c")]);
        }
        assert_eq!(steps.queue.len(), 2);
        steps.written();
        assert!(matches!(steps.take(), Next::Save(state, true) if state.boot_id == "d"));
        steps.written();
        assert!(matches!(steps.take(), Next::Done));
    }

    #[test]
    fn the_newest_journal_is_saved_for_all_that_wait_and_nothing_passes_one_that_is_not_saved() {
        let mut steps = Steps::default();
        steps.add(vec![journal("a", true), Effect::OpenGate(uid("p")), journal("b", false)]);
        match steps.take() {
            Next::Save(state, durable) => assert_eq!((state.boot_id.as_str(), durable), ("b", true)),
            _ => panic!("nothing to save"),
        }
        steps.add(vec![journal("c", false)]);
        assert!(matches!(steps.take(), Next::Wait));
        steps.written();
        assert!(matches!(steps.take(), Next::Step(Step::Do(Effect::OpenGate(_)))));
        assert!(matches!(steps.take(), Next::Save(state, false) if state.boot_id == "c"));
        steps.written();
        assert!(matches!(steps.take(), Next::Done));
    }
}
