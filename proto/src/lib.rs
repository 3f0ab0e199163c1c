//! Regent's wire: generated gRPC types, and the wall between them and the domain.
//!
//! Generated types stay at the edge: [`convert`] turns them into the types of
//! `regent-core`, or says which field is wrong.

pub mod convert;

/// Regent's own services and messages (`regent.v1`).
#[allow(missing_docs, clippy::all)]
pub mod v1 {
    tonic::include_proto!("regent.v1");
}

/// The part of the Container Storage Interface that the guard serves (`csi.v1`).
#[allow(missing_docs, clippy::all)]
pub mod csi {
    tonic::include_proto!("csi.v1");
}

/// The kubelet's plugin registration (`pluginregistration`).
#[allow(missing_docs, clippy::all)]
pub mod registration {
    tonic::include_proto!("pluginregistration");
}
