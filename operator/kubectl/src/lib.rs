//! kubectl-regent
