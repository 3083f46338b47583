//! Pieces of JSON of bounded size: what is beyond a bound is passed over, not stored.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};

/// A string, borrowed from the line unless it has escapes.
#[derive(Debug, serde::Deserialize)]
#[serde(transparent)]
pub(super) struct Str<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// Whether this can be an object: a list would do as well for the deserializer, its elements taken in the order of our
/// fields.
pub(super) fn is_object(json: &[u8]) -> bool {
    json.trim_ascii_start().first() == Some(&b'{')
}

/// The first elements of a list.
#[derive(Debug)]
pub(super) struct Few<T, const MAX: usize> {
    pub(super) items: Vec<T>,
    /// There were more.
    pub(super) cut: bool,
}

/// The last elements of a list: of the addresses of a request, those count that the client did not write.
#[derive(Debug)]
pub(super) struct Last<T, const MAX: usize> {
    pub(super) items: Vec<T>,
    /// There were more.
    pub(super) cut: bool,
}

impl<T, const MAX: usize> Default for Few<T, MAX> {
    fn default() -> Self {
        Self { items: Vec::new(), cut: false }
    }
}

impl<T, const MAX: usize> Default for Last<T, MAX> {
    fn default() -> Self {
        Self { items: Vec::new(), cut: false }
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Few<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List<T, const MAX: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for List<T, MAX> {
            type Value = Few<T, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Few::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut few = Few::default();
                while few.items.len() < MAX {
                    let Some(item) = list.next_element()? else { return Ok(few) };
                    few.items.push(item);
                }
                while list.next_element::<IgnoredAny>()?.is_some() {
                    few.cut = true;
                }
                Ok(few)
            }
        }

        deserializer.deserialize_any(List(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Last<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List<T, const MAX: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for List<T, MAX> {
            type Value = Last<T, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Last::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut last = Last::default();
                while let Some(item) = list.next_element()? {
                    if last.items.len() == MAX {
                        last.items.remove(0);
                        last.cut = true;
                    }
                    last.items.push(item);
                }
                Ok(last)
            }
        }

        deserializer.deserialize_any(List(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_cut_at_the_end_that_does_not_count() {
        let few: Few<u8, 2> = serde_json::from_str("[1,2,3,4]").expect("a list");
        assert_eq!((few.items, few.cut), (vec![1, 2], true));
        let last: Last<u8, 2> = serde_json::from_str("[1,2,3,4]").expect("a list");
        assert_eq!((last.items, last.cut), (vec![3, 4], true));
        let whole: Few<u8, 2> = serde_json::from_str("[1,2]").expect("a list");
        assert_eq!((whole.items, whole.cut), (vec![1, 2], false));
        assert!(serde_json::from_str::<Few<u8, 2>>("[1,2,\"x\"]").expect("not looked at").cut);
        assert!(serde_json::from_str::<Few<u8, 2>>("[\"x\"]").is_err());
    }

    #[test]
    fn null_is_an_empty_list_as_go_writes_it() {
        assert!(serde_json::from_str::<Few<u8, 2>>("null").expect("a list").items.is_empty());
        assert!(serde_json::from_str::<Last<u8, 2>>("null").expect("a list").items.is_empty());
        assert!(serde_json::from_str::<Few<u8, 2>>("{}").is_err());
    }
}
