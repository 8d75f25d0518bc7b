//! This target as a program of libFuzzer; what it promises stands in `../origins.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pousse_fuzz::fuzz::origins::run(data));
