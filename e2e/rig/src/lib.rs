//! regent-rig
