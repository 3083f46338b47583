//! Whether the sensor is what was promised beside others: lowest on slowdown and on loss, within the noise of the same run.
//!
//! The noise is measured and not assumed: a load is run twice without any tool in every round, and how far these two differ is
//! how far two tools may differ without a meaning. Knows nothing of how anything is measured.

use std::fmt;

use crate::statistics::median_ratio;

/// A difference that is never taken for one: what the same machine gives from run to run even when it is quiet.
const NOISE_MIN: f64 = 0.01;
/// A machine on which the same load differs by more than this from itself decides nothing.
const NOISE_MAX: f64 = 0.05;

/// What was measured of one tool.
pub struct Measured<'a> {
    /// Its name.
    pub name: &'a str,
    /// Nanoseconds per iteration, for each load, round by round.
    pub times: &'a [Vec<f64>],
    /// Accepts that were made for it to tell.
    pub accepts: u64,
    /// Of these, how many it neither told nor summed up, or said that it lost.
    pub missed: u64,
}

/// What follows.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    /// It is.
    Lowest,
    /// It is not, and where.
    NotLowest(Vec<String>),
    /// The machine is too noisy to say, and on which load by how much.
    Undecided(Vec<String>),
}

impl Verdict {
    /// Exit code of the benchmark.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Lowest => 0,
            Self::NotLowest(_) => 4,
            Self::Undecided(_) => 5,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lowest => write!(f, "the lowest slowdown and the least loss of all, within the noise"),
            Self::NotLowest(where_not) => write!(f, "NOT the lowest: {}", where_not.join("; ")),
            Self::Undecided(noise) => write!(f, "UNDECIDED, the machine is too noisy: {}", noise.join("; ")),
        }
    }
}

/// How far two runs of the same load without any tool differ, for each load.
pub fn noise(bare: &[Vec<f64>], bare_again: &[Vec<f64>]) -> Vec<f64> {
    let of_load = |(one, other): (&Vec<f64>, &Vec<f64>)| (median_ratio(one, other) - 1.0).abs();
    bare.iter().zip(bare_again).map(of_load).collect()
}

/// Compares the sensor with each of the others, load by load, given the noise of each.
pub fn judge(loads: &[&str], noise: &[f64], ours: &Measured<'_>, others: &[Measured<'_>]) -> Verdict {
    let noisy: Vec<String> = loads
        .iter()
        .zip(noise)
        .filter(|(_, noise)| !is_within(**noise, NOISE_MAX))
        .map(|(load, noise)| format!("{load} differs from itself by {:.1} %", noise * 100.0))
        .collect();
    let mut slower = Vec::new();
    let mut missed = Vec::new();
    for other in others {
        for (index, (load, noise)) in loads.iter().zip(noise).enumerate() {
            let ratio = median_ratio(&ours.times[index], &other.times[index]);
            if !is_within(ratio, 1.0 + noise.max(NOISE_MIN)) {
                let percent = (ratio - 1.0) * 100.0;
                slower.push(format!(
                    "{load} is {percent:.1} % slower with {} than with {}",
                    ours.name, other.name
                ));
            }
        }
        if ours.share() > other.share() {
            missed.push(format!(
                "{} missed {} of {} accepts, {} {} of {}",
                ours.name, ours.missed, ours.accepts, other.name, other.missed, other.accepts
            ));
        }
    }
    // What is missed is missed whatever the noise; what is slow may be the machine's doing.
    if !missed.is_empty() {
        slower.append(&mut missed);
        return Verdict::NotLowest(slower);
    }
    match (noisy.is_empty(), slower.is_empty()) {
        (false, _) => Verdict::Undecided(noisy),
        (true, true) => Verdict::Lowest,
        (true, false) => Verdict::NotLowest(slower),
    }
}

/// What is not a number is within nothing.
fn is_within(value: f64, most: f64) -> bool {
    value.partial_cmp(&most).is_some_and(std::cmp::Ordering::is_le)
}

impl Measured<'_> {
    fn share(&self) -> f64 {
        self.missed as f64 / self.accepts.max(1) as f64
    }
}
