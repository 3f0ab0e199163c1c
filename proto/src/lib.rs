//! regent-proto
