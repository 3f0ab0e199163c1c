//! The judge of a failover: typed evidence, and a verdict that anybody can recompute.
//!
//! A recording is a directory of raw evidence; every `_ns` is CLOCK_BOOTTIME of the machine.
//!
//! ```text
//!   journal/SITE-POD.jsonl   what each pod executed      ─┐
//!   sink/SITE.jsonl          what left each pod           │
//!   client.jsonl             what a customer saw          ├──> judge ──> report.json
//!   audit/SITE.jsonl         what the API servers did     │         └──> timeline
//!   events.jsonl             what everybody says they did ─┘
//! ```
//!
//! The crate shares no code with Regent. It fails whatever it can't see: a file that is missing,
//! a journal with a hole, a fault that nobody recorded are reasons to fail, never a pass.

pub mod clock;
pub mod epoch;
pub mod error;
pub mod event;
pub mod judge;
pub mod load;
pub mod merge;
pub mod records;
pub mod report;
pub mod scenario;
pub mod spans;
pub mod stats;
pub mod timeline;

pub use epoch::Epoch;
pub use error::EvidenceError;
pub use event::{Actor, Event, Kind, boot_ns};
pub use judge::judge;
pub use load::Evidence;
pub use report::{Report, Verdict};
pub use scenario::Scenario;
