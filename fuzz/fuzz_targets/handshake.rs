//! Feeds `cep_fast::testing::fuzzing::handshake`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cep_fast::testing::fuzzing::handshake(bytes));
