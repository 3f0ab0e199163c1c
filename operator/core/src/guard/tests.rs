//! Rules of L13, in both directions.
