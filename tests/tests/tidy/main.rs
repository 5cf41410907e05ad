//! What every source file keeps: lengths, parameters, calls that are not used, and the words of the glossary.

mod claims;
mod shape;
#[path = "../source/mod.rs"]
mod source;
mod words;

/// All folders with source files. Every check looks at all of them.
const FOLDERS: &[&str] = &["schemas", "engine", "transport", "src", "cli", "tests", "fuzz", "benches", "examples"];
