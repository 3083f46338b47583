//! Event time.

/// A moment on both clocks: the boot clock orders events, the wall clock is for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// `CLOCK_BOOTTIME`, nanoseconds.
    pub boot_ns: u64,
    /// Nanoseconds since 1970-01-01T00:00:00Z.
    pub unix_ns: u64,
}

/// The distance between the two clocks, sampled by the shell and passed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockMap {
    /// Wall clock minus boot clock, nanoseconds.
    pub offset_ns: i64,
}

impl ClockMap {
    /// Builds the map from one simultaneous reading of both clocks.
    #[must_use]
    pub fn from_sample(now: Timestamp) -> Self {
        Self { offset_ns: now.unix_ns as i64 - now.boot_ns as i64 }
    }

    /// Places a wall-clock time on both clocks; what was before the boot is at its beginning.
    #[must_use]
    pub fn at_unix(&self, unix_ns: u64) -> Timestamp {
        let boot_ns = (unix_ns as i64).saturating_sub(self.offset_ns).max(0);
        Timestamp { boot_ns: boot_ns as u64, unix_ns }
    }

    /// Places a boot-clock time on both clocks.
    #[must_use]
    pub fn at(&self, boot_ns: u64) -> Timestamp {
        Timestamp { boot_ns, unix_ns: boot_ns.saturating_add_signed(self.offset_ns) }
    }
}
