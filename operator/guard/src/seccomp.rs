//! The guard's own seccomp filter: no sockets but Unix sockets, in any thread, for good.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter_all_threads,
};

/// The second table of system calls of an x86-64 kernel that has the x32 ABI.
const X32: i64 = 0x4000_0000;

/// Refuses, with EACCES, every socket that is not a Unix socket, and io_uring, which
/// makes sockets without the system call. Holds for all threads and children, and
/// can't be taken back.
pub fn refuse_network() -> Result<(), seccompiler::Error> {
    let foreign =
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, u64::from(libc::AF_UNIX.unsigned_abs()))?;
    let mut rules = BTreeMap::new();
    for table in [0, X32] {
        for call in [libc::SYS_socket, libc::SYS_socketpair] {
            rules.insert(call + table, vec![SeccompRule::new(vec![foreign.clone()])?]);
        }
        rules.insert(libc::SYS_io_uring_setup + table, Vec::new());
    }
    let refuse = SeccompAction::Errno(libc::EACCES.unsigned_abs());
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let program: BpfProgram = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch)?.try_into()?;
    apply_filter_all_threads(&program)
}
