//! Feeds `cep_fast::testing::fuzzing::allow`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cep_fast::testing::fuzzing::allow(bytes));
