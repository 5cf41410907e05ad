//! Runs the example programs as a user runs them. `cargo test` builds them.

use std::path::PathBuf;
use std::process::Command;

fn run(example: &str) -> String {
    // Test binaries are in `deps`, examples beside it.
    let target: PathBuf = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().into();
    let program = target.join("examples").join(example);
    assert!(program.exists(), "{} is not built: cargo build --examples", program.display());
    let output = Command::new(program).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{example}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

#[test]
fn a_large_cache_is_right_on_all_nodes() {
    let said = run("large_cache");
    assert!(said.contains("converged: true"), "{said}");
    assert!(
        said.ends_with("entries that are wrong or missing, and entries: 0 of 20000; 0 of 20000; 0 of 20000\n"),
        "{said}"
    );
}

#[test]
fn three_nodes_keep_a_limit() {
    let said = run("three_nodes");
    assert!(said.ends_with("4 more were admitted under a limit of 10\n"), "{said}");
}

#[test]
fn what_was_read_through_is_read_once() {
    let said = run("read_through");
    assert!(said.ends_with("read from the database 2 times\n"), "{said}");
}
