//! Feeds `cep_fast::fuzzing::frame`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cep_fast::fuzzing::frame(bytes));
