//! Feeds `cep_fast::fuzzing::master`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cep_fast::fuzzing::master(bytes));
