//! regent-workload
