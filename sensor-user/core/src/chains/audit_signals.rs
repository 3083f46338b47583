//! The signals of audit logs as stages of the built-in analytics: their list is the audit log's own.

use crate::audit::SignalName;

/// How many there are of one stage.
pub(super) const fn count(analytic: &str, stage: &str) -> usize {
    let (mut index, mut count) = (0, 0);
    while index < SignalName::ALL.len() {
        if is_of(SignalName::ALL[index], analytic, stage) {
            count += 1;
        }
        index += 1;
    }
    count
}

/// Other signals, and then those of one stage: name and meaning.
pub(super) const fn with<const N: usize>(
    others: &[(&'static str, &'static str)],
    analytic: &str,
    stage: &str,
) -> [(&'static str, &'static str); N] {
    let mut all = [("", ""); N];
    let (mut index, mut place) = (0, 0);
    while place < others.len() {
        all[place] = others[place];
        place += 1;
    }
    while index < SignalName::ALL.len() {
        let signal = SignalName::ALL[index];
        if is_of(signal, analytic, stage) {
            all[place] = (signal.name(), signal.means());
            place += 1;
        }
        index += 1;
    }
    assert!(place == N, "the array is as long as what is in it");
    all
}

const fn is_of(signal: SignalName, analytic: &str, stage: &str) -> bool {
    is_same(signal.analytic(), analytic) && is_same(signal.stage(), stage)
}

const fn is_same(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    if one.len() != other.len() {
        return false;
    }
    let mut index = 0;
    while index < one.len() {
        if one[index] != other[index] {
            return false;
        }
        index += 1;
    }
    true
}
