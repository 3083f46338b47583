use super::*;

#[test]
fn placeholder_header() {
    assert_eq!(Btf::parse(b"").map(|_| ()), Err(BtfError::Header));
}
