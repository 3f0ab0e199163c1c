//! regent-controller
