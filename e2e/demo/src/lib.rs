//! A whole federation on one machine, and what can be done to it: the demo, and the
//! ground on which the scenario tests stand.
//!
//! ```text
//!  Federation (rig + Regent, installed as a user would)
//!     └─ Group (the shop, protected)
//!          └─ play(scenario): Recording -> evidence on disk -> Report
//! ```

pub mod federation;
pub mod group;
pub mod record;
pub mod scenario;
pub mod screen;
pub mod tail;
