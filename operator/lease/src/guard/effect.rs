//! What a guard has its shell do.

use super::journal::Journal;
use super::pod::PodUid;
use regent_core::event::Event;
use regent_core::ids::{Epoch, GroupKey};

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
    /// Tell the hub.
    Confirm(Confirmation),
    /// Report a fact.
    Event(Event),
}

/// An instruction of the hub's that is done and journaled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Confirmation {
    /// The node knows that it is on the group's list.
    Listed(GroupKey),
    /// The fence is in force.
    Protected(GroupKey),
    /// Nothing of the group runs here, and nothing at or below the epoch will.
    Retired(GroupKey, Epoch),
    /// The limit is taken.
    Configured(GroupKey),
}
