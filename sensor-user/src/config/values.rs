//! Values as people write them: durations, sizes, networks, ports, names, and where in the file each was written.
//!
//! Each type refuses what it cannot mean, says why and what to write instead; the YAML reader adds line and column.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use ipnetwork::{IpNetwork, Ipv4Network};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use sensor_core::fact::{Runtime, Service};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::nearest::did_you_mean;

/// A value together with the place where the file has it. Equality and output look at the value only.
#[derive(Clone, Debug)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Line and column, both from 1; `None` for defaults and values from outside the file.
    pub position: Option<(u64, u64)>,
}

impl<T> From<T> for At<T> {
    fn from(value: T) -> Self {
        Self { value, position: None }
    }
}

impl<T: Default> Default for At<T> {
    fn default() -> Self {
        T::default().into()
    }
}

impl<T: PartialEq> PartialEq for At<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = serde_saphyr::Spanned::deserialize(deserializer)?;
        let (line, column) = (spanned.referenced.line(), spanned.referenced.column());
        Ok(Self { value: spanned.value, position: (line > 0).then_some((line, column)) })
    }
}

impl<T: Serialize> Serialize for At<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }
    fn schema_id() -> std::borrow::Cow<'static, str> {
        T::schema_id()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// Gives a type that reads from and writes to a string its serde form and its JSON Schema.
macro_rules! text_value {
    ($type:ty, $schema:expr) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    };
}

pub mod any;
pub mod times;

pub use any::{ActMatch, AnyOr, ClassMatch, KindMatch, ServiceMatch};

/// A text that does not have the form its key asks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}; {remedy}")]
pub struct ValueError {
    /// What is wrong, with the text as written.
    pub problem: String,
    /// What to write instead.
    pub remedy: String,
}

impl ValueError {
    fn new(problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { problem: problem.into(), remedy: remedy.into() }
    }
}

/// Shortens a text from outside for a message.
fn quoted(text: &str) -> String {
    const MAX: usize = 60;
    if text.chars().count() <= MAX {
        format!("{text:?}")
    } else {
        format!("{:?}…", text.chars().take(MAX).collect::<String>())
    }
}

/// Splits `10m` into number and unit.
fn number_and_unit(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// A length of time: a whole number and a unit, as in `10m` or `5ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(pub Duration);

impl Period {
    const UNITS: [(&'static str, u64); 6] = [
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1_000),
        ("ns", 1),
    ];

    /// A period of so many milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// Nanoseconds; parsing admits nothing above 64 bits.
    #[must_use]
    pub fn as_ns(&self) -> u64 {
        u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX)
    }
}

impl FromStr for Period {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        const REMEDY: &str = "write a whole number and a unit (ns, us, ms, s, m, h), as in 10m or 5ms";
        let bad = |why: &str| ValueError::new(format!("{} is not a duration: {why}", quoted(text)), REMEDY);
        let (number, unit) = number_and_unit(text);
        if number.is_empty() {
            return Err(bad("it does not start with a number"));
        }
        if unit.is_empty() {
            return Err(bad("the unit is missing"));
        }
        let (_, scale) =
            Self::UNITS.into_iter().find(|(name, _)| *name == unit).ok_or_else(|| bad("unknown unit"))?;
        let ns = number.parse::<u64>().ok().and_then(|number| number.checked_mul(scale));
        ns.map(|ns| Self(Duration::from_nanos(ns))).ok_or_else(|| bad("it is too long"))
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ns = self.as_ns();
        let (unit, scale) = Self::UNITS
            .into_iter()
            .find(|(_, scale)| ns >= *scale && ns.is_multiple_of(*scale))
            .unwrap_or(("s", 1));
        write!(f, "{}{unit}", ns / scale)
    }
}

text_value!(
    Period,
    json_schema!({"type": "string", "pattern": "^[0-9]+(ns|us|ms|s|m|h)$", "description": "A whole number and a unit: ns, us, ms, s, m, h."})
);

