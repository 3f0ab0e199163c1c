//! L10 to L12, in both directions.
