//! Which known name a mistyped one probably means.

/// Says which of the known names to write: the nearest one if it is near, else all of them.
#[must_use]
pub fn did_you_mean(written: &str, known: &[&str]) -> String {
    match nearest(written, known) {
        Some(name) => format!("did you mean {name:?}?"),
        None if known.is_empty() => "nothing may be written here".to_owned(),
        None => format!("known are: {}", known.join(", ")),
    }
}

/// Returns the known name with the fewest edits, if that is at most a third of its length.
fn nearest<'a>(written: &str, known: &[&'a str]) -> Option<&'a str> {
    // A name this long is no slip of the keyboard, and the comparison is quadratic.
    const MAX_LEN: usize = 64;
    if written.len() > MAX_LEN {
        return None;
    }
    known
        .iter()
        .map(|name| (edits(&written.to_lowercase(), name), *name))
        .filter(|(edits, name)| *edits <= (name.len() / 3).max(1))
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, name)| name)
}

/// Counts insertions, deletions, replacements and swaps of neighbours between two texts.
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before = vec![0; b.len() + 1];
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_keyboard_are_recognised() {
        let known = ["node", "watch", "networks", "allow", "implied_local", "lateral_ports"];
        for (written, meant) in
            [("nodes", "node"), ("wacth", "watch"), ("Allow", "allow"), ("implied-local", "implied_local")]
        {
            assert_eq!(nearest(written, &known), Some(meant), "{written}");
        }
    }

    #[test]
    fn strangers_get_the_whole_list() {
        assert_eq!(did_you_mean("tls", &["node", "watch"]), "known are: node, watch");
        assert_eq!(did_you_mean(&"x".repeat(100_000), &["node"]), "known are: node");
    }
}
