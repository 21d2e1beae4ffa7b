//! What tests, benchmarks and fuzzers need, and no program has.

#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
#[cfg(feature = "stand-ins")]
pub mod stub_nodes;
