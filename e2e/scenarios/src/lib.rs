//! regent-scenarios
