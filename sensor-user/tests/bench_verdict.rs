//! The verdict of `cargo xtask bench peers`; its unit tests run here, because the benchmark is no test.

#[path = "../benches/cost/statistics.rs"]
mod statistics;
#[path = "../benches/cost/verdict.rs"]
mod verdict;

use verdict::{Measured, Verdict, judge, noise};

const LOADS: [&str; 2] = ["tcp", "exec"];

fn times(tcp: f64, exec: f64) -> Vec<Vec<f64>> {
    vec![vec![tcp; 4], vec![exec; 4]]
}

/// The verdict on these times and losses, given one other tool at 100 on both loads that missed one of a hundred.
fn verdict(noise: [f64; 2], tcp: f64, exec: f64, missed: u64) -> Verdict {
    let (ours, other) = (times(tcp, exec), times(100.0, 100.0));
    let ours = Measured { name: "ours", times: &ours, accepts: 1000, missed };
    let other = Measured { name: "other", times: &other, accepts: 100, missed: 1 };
    judge(&LOADS, &noise, &ours, &[other])
}

#[test]
fn whoever_is_no_slower_beyond_the_noise_and_misses_no_more_is_lowest() {
    assert_eq!(verdict([0.0, 0.0], 90.0, 100.0, 0), Verdict::Lowest);
    assert_eq!(
        verdict([0.0, 0.0], 101.0, 100.0, 10),
        Verdict::Lowest,
        "one per cent says nothing, and the share is the same"
    );
    assert_eq!(verdict([0.04, 0.0], 103.0, 100.0, 0), Verdict::Lowest, "so much differs by itself");
}

#[test]
fn whoever_is_slower_on_one_load_is_not() {
    let found = verdict([0.0, 0.0], 90.0, 103.0, 0);
    assert_eq!(found, Verdict::NotLowest(vec!["exec is 3.0 % slower with ours than with other".to_owned()]));
    assert_eq!(found.exit_code(), 4);
    // The noise of one load is no excuse on another.
    assert!(matches!(verdict([0.04, 0.0], 90.0, 103.0, 0), Verdict::NotLowest(_)));
    // What was not measured is not the lowest.
    assert!(matches!(verdict([0.0, 0.0], f64::NAN, 100.0, 0), Verdict::NotLowest(_)));
}

#[test]
fn whoever_misses_more_is_not_whatever_the_noise() {
    let missed = "ours missed 11 of 1000 accepts, other 1 of 100".to_owned();
    assert_eq!(verdict([0.0, 0.0], 90.0, 90.0, 11), Verdict::NotLowest(vec![missed.clone()]));
    assert_eq!(verdict([0.5, 0.0], 90.0, 90.0, 11), Verdict::NotLowest(vec![missed]));
}

#[test]
fn a_machine_that_differs_from_itself_decides_nothing() {
    for noisy in [0.06, f64::NAN] {
        let found = verdict([noisy, 0.0], 90.0, 90.0, 0);
        assert!(matches!(found, Verdict::Undecided(_)), "{found}");
        assert_eq!(found.exit_code(), 5);
    }
}

#[test]
fn noise_is_how_far_the_median_of_the_rounds_is_from_one() {
    let (one, other) = (times(100.0, 100.0), times(98.0, 104.0));
    let found = noise(&one, &other);
    assert!((found[0] - 0.0204).abs() < 1e-3 && (found[1] - 0.0385).abs() < 1e-3, "{found:?}");
}
