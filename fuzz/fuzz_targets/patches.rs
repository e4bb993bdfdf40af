#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| seaway_apiserver::fuzzing::patches(data));
