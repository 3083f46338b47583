//! Finds types by name without reading all of them for each question: a kernel has more than a hundred thousand.

use super::{Type, kind, type_at};

/// Kinds that are asked for by name.
const KINDS: &[u32] = &[kind::STRUCT, kind::UNION, kind::ENUM, kind::TYPEDEF, kind::FUNC, kind::ENUM64];
/// No type: ids begin with 1.
const NONE: u32 = 0;

/// Chains of types whose names have the same hash, each in ascending order of ids.
#[derive(Debug)]
pub(super) struct Names {
    /// First id of each chain; as many as a power of two.
    heads: Vec<u32>,
    /// Next id behind each type.
    next: Vec<u32>,
}

impl Names {
    /// Indexes the types that begin at these places.
    pub(super) fn index(types: &[u8], strings: &[u8], starts: &[u32]) -> Self {
        let mut names =
            Self { heads: vec![NONE; starts.len().next_power_of_two()], next: vec![NONE; starts.len()] };
        // From the end, so that the chains ascend.
        for (index, start) in starts.iter().enumerate().rev() {
            let named = type_at(types, *start as usize).filter(|ty| KINDS.contains(&ty.kind()));
            let Some(name) = named.and_then(|ty| name_at(strings, ty)) else { continue };
            let chain = names.chain(name);
            names.next[index] = std::mem::replace(&mut names.heads[chain], index as u32 + 1);
        }
        names
    }

    /// Ids of the types that may have this name.
    pub(super) fn candidates(&self, name: &str) -> impl Iterator<Item = u32> {
        let first = self.heads[self.chain(name.bytes())];
        std::iter::successors(Some(first).filter(|id| *id != NONE), |id| {
            self.next.get(*id as usize - 1).copied().filter(|id| *id != NONE)
        })
    }

    /// The chain of a name.
    fn chain(&self, name: impl Iterator<Item = u8>) -> usize {
        // FNV-1a.
        let hash =
            name.fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        hash as usize & (self.heads.len() - 1)
    }
}

/// The bytes of a type's name, if it has one.
fn name_at(strings: &[u8], ty: Type) -> Option<impl Iterator<Item = u8>> {
    let rest = strings.get(ty.name as usize..).filter(|rest| rest.first().is_some_and(|byte| *byte != 0))?;
    Some(rest.iter().copied().take_while(|byte| *byte != 0))
}
