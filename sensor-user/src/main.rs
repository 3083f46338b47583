//! quaywatch.
fn main() {}
