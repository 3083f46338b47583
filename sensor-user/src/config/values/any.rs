//! Members of closed lists, each of which may be `any` of them.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use sensor_core::allow_list::Act;
use sensor_core::fact::Service;
use sensor_core::http::route::ApiClass;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{ValueError, did_you_mean, quoted};
use crate::wire::{self, Kind};

/// Either everything or one member of a closed list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnyOr<T> {
    /// `any`.
    Any,
    /// The named one.
    One(T),
}

/// `any` or a service.
pub type ServiceMatch = AnyOr<Service>;
/// `any` or a kind of record.
pub type KindMatch = AnyOr<Kind>;
/// `any` or a class of requests.
pub type ClassMatch = AnyOr<ApiClass>;
/// `any` or what a container does.
pub type ActMatch = AnyOr<Act>;

/// Gives the texts of a closed list, and `any`, their forms.
macro_rules! any_or {
    ($type:ident, $what:literal, $all:expr, $name:expr) => {
        impl FromStr for $type {
            type Err = ValueError;

            fn from_str(text: &str) -> Result<Self, ValueError> {
                if text == "any" {
                    return Ok(Self::Any);
                }
                $all.into_iter().find(|one| $name(*one) == text).map(Self::One).ok_or_else(|| {
                    let names: Vec<_> = std::iter::once("any").chain($all.map($name)).collect();
                    ValueError::new(format!("unknown {} {}", $what, quoted(text)), did_you_mean(text, &names))
                })
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    Self::Any => "any",
                    Self::One(one) => $name(*one),
                })
            }
        }

        text_value!(
            $type,
            json_schema!({"enum": std::iter::once("any").chain($all.map($name)).collect::<Vec<_>>()})
        );
    };
}

any_or!(ServiceMatch, "service", Service::ALL, Service::name);
any_or!(KindMatch, "kind of record", Kind::ALL, Kind::name);
any_or!(ClassMatch, "class of requests", ApiClass::ALL, class_name);
any_or!(ActMatch, "act", Act::ALL, Act::name);

fn class_name(class: ApiClass) -> &'static str {
    wire::ApiClass::from(class).name()
}
