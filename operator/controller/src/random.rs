//! Randomness, from the kernel.

use regent_core::sign::Digest;
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

/// 32 random bytes. Fails only on a kernel without `getrandom(2)`.
pub fn identity() -> Result<Digest, Errno> {
    let mut bytes = [0; 32];
    let mut filled = 0;
    while filled < bytes.len() {
        filled += getrandom(&mut bytes[filled..], GetRandomFlags::empty())?;
    }
    Ok(Digest(bytes))
}
