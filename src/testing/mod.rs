//! Fixtures of tests, benchmarks and fuzzers, in no program.

#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
#[cfg(feature = "stand-ins")]
pub mod stub_nodes;
