//! Configuration files: refused with the place, or accepted; what is accepted becomes settings.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use quaywatch::config::{Overrides, load_bytes};

fuzz_target!(|bytes: &[u8]| {
    let load = |bytes: &[u8]| {
        load_bytes(Path::new("quaywatch.yaml"), bytes, std::iter::empty(), &Overrides::default())
    };
    match load(bytes) {
        Ok(loaded) => assert_eq!(loaded.settings.policy.ports.is_empty(), loaded.file.watch.ports.is_empty()),
        Err(invalid) => {
            assert!(!invalid.problems.is_empty(), "a refusal says why");
            for problem in invalid.problems {
                assert!(problem.to_string().contains("quaywatch.yaml"), "a problem names the file");
            }
        }
    }
});
