use proptest::prelude::*;
use sensor_common::offsets::Offsets;

use super::*;

const INT: u32 = 1;

/// Puts a blob together, type by type.
struct Blob {
    types: Vec<u8>,
    strings: Vec<u8>,
    next: u32,
}

/// Name, type and offset in bits of a member.
type Member = (&'static str, u32, u32);

impl Blob {
    fn new() -> Self {
        Self { types: Vec::new(), strings: vec![0], next: 1 }
    }

    fn string(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let at = self.strings.len() as u32;
        self.strings.extend(text.as_bytes());
        self.strings.push(0);
        at
    }

    fn words(&mut self, words: &[u32]) {
        self.types.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
    }

    /// Adds a type and returns its id; `len` is the number of its parts.
    fn ty(&mut self, name: &str, kind: u32, len: usize, size_or_type: u32) -> u32 {
        let name = self.string(name);
        self.words(&[name, kind << 24 | len as u32, size_or_type]);
        self.next += 1;
        self.next - 1
    }

    fn int(&mut self) -> u32 {
        let id = self.ty("int", INT, 0, 4);
        self.words(&[32]);
        id
    }

    fn structure(&mut self, name: &str, kind: u32, members: &[Member]) -> u32 {
        let id = self.ty(name, kind, members.len(), 64);
        for (name, ty, at) in members {
            let name = self.string(name);
            self.words(&[name, *ty, *at]);
        }
        id
    }

    fn bytes(&self) -> Vec<u8> {
        let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
        let mut bytes = MAGIC.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        for word in [HEADER_LEN as u32, 0, types, types, strings] {
            bytes.extend(word.to_ne_bytes());
        }
        [bytes, self.types.clone(), self.strings.clone()].concat()
    }
}

/// A little kernel.
fn kernel() -> Blob {
    let mut blob = Blob::new();
    let int = blob.int();
    let inner = blob.structure("inner", kind::STRUCT, &[("a", int, 0), ("b", int, 32)]);
    let alias = blob.ty("inner_t", kind::TYPEDEF, 0, inner);
    let constant = blob.ty("", kind::CONST, 0, alias);
    let hidden = blob.structure("", kind::UNION, &[("first", int, 0), ("second", constant, 0)]);
    blob.structure("outer", kind::STRUCT, &[("x", int, 0), ("", hidden, 64), ("last", constant, 192)]);
    // Bit fields: the top byte of the offset is the width.
    let bits = blob.structure("bits", kind::STRUCT, &[("field", int, 3 << 24 | 5), ("whole", int, 32)]);
    let start = blob.types.len() - 2 * 12 - 12;
    blob.types[start + 4..start + 8].copy_from_slice(&(1 << 31 | kind::STRUCT << 24 | 2).to_ne_bytes());
    assert_eq!(bits, 7);
    let name = [blob.string("ZERO"), blob.string("SEVEN")];
    blob.ty("numbers", kind::ENUM, 2, 4);
    blob.words(&[name[0], 0, name[1], 7]);
    blob.ty("wide", kind::ENUM64, 2, 8);
    let name = [blob.string("SMALL"), blob.string("LARGE")];
    blob.words(&[name[0], 5, 0, name[1], 6, 1]);
    let function = blob.ty("", kind::FUNC_PROTO, 3, 0);
    blob.words(&[0, int, 0, int, 0, int]);
    let pointer = blob.ty("", kind::PTR, 0, function);
    blob.ty("btf_trace_event", kind::TYPEDEF, 0, pointer);
    blob.ty("take", kind::FUNC, 0, function);
    // A second structure of a name, which has what the first one lacks.
    blob.structure("inner", kind::STRUCT, &[("c", int, 96)]);
    blob
}

fn check(question: &str, expected: Option<u32>) {
    let bytes = kernel().bytes();
    assert_eq!(Btf::parse(&bytes).expect("sound").resolve(question), expected, "{question}");
}

#[test]
fn members_are_found_at_their_offset() {
    check("inner.a", Some(0));
    check("inner.b", Some(4));
    check("outer.x", Some(0));
}

#[test]
fn members_of_members_are_found_through_typedefs_and_qualifiers() {
    check("outer.last", Some(24));
    check("outer.last.b", Some(28));
}

#[test]
fn members_of_nameless_members_are_found() {
    check("outer.first", Some(8));
    check("outer.second.b", Some(12));
}

#[test]
fn bit_fields_have_no_offset_and_their_neighbours_have() {
    check("bits.field", None);
    check("bits.whole", Some(4));
}

#[test]
fn values_sizes_and_parameters_are_found() {
    check("enum:numbers:ZERO", Some(0));
    check("enum:numbers:SEVEN", Some(7));
    check("enum:wide:SMALL", Some(5));
    check("sizeof:outer", Some(64));
    check("args:btf_trace_event", Some(3));
    check("args:take", Some(3));
}

#[test]
fn the_first_alternative_that_exists_counts() {
    check("outer.nothing|inner.b|inner.a", Some(4));
    check("nothing.a|enum:numbers:NONE|sizeof:inner", Some(64));
}

#[test]
fn every_structure_of_a_name_is_asked() {
    check("inner.c", Some(12));
}

#[test]
fn what_is_extracted_keeps_its_ids_and_nothing_else_its_name() {
    let bytes = kernel().bytes();
    let whole = Btf::parse(&bytes).expect("sound");
    let wanted = ["btf_trace_event", "take", "outer", "absent", "take"].map(str::to_owned);
    let bytes = whole.extract(&wanted);
    let part = Btf::parse(&bytes).expect("sound");
    for (name, of_kind) in [("btf_trace_event", kind::TYPEDEF), ("take", kind::FUNC)] {
        let ids = |btf: &Btf<'_>| -> Vec<u32> {
            let is_it = |id: &u32| {
                let ty = btf.get(*id).expect("it is a candidate");
                ty.kind() == of_kind && btf.name_is(ty.name, name)
            };
            btf.names.candidates(name).filter(is_it).collect()
        };
        assert_eq!((ids(&part), ids(&part).len()), (ids(&whole), 1), "{name}");
    }
    for name in ["outer", "inner", "numbers", "inner_t"] {
        assert_eq!(
            part.names
                .candidates(name)
                .filter(|id| part.get(*id).is_some_and(|ty| part.name_is(ty.name, name)))
                .count(),
            0
        );
    }
    let nothing = whole.extract(&[]);
    assert!(Btf::parse(&nothing).expect("sound").starts.is_empty());
}