/// A number of bytes: a whole number and a binary unit, as in `4MiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl Size {
    const UNITS: [(&'static str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

    /// A size of so many mebibytes.
    #[must_use]
    pub const fn from_mib(mib: u64) -> Self {
        Self(mib << 20)
    }
}

impl FromStr for Size {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        const REMEDY: &str = "write a whole number and a unit (B, KiB, MiB, GiB), as in 4MiB";
        let bad = |why: &str| ValueError::new(format!("{} is not a size: {why}", quoted(text)), REMEDY);
        let (number, unit) = number_and_unit(text);
        if number.is_empty() {
            return Err(bad("it does not start with a number"));
        }
        if unit.is_empty() {
            return Err(bad("the unit is missing"));
        }
        let (_, scale) =
            Self::UNITS.into_iter().find(|(name, _)| *name == unit).ok_or_else(|| bad("unknown unit"))?;
        let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(scale));
        bytes.map(Self).ok_or_else(|| bad("it is too large"))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, scale) = Self::UNITS
            .into_iter()
            .find(|(_, scale)| self.0 >= *scale && self.0.is_multiple_of(*scale))
            .unwrap_or(("B", 1));
        write!(f, "{}{unit}", self.0 / scale)
    }
}

text_value!(
    Size,
    json_schema!({"type": "string", "pattern": "^[0-9]+(B|KiB|MiB|GiB)$", "description": "A whole number and a unit: B, KiB, MiB, GiB."})
);

/// An IPv4 or IPv6 network; a bare address is a network of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// As written, host bits included.
    written: IpNetwork,
}

impl Network {
    /// The network that is meant: host bits cleared, IPv4-mapped IPv6 as IPv4, which is how peers are compared.
    #[must_use]
    pub fn network(&self) -> IpNetwork {
        match self.written {
            IpNetwork::V6(v6) => match (v6.network().to_ipv4_mapped(), v6.prefix().checked_sub(96)) {
                (Some(v4), Some(prefix)) => Ipv4Network::new(v4, prefix).map_or(self.written, IpNetwork::V4),
                _ => masked(self.written),
            },
            IpNetwork::V4(_) => masked(self.written),
        }
    }

    /// Whether the address as written has bits set beyond the prefix, which usually is a slip.
    #[must_use]
    pub fn has_host_bits(&self) -> bool {
        self.written.ip() != self.written.network()
    }
}

fn masked(network: IpNetwork) -> IpNetwork {
    IpNetwork::new(network.network(), network.prefix()).unwrap_or(network)
}

impl FromStr for Network {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        text.parse().map(|written| Self { written }).map_err(|_| {
            let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
            let why = match address.parse::<std::net::IpAddr>() {
                Err(_) => "its address is neither IPv4 nor IPv6".to_owned(),
                Ok(ip) => {
                    let max = if ip.is_ipv4() { 32 } else { 128 };
                    format!("its prefix {} is not between 0 and {max}", quoted(prefix.unwrap_or_default()))
                }
            };
            ValueError::new(
                format!("{} is not a network: {why}", quoted(text)),
                "write an address or address/prefix, as in 10.20.0.0/16 or \"fd00::/8\"",
            )
        })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let single = if self.written.is_ipv4() { 32 } else { 128 };
        if self.written.prefix() == single { self.written.ip().fmt(f) } else { self.written.fmt(f) }
    }
}

text_value!(
    Network,
    json_schema!({"type": "string", "description": "An IPv4 or IPv6 address or network, as in 10.20.0.0/16 or fd00::/8."})
);

/// A management service by its name in the closed list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceName(pub Service);

impl FromStr for ServiceName {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        Service::from_name(text).map(Self).ok_or_else(|| {
            let names = Service::ALL.map(Service::name);
            ValueError::new(format!("unknown service {}", quoted(text)), did_you_mean(text, &names))
        })
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

text_value!(ServiceName, json_schema!({"enum": Service::ALL.map(Service::name)}));

/// A runtime by its name in the closed list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuntimeName(pub Runtime);

impl RuntimeName {
    /// Those that listen on a socket.
    const SERVERS: [Runtime; 4] = [Runtime::Docker, Runtime::Containerd, Runtime::Crio, Runtime::Podman];
}

impl FromStr for RuntimeName {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let runtime = Runtime::from_name(text).filter(|runtime| Self::SERVERS.contains(runtime));
        runtime.map(Self).ok_or_else(|| {
            let names = Self::SERVERS.map(Runtime::name);
            ValueError::new(format!("unknown runtime {}", quoted(text)), did_you_mean(text, &names))
        })
    }
}

impl fmt::Display for RuntimeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

text_value!(RuntimeName, json_schema!({"enum": Self::SERVERS.map(Runtime::name)}));
