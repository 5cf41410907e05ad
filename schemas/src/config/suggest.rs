//! Finds the known word that an unknown word was meant to be.
#![allow(clippy::indexing_slicing, reason = "rows and columns of one table of distances")]

use std::fmt::Display;

/// The help for an unknown word: the nearest known word, or else all of them.
pub(super) fn did_you_mean(word: &str, known: &[&str], what: impl Display) -> String {
    match nearest(word, known) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!("{what}: {}", listed(known)),
    }
}

/// The known word within a third of the length in edits, ignoring case.
pub(super) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    const LONGEST: usize = 64;
    let word: Vec<char> = word.chars().take(LONGEST + 1).flat_map(char::to_lowercase).collect();
    if word.len() > LONGEST {
        return None;
    }
    let (near, edits) = known
        .iter()
        .map(|known| (*known, distance(&word, &known.chars().flat_map(char::to_lowercase).collect::<Vec<_>>())))
        .min_by_key(|(_, edits)| *edits)?;
    (edits <= (near.chars().count() / 3).max(1)).then_some(near)
}

/// Joins words for a sentence.
pub(super) fn listed(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [many @ .., last] => format!("{} and {last}", many.join(", ")),
    }
}

/// Optimal string alignment: insertions, deletions, substitutions and swapped neighbours, one edit each.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let differ = usize::from(a[i - 1] != b[j - 1]);
            row[j] = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + differ);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_misses_are_found_and_far_ones_are_not() {
        let known = ["max_delay", "max_pending", "type", "class"];
        for (word, near) in [
            ("max_dely", Some("max_delay")),
            ("max_dealy", Some("max_delay")),
            ("MAX_PENDING", Some("max_pending")),
            ("clas", Some("class")),
            ("tpye", Some("type")),
            ("snapshot", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, &known), near, "{word}");
        }
        assert_eq!(nearest(&"x".repeat(1000), &known), None);
        assert_eq!(did_you_mean("zzz", &known[2..], "the keys are"), "the keys are: type and class");
    }
}
