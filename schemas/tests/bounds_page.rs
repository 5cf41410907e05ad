//! docs/bounds.md names every bound, with its value, and what is lost at those that a running node reports.

use tallymesh_schemas::Bound;

const PAGE: &str = include_str!("../../docs/bounds.md");

/// Lines `pub const NAME: TYPE = VALUE;` of a file of bounds.
fn constants(text: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    text.lines().filter_map(|line| {
        let (_, constant) = line.strip_prefix("pub").and_then(|rest| rest.split_once("const "))?;
        let (name, rest) = constant.split_once(": ")?;
        let (_, value) = rest.split_once(" = ")?;
        Some((name, value.trim_end_matches(';')))
    })
}

#[test]
fn every_constant_has_a_line_with_its_value() {
    let files = [include_str!("../src/bounds.rs"), include_str!("../../transport/src/bounds.rs")];
    let mut count = 0;
    for (name, value) in files.into_iter().flat_map(constants) {
        let line = format!("| `{name}` | `{value}` | ");
        assert!(PAGE.contains(&line), "docs/bounds.md has no line that begins with {line}");
        count += 1;
    }
    assert!(count > 80, "{count} constants were found");
}

#[test]
fn every_reported_bound_states_its_effect() {
    for bound in Bound::ALL {
        let line = format!("| {} | {} |", bound.name(), bound.effect());
        assert!(PAGE.contains(&line), "docs/bounds.md has no line {line}");
        let shown = format!("bound `{}`", bound.name());
        let own = bound == Bound::Seats;
        assert!(own || PAGE.contains(&shown), "no constant of docs/bounds.md is shown as {shown}");
    }
}
