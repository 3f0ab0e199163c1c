//! The only unsafe code: what neither std nor rustix offers.

#![allow(unsafe_code)]

use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

/// Has the tokio runtime watch a descriptor.
pub fn watched(fd: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned by what is returned, so it stays the same and open
    // for as long as it is registered.
    unsafe { AsyncFd::register(fd) }.map_err(std::io::Error::from)
}

/// Makes SIGTERM and SIGINT end this process with status 143. Process 1 of a container
/// would otherwise ignore them, and a held pod would take its whole grace period to end.
pub fn exit_on_term() {
    extern "C" fn leave(_signal: libc::c_int) {
        // SAFETY: _exit is async-signal-safe.
        unsafe { libc::_exit(143) }
    }
    let handler = leave as extern "C" fn(libc::c_int) as libc::sighandler_t;
    for signal in [libc::SIGTERM, libc::SIGINT] {
        // SAFETY: the handler does nothing but _exit, so it may interrupt anything.
        unsafe { libc::signal(signal, handler) };
    }
}
