//! regent-guard
