//! Reads the kernel's own type information (BTF) and answers where a member lies.
//!
//! The format is described in the kernel's Documentation/bpf/btf.rst. The bytes come from the kernel, but nothing here
//! relies on their being sound: every access is checked, every walk is bounded, a bad blob gives an error or "not
//! there".

use thiserror::Error;

use names::Names;

mod names;

/// Where the kernel keeps its type information.
pub const PATH: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
const HEADER_LEN: usize = 24;
/// Most members that one lookup visits; the kernel's largest structures have a few hundred.
const MEMBERS_MAX: u32 = 100_000;
/// Most typedefs and qualifiers between a member and its type.
const MODIFIERS_MAX: usize = 32;
/// Most levels of structures without a name inside each other.
const NESTING_MAX: u32 = 16;

mod kind {
    pub const PTR: u32 = 2;
    pub const STRUCT: u32 = 4;
    pub const UNION: u32 = 5;
    pub const ENUM: u32 = 6;
    pub const FWD: u32 = 7;
    pub const TYPEDEF: u32 = 8;
    pub const VOLATILE: u32 = 9;
    pub const CONST: u32 = 10;
    pub const RESTRICT: u32 = 11;
    pub const FUNC: u32 = 12;
    pub const FUNC_PROTO: u32 = 13;
    pub const TYPE_TAG: u32 = 18;
    pub const ENUM64: u32 = 19;
}

/// Why a blob is no type information.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum BtfError {
    /// It does not begin with the magic number in the byte order of this machine.
    #[error("no BTF header of this machine's byte order")]
    Header,
    /// A section lies outside of the blob.
    #[error("the {0} section lies outside of the data")]
    Section(&'static str),
    /// A type is cut off.
    #[error("type {0} is cut off")]
    Type(usize),
    /// A type is of a kind this reader does not know, so that its length is unknown.
    #[error("type {id} is of the unknown kind {kind}")]
    Kind {
        /// Which type.
        id: usize,
        /// Its kind.
        kind: u32,
    },
}

/// Type information of a kernel.
#[derive(Debug)]
pub struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Where each type begins in `types`; the first has the id 1.
    starts: Vec<u32>,
    names: Names,
}

#[derive(Clone, Copy)]
struct Type {
    at: usize,
    name: u32,
    info: u32,
    /// Size, or the type referred to.
    size_or_type: u32,
}

impl Type {
    const fn kind(self) -> u32 {
        (self.info >> 24) & 0x1f
    }

    const fn len(self) -> usize {
        (self.info & 0xffff) as usize
    }

