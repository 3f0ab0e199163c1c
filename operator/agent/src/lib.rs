//! regent-agent
