//! regent-core
