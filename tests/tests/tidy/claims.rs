//! The page of claims: it quotes the README and the pages word for word, and names tests and commands that exist.

use std::fs;
use std::path::Path;

use crate::source::root;

/// Units of measured figures in the README.
const UNITS: [&str; 5] = [" ns", " µs", " ms", " bytes", " %"];

fn read(path: &str) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A page as one line, so that quotes may go over line ends.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The cells of the rows of all tables of a page, without the headings.
fn rows(page: &str) -> Vec<Vec<&str>> {
    let mut rows = Vec::new();
    let mut lines = page.lines().peekable();
    while let Some(line) = lines.next() {
        let is_heading = lines.peek().is_some_and(|next| next.starts_with("|---"));
        if line.starts_with("| ") && !is_heading {
            rows.push(line.trim_matches('|').split(" | ").map(str::trim).collect());
        }
    }
    rows
}

/// What stands in backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// Whether a test or a command exists.
fn exists(named: &str) -> bool {
    if let Some((file, function)) = named.split_once("::") {
        let text = fs::read_to_string(root().join(file)).unwrap_or_default();
        return text.contains(&format!("fn {function}("));
    }
    let words: Vec<_> = named.split(' ').collect();
    let after = |flag: &str| words.iter().position(|word| *word == flag).and_then(|at| words.get(at + 1));
    let package = match after("-p").copied() {
        Some("tallymesh-harness") => "tests",
        Some("tallymesh-benches") => "benches",
        _ => "cli",
    };
    let file = match (after("--bin"), after("--example")) {
        (Some(&"tally"), _) => "cli/src/main.rs".to_owned(),
        (Some(bin), _) => format!("{package}/src/bin/{bin}"),
        (_, Some(example)) => format!("{package}/examples/{example}.rs"),
        _ => return false,
    };
    words.starts_with(&["cargo", "run", "--release"])
        && [file.clone(), format!("{file}.rs")].iter().any(|file| Path::new(&root().join(file)).exists())
}

#[test]
fn claims_quote_the_pages_and_name_what_exists() {
    let (page, readme) = (read("docs/claims.md"), flat(&read("README.md")));
    let rows = rows(&page);
    assert!(rows.len() > 20, "{} claims", rows.len());
    for row in &rows {
        let (text, claim, shown) = match row[0].strip_prefix('[') {
            Some(link) => (flat(&read(&format!("docs/{}", link.split(']').next().unwrap()))), row[1], row[2]),
            None => (readme.clone(), row[0], row[1]),
        };
        assert!(claim == "the page as a whole" || text.contains(claim), "no page says: {claim}");
        let named: Vec<_> = quoted(shown).collect();
        assert!(!named.is_empty() || shown.contains("names its test"), "nothing shows: {claim}");
        for name in named {
            assert!(exists(name), "{claim}\nis shown by what does not exist: {name}");
        }
    }
}

/// Every sentence of the README's comparison with a figure is a claim, and so is every row of its table of features.
#[test]
fn the_readme_promises_nothing_else() {
    let (page, readme) = (read("docs/claims.md"), read("README.md"));
    let tables = rows(&readme);
    let features = readme.split("## What it does\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let features = rows(features);
    assert!(features.len() > 10, "{} features", features.len());
    for row in features {
        assert!(page.contains(&format!("| {} |", row[1])), "docs/claims.md lacks: {}", row[1]);
    }
    let comparison = tables.iter().filter(|row| row.len() == 2 && row[0].starts_with("**"));
    let below = readme.split("The figures come from").nth(1).unwrap().split("\n\n").next().unwrap();
    let text = comparison.map(|row| row[1].to_owned()).chain([flat(below)]).collect::<Vec<_>>().join(" ");
    let sentences = text.split(". ").map(|sentence| sentence.trim_end_matches('.'));
    let measured = sentences.filter(|sentence| UNITS.iter().any(|unit| sentence.contains(unit)));
    let mut count = 0;
    for sentence in measured {
        count += 1;
        assert!(page.contains(&format!("| {sentence}. |")), "docs/claims.md lacks: {sentence}");
    }
    assert!(count > 5, "{count} figures");
}
