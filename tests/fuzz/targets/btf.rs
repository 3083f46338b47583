//! Type information that is not a kernel's.
#![no_main]

use libfuzzer_sys::fuzz_target;
use quaywatch::kernel::btf::Btf;
use sensor_common::offsets::Offsets;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(btf) = Btf::parse(bytes) {
        for (_, question) in Offsets::TABLE {
            let _ = std::hint::black_box(btf.resolve(question));
        }
    }
});
