//! The run that a run goes on from.

use sensor_core::state;

use super::super::record::Resumed;
use super::super::time::UtcTime;

impl<'a> From<&'a state::Resumed> for Resumed<'a> {
    fn from(resumed: &'a state::Resumed) -> Self {
        Self {
            run: (&resumed.run).into(),
            from: UtcTime(resumed.from.unix_ns),
            from_boot_ns: resumed.from.boot_ns,
            to: UtcTime(resumed.to.unix_ns),
            to_boot_ns: resumed.to.boot_ns,
            clean: resumed.clean,
            rebooted: resumed.rebooted,
            entries: resumed.entries,
            unreadable: resumed.unreadable,
            outdated: resumed.outdated,
        }
    }
}
