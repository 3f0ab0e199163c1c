//! regent-api
