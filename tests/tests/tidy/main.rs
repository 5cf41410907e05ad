//! What every source file keeps: lengths, parameters, calls that are not used, and the words of the glossary.

mod shape;
#[path = "../source/mod.rs"]
mod source;
mod words;
