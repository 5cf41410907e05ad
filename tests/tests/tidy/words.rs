//! Words that the glossary has replaced do not come back.

use crate::FOLDERS;
use crate::source::{files, read};

/// The table of GLOSSARY.md below this heading: the word, and the word to use.
const HEADING: &str = "## Words that are not used";

fn banned() -> Vec<(String, String)> {
    let glossary = read("GLOSSARY.md");
    let (_, table) = glossary.split_once(HEADING).expect("GLOSSARY.md lists the words");
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>());
    cells.map(|cells| (cells[0].trim_matches('`').to_owned(), cells[1].clone())).collect()
}

/// The words of a line in lower case. An identifier is several words.
fn words(line: &str) -> Vec<String> {
    let mut all = vec![String::new()];
    let mut before = ' ';
    for letter in line.chars() {
        if !letter.is_alphabetic() || (letter.is_uppercase() && before.is_lowercase()) {
            all.push(String::new());
        }
        if letter.is_alphabetic() {
            all.last_mut().unwrap().extend(letter.to_lowercase());
        }
        before = letter;
    }
    all.retain(|word| !word.is_empty());
    all
}

fn wrong(path: &str, text: &str, banned: &[(String, String)]) -> Vec<String> {
    let lines = text.lines().enumerate().flat_map(|(at, line)| words(line).into_iter().map(move |word| (at + 1, word)));
    let used = lines.filter_map(|(at, word)| {
        let (_, instead) = banned.iter().find(|(not, _)| *not == word)?;
        Some(format!("{path}:{at}: `{word}`: {instead}"))
    });
    used.collect()
}

#[test]
fn replaced_words_are_not_used() {
    let banned = banned();
    assert!(banned.len() >= 10, "{banned:?}");
    let mut paths = files(FOLDERS, "rs");
    paths.extend(files(&["docs"], "md"));
    paths.extend(["README.md", "CONTRIBUTING.md"].map(str::to_owned));
    let found: Vec<_> = paths.iter().flat_map(|path| wrong(path, &read(path), &banned)).collect();
    assert!(found.is_empty(), "{} uses:\n{}", found.len(), found.join("\n"));
}

#[test]
fn a_replaced_word_is_noticed_in_names_and_prose() {
    let (word, instead) = banned().remove(0);
    let banned = [(word.clone(), instead)];
    let capital = format!("{}{}", word[..1].to_uppercase(), &word[1..]);
    for text in [
        format!("let {word} = 1;"),
        format!("fn the_{word}_of()"),
        format!("struct Is{capital}Row"),
        format!("// A {word}."),
    ] {
        assert_eq!(wrong("a.rs", &text, &banned).len(), 1, "{text}");
    }
    assert_eq!(wrong("a.rs", &format!("x{word}y"), &banned), Vec::<String>::new());
}
