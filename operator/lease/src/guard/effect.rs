//! What a guard has its shell do.

use super::journal::Journal;
use super::pod::PodUid;
use regent_core::event::Event;
use regent_core::ids::{Epoch, GroupKey};
use regent_core::instruction::Instruction;

/// One thing to do, in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Write the journal. Nothing that follows may be done before, but for freezing and
    /// killing: stopping waits for no disk.
    Journal {
        /// What to write.
        state: Box<Journal>,
        /// It must survive the machine (fsync). Otherwise it need only survive the
        /// guard: deadlines and pods die with the boot.
        durable: bool,
    },
    /// Write the epoch into the pod's volume.
    WriteEpoch(PodUid, Epoch),
    /// Let the gate that asks go on. If it is gone by now, nothing is lost: it asks again.
    OpenGate(PodUid),
    /// Freeze the pod's cgroup; then report [`super::Guard::on_frozen`] or
    /// [`super::Guard::on_freeze_failed`].
    Freeze(PodUid),
    /// Thaw the pod's cgroup; then report [`super::Guard::on_thawed`].
    Thaw(PodUid),
    /// Kill the pod's cgroup, and again until it is empty; then report
    /// [`super::Guard::on_killed`].
    Kill(PodUid),
    /// Tell the hub that what it wants of the group is done and journaled.
    Confirm(GroupKey, Instruction),
    /// Report a fact.
    Event(Event),
}