#[test]
fn what_is_not_there_is_not_found() {
    for question in [
        "",
        ".",
        "|",
        "outer",
        "outer.",
        "outer.x.y",
        "x.y",
        "enum:numbers",
        "enum:inner:a",
        "args:inner",
        "sizeof:",
    ] {
        check(question, None);
    }
}

#[test]
fn types_that_contain_themselves_end() {
    let mut blob = Blob::new();
    let this = blob.next;
    blob.structure("loop", kind::STRUCT, &[("", this, 0), ("", this, 0), ("", this, 0)]);
    let this = blob.next;
    let circle = blob.ty("circle", kind::TYPEDEF, 0, this);
    blob.structure("user", kind::STRUCT, &[("member", circle, 0)]);
    blob.ty("btf_trace_circle", kind::TYPEDEF, 0, circle);
    let bytes = blob.bytes();
    let btf = Btf::parse(&bytes).expect("sound");
    assert_eq!(btf.resolve("loop.member"), None);
    assert_eq!(btf.resolve("user.member"), Some(0));
    assert_eq!(btf.resolve("user.member.more"), None);
    assert_eq!(btf.resolve("args:btf_trace_circle"), None);
}

#[test]
fn blobs_that_are_none_are_refused_with_the_reason() {
    let sound = kernel().bytes();
    assert_eq!(Btf::parse(b"").map(|_| ()), Err(BtfError::Header));
    assert_eq!(Btf::parse(&sound[..HEADER_LEN - 1]).map(|_| ()), Err(BtfError::Header));
    assert_eq!(Btf::parse(&sound[1..]).map(|_| ()), Err(BtfError::Header));
    assert_eq!(Btf::parse(&sound[..sound.len() - 1]).map(|_| ()), Err(BtfError::Section("string")));
    let mut foreign = sound.clone();
    foreign[..2].reverse();
    assert_eq!(Btf::parse(&foreign).map(|_| ()), Err(BtfError::Header));

    let mut blob = Blob::new();
    blob.ty("new", 25, 0, 0);
    assert_eq!(Btf::parse(&blob.bytes()).map(|_| ()), Err(BtfError::Kind { id: 1, kind: 25 }));
    let mut blob = Blob::new();
    blob.ty("short", kind::STRUCT, 2, 0);
    assert_eq!(Btf::parse(&blob.bytes()).map(|_| ()), Err(BtfError::Type(1)));
}

proptest! {
    /// Nothing in a blob makes the reader panic or hang, whatever is asked.
    #[test]
    fn hostile_bytes_do_no_harm(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..24)) {
        let mut bytes = kernel().bytes();
        for (at, byte) in changes {
            // The header stays, or nearly every blob would be refused at once.
            let at = HEADER_LEN + at.index(bytes.len() - HEADER_LEN);
            bytes[at] = byte;
        }
        if let Ok(btf) = Btf::parse(&bytes) {
            for question in ["outer.second.b", "outer.missing", "enum:wide:LARGE", "args:btf_trace_event", "sizeof:inner"] {
                std::hint::black_box(btf.resolve(question));
            }
        }
    }
}

#[test]
fn the_running_kernel_is_understood() {
    let bytes = std::fs::read(PATH).unwrap_or_else(|error| panic!("this test needs {PATH}: {error}"));
    let btf = Btf::parse(&bytes).expect("sound");
    let offsets = Offsets::resolve(|_, question| btf.resolve(question).unwrap_or(u32::MAX));
    // Facts that hold for every kernel there is.
    assert_eq!(offsets.task_tgid, offsets.task_pid + 4);
    assert_eq!(offsets.sk_rcv_saddr, offsets.sk_daddr + 4);
    assert_eq!(offsets.upid_size, 16);
    assert_eq!(offsets.sock_done_bit, 1);
    assert_eq!((offsets.sk_family, offsets.sk_dport + 2), (16, offsets.sk_num));
    assert!((2..=3).contains(&offsets.exit_args), "{}", offsets.exit_args);
    assert_eq!(btf.resolve("task_struct.no_such_member"), None);
}
