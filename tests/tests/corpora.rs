//! Replays the corpora: every input that fuzzing kept because it reached something new, and every one that once failed.

use std::fs;
use std::path::{Path, PathBuf};

use tallymesh_fuzz::TARGETS;

fn corpora() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus")
}

/// The inputs of a target, in order of name.
fn inputs(target: &str) -> Vec<PathBuf> {
    let folder = corpora().join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut inputs: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    inputs.sort();
    inputs
}

#[test]
fn what_fuzzing_found_passes() {
    for (target, run) in TARGETS {
        let inputs = inputs(target);
        assert!(inputs.len() >= 10, "{target} has {} inputs", inputs.len());
        for input in inputs {
            let bytes = fs::read(&input).unwrap();
            let passed = std::panic::catch_unwind(|| run(&bytes));
            assert!(
                passed.is_ok(),
                "{} fails: `cargo fuzz run -s none --features libfuzzer {target} {}`",
                input.display(),
                input.display()
            );
        }
    }
}

#[test]
fn every_corpus_has_a_target() {
    let names: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
    for entry in fs::read_dir(corpora()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(names.contains(&name.as_str()), "{name} is the corpus of no target");
    }
}

/// They are part of the repository, and stay small.
#[test]
fn the_corpora_are_small() {
    let mut bytes = 0;
    for (target, _) in TARGETS {
        let inputs = inputs(target);
        assert!(inputs.len() < 200, "{target} has {} inputs: docs/fuzzing.md says how to choose", inputs.len());
        bytes += inputs.iter().map(|input| fs::metadata(input).unwrap().len()).sum::<u64>();
    }
    assert!(bytes < 300_000, "{bytes} bytes");
}
