//! regent-demo
