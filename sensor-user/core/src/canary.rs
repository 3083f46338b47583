//! Canaries: what the sensor does in order to see itself, and what of it came back.
//!
//! Owns the identity of the acts that the shell announces, and the verdict on each sign that the probes owe for them. A
//! record is a canary's by what only the sensor can have: the socket pair it holds, the process it forked, a token drawn
//! for one exec, a cgroup made by its own process. A record that merely looks alike is an event like any other. Knows
//! nothing of what a missing sign costs; that is [`crate::coverage`].

mod identity;
mod rounds;
mod sign;

use std::sync::Arc;

use crate::fact::End;
use crate::ids::FileKey;

pub(crate) use rounds::{Canaries, Standing};
pub use sign::Sign;
pub(crate) use sign::Tallies;

/// What is done, as far as it can fail by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// A listener is opened on loopback, connected to, a byte goes each way, and everything is closed again.
    Connection,
    /// A program is executed that ends at once.
    Process,
    /// A cgroup is made and removed.
    Cgroup,
    /// A unix socket that is watched like a runtime's is connected to, and a byte goes each way.
    Socket,
    /// A file is opened that lies where credentials are looked for.
    File,
}

impl Act {
    /// Every act, in the order in which a round does them.
    pub const ALL: [Self; 5] = [Self::Connection, Self::Process, Self::Cgroup, Self::Socket, Self::File];
}

/// Both ends of the connection of one round; the sensor holds both sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The listening end. Its port belongs to the sensor for the whole run.
    pub server: End,
    /// The connecting end.
    pub client: End,
    /// Inode of the network namespace of both.
    pub netns: u32,
}

/// An act that is about to be done, and what tells its records from all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Canary {
    /// See [`Act::Connection`].
    Connection(Connection),
    /// See [`Act::Process`].
    Process {
        /// Last argument of the program: drawn for this one exec, so that nobody can know it before.
        token: Arc<str>,
    },
    /// See [`Act::Cgroup`].
    Cgroup {
        /// Its own name.
        name: Arc<str>,
    },
    /// See [`Act::Socket`].
    Socket {
        /// The file that the socket is bound to. It has no name by which anybody else could come to it.
        key: FileKey,
    },
    /// See [`Act::File`].
    File {
        /// The directory of the file. It has no name either.
        place: FileKey,
    },
}

impl Canary {
    /// What is done.
    #[must_use]
    pub const fn act(&self) -> Act {
        match self {
            Self::Connection(_) => Act::Connection,
            Self::Process { .. } => Act::Process,
            Self::Cgroup { .. } => Act::Cgroup,
            Self::Socket { .. } => Act::Socket,
            Self::File { .. } => Act::File,
        }
    }
}

/// What the shell says of a round of canaries. Said before the act, so that no record can be faster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CanaryNotice {
    /// This is about to be done.
    Begins(Canary),
    /// It could not be done, and why; nothing follows from its records.
    Failed(Act, Arc<str>),
    /// The round is over: what the probes make of it is on the rings, or will be in a moment.
    Ended,
}
