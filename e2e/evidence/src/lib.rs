//! regent-evidence