    const fn has_bitfields(self) -> bool {
        self.info >> 31 == 1
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

impl<'a> Btf<'a> {
    /// Indexes a blob.
    ///
    /// # Errors
    /// When the blob is not well-formed.
    pub fn parse(data: &'a [u8]) -> Result<Self, BtfError> {
        let magic = data.get(..2).map(|bytes| u16::from_ne_bytes([bytes[0], bytes[1]]));
        if magic != Some(MAGIC) || data.len() < HEADER_LEN {
            return Err(BtfError::Header);
        }
        let word = |at| u32_at(data, at).map(|word| word as usize).ok_or(BtfError::Header);
        let header_len = word(4)?;
        let section = |name, at, len| {
            let start = header_len.checked_add(at).ok_or(BtfError::Section(name))?;
            let end = start.checked_add(len).ok_or(BtfError::Section(name))?;
            data.get(start..end).ok_or(BtfError::Section(name))
        };
        let types = section("type", word(8)?, word(12)?)?;
        let strings = section("string", word(16)?, word(20)?)?;

        let mut starts = Vec::with_capacity(types.len() / 48);
        let mut at = 0;
        while at < types.len() {
            let id = starts.len() + 1;
            let ty = type_at(types, at).ok_or(BtfError::Type(id))?;
            let tail = match ty.kind() {
                2 | 7..=12 | 16 | 18 => 0,
                1 | 14 | 17 => 4,
                3 => 12,
                4 | 5 | 15 | 19 => 12 * ty.len(),
                6 | 13 => 8 * ty.len(),
                kind => return Err(BtfError::Kind { id, kind }),
            };
            starts.push(u32::try_from(at).map_err(|_| BtfError::Section("type"))?);
            at += 12 + tail;
            if at > types.len() {
                return Err(BtfError::Type(id));
            }
        }
        let names = Names::index(types, strings, &starts);
        Ok(Self { types, strings, starts, names })
    }

    /// Resolves what [`sensor_common::offsets::Offsets::TABLE`] asks for: `struct.member[.member…]` gives an offset in
    /// bytes, `enum:NAME:VALUE` a value, `sizeof:TYPE` a size in bytes, `args:NAME` the number of parameters of a
    /// function or of a typedef for a pointer to one. The first
    /// of several alternatives, separated by `|`, that exists counts. `None` when the kernel has none of them.
    #[must_use]
    pub fn resolve(&self, question: &str) -> Option<u32> {
        question.split('|').find_map(|question| {
            if let Some(rest) = question.strip_prefix("enum:") {
                let (name, value) = rest.split_once(':')?;
                self.named(name, &[kind::ENUM, kind::ENUM64]).find_map(|ty| self.enumerator(ty, value))
            } else if let Some(name) = question.strip_prefix("sizeof:") {
                self.named(name, &[kind::STRUCT, kind::UNION]).next().map(|ty| ty.size_or_type)
            } else if let Some(name) = question.strip_prefix("args:") {
                self.named(name, &[kind::TYPEDEF, kind::FUNC]).find_map(|ty| self.parameters(ty))
            } else {
                let (name, path) = question.split_once('.')?;
                self.named(name, &[kind::STRUCT, kind::UNION]).find_map(|ty| self.offset(ty, path))
            }
        })
    }

    /// A blob in which the typedefs and functions of these names have the ids that they have here, and nothing else has a
    /// name: small, and quick to search for readers without an index.
    #[must_use]
    pub fn extract(&self, names: &[String]) -> Vec<u8> {
        let mut kept: Vec<(u32, &str)> = Vec::new();
        for name in names {
            let ids = self.names.candidates(name).filter(|id| {
                let found = self.get(*id).filter(|ty| matches!(ty.kind(), kind::TYPEDEF | kind::FUNC));
                found.is_some_and(|ty| self.name_is(ty.name, name))
            });
            kept.extend(ids.map(|id| (id, name.as_str())));
        }
        kept.sort_unstable();
        kept.dedup();
        let (mut types, mut strings) = (Vec::new(), vec![0]);
        for (id, name) in kept {
            // Forward declarations are as short as types are.
            let before = id as usize - 1 - types.len();
            types.extend(std::iter::repeat_n([0, kind::FWD << 24, 0], before));
            let info = self.get(id).map_or(kind::FWD << 24, |ty| ty.info);
            types.push([strings.len() as u32, info, 0]);
            strings.extend(name.bytes().chain([0]));
        }
        let types_len = (types.len() * size_of::<[u32; 3]>()) as u32;
        let mut blob = [&MAGIC.to_ne_bytes()[..], &[1, 0]].concat();
        let header = [HEADER_LEN as u32, 0, types_len, types_len, strings.len() as u32];
        blob.extend(header.iter().chain(types.as_flattened()).flat_map(|word| word.to_ne_bytes()));
        blob.extend(strings);
        blob
    }

    fn get(&self, id: u32) -> Option<Type> {
        let start = self.starts.get((id as usize).checked_sub(1)?)?;
        type_at(self.types, *start as usize)
    }

    /// Every type with this name and one of these kinds: different parts of a kernel may use a name for different things.
    fn named(&self, name: &str, kinds: &[u32]) -> impl Iterator<Item = Type> {
        let types = self.names.candidates(name).filter_map(|id| self.get(id));
        types.filter(move |ty| !name.is_empty() && kinds.contains(&ty.kind()) && self.name_is(ty.name, name))
    }

    fn name_is(&self, at: u32, name: &str) -> bool {
        let found = self.strings.get(at as usize..).and_then(|rest| rest.strip_prefix(name.as_bytes()));
        found.is_some_and(|rest| rest.first() == Some(&0))
    }

    /// Follows typedefs and qualifiers.
    fn strip(&self, id: u32) -> Option<Type> {
        let mut ty = self.get(id)?;
        for _ in 0..MODIFIERS_MAX {
            match ty.kind() {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    ty = self.get(ty.size_or_type)?;
                }
                _ => return Some(ty),
            }
        }
        None
    }

    fn offset(&self, mut ty: Type, path: &str) -> Option<u32> {
        let mut bits = 0u32;
        let mut budget = MEMBERS_MAX;
        let mut names = path.split('.').peekable();
        while let Some(name) = names.next() {
            let (at, id) = self.member(ty, name, NESTING_MAX, &mut budget)?;
            bits = bits.checked_add(at)?;
            if names.peek().is_some() {
                ty = self.strip(id)?;
            }
        }
        bits.is_multiple_of(8).then_some(bits / 8)
    }

    /// Finds a member and returns its offset in bits and its type; looks into members without a name.
    fn member(&self, ty: Type, name: &str, nesting: u32, budget: &mut u32) -> Option<(u32, u32)> {
        if !matches!(ty.kind(), kind::STRUCT | kind::UNION) || nesting == 0 || name.is_empty() {
            return None;
        }
        for index in 0..ty.len() {
            *budget = budget.checked_sub(1)?;
            let at = ty.at + 12 + 12 * index;
            let (member, id, place) = (self.word(at)?, self.word(at + 4)?, self.word(at + 8)?);
            let (width, place) =
                if ty.has_bitfields() { (place >> 24, place & 0xff_ffff) } else { (0, place) };
            if self.name_is(member, name) {
                // A bit field has no address.
                return (width == 0).then_some((place, id));
            }
            if self.name_is(member, "")
                && let Some(inner) = self.strip(id)
                && let Some((at, id)) = self.member(inner, name, nesting - 1, budget)
            {
                return Some((place.checked_add(at)?, id));
            }
        }
        None
    }

    fn enumerator(&self, ty: Type, name: &str) -> Option<u32> {
        let stride = if ty.kind() == kind::ENUM64 { 12 } else { 8 };
        (0..ty.len()).map(|index| ty.at + 12 + stride * index).find_map(|at| {
            let found = self.name_is(self.word(at)?, name);
            if found { self.word(at + 4) } else { None }
        })
    }

    fn parameters(&self, ty: Type) -> Option<u32> {
        let prototype = if ty.kind() == kind::FUNC {
            self.get(ty.size_or_type)?
        } else {
            let pointer = self.strip(ty.size_or_type).filter(|ty| ty.kind() == kind::PTR)?;
            self.strip(pointer.size_or_type)?
        };
        if prototype.kind() == kind::FUNC_PROTO { u32::try_from(prototype.len()).ok() } else { None }
    }

    fn word(&self, at: usize) -> Option<u32> {
        u32_at(self.types, at)
    }
}

fn type_at(types: &[u8], at: usize) -> Option<Type> {
    let word = |index: usize| u32_at(types, at + 4 * index);
    Some(Type { at, name: word(0)?, info: word(1)?, size_or_type: word(2)? })
}

#[cfg(test)]
#[path = "btf/tests.rs"]
mod tests;
