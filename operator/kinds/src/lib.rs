//! What of a group's objects travels to a standby, as what, and when it is ready there.
//!
//! ```text
//!   home:     listing --select--> settle, pin --> strip --> Bundle --signed--> standbys
//!   standby:  Bundle --admit--> derive --> copies --> pods held by their gates --ready--> report
//!                                             |
//!                                             +--putback--> home's own settings, when they run
//!   holder:   copies --differ--> what people changed --amend--> Amendment --signed--> other standbys
//! ```
//!
//! Every decision about objects is here, as functions of objects: nothing is read, written or
//! asked for. The operator's rooms `mirror` and `standby` list, apply and delete what these
//! functions say.

pub mod admit;
pub mod amend;
pub mod bundle;
pub mod copies;
pub mod derive;
pub mod differ;
mod fold;
pub mod gate;
mod images;
pub mod kind;
pub mod managed;
mod marks;
pub mod needs;
pub mod object;
pub mod owners;
pub mod pin;
pub mod pods;
pub mod pointer;
pub mod putback;
mod reach;
pub mod release;
pub mod report;
pub mod rest;
pub mod roll;
pub mod select;
pub mod settle;
pub mod stamp;
pub mod strip;
mod template;
pub mod tries;
