//! The bench in its shortest form: its output, for people and for programs.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{SOON, command, eventually, tally};

const MEASURES: [&str; 11] = [
    "seen_after_pause_p50",
    "seen_after_pause_p99",
    "seen_back_to_back_p50",
    "seen_back_to_back_p99",
    "sustained",
    "bytes_a_row",
    "increment_one_by_one",
    "increment_fastest",
    "join",
    "idle_processor",
    "idle_bytes",
];

#[test]
fn the_bench_measures_everything_and_describes_the_machine() {
    let ended = tally(&["bench", "--seconds", "1", "--rows", "1000", "--against-redis", "--output", "json"]);
    let without = ended.stderr.contains("redis-server is not on the PATH: measured without it");
    let report: Value = serde_json::from_str(&ended.ok()).unwrap();
    assert_eq!(report["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(report["redis"].is_null(), without, "{report}");
    assert!(report["machine"]["cores"].as_u64().unwrap() > 0);
    assert!(!report["machine"]["model"].as_str().unwrap().is_empty());
    assert_eq!((&report["seconds"], &report["rows"]), (&1.into(), &1000.into()));
    let figures = report["figures"].as_array().unwrap();
    let keys: Vec<_> = figures.iter().map(|figure| figure["key"].as_str().unwrap()).collect();
    assert_eq!(keys, MEASURES);
    for figure in figures {
        assert!(figure["tallymesh"].as_f64().unwrap() > 0.0, "{figure}");
        let compared = figure["key"] != "idle_bytes" && !without;
        assert_eq!(figure["times_better"].as_f64().is_some_and(|times| times > 0.0), compared, "{figure}");
    }
}

/// A bench that is killed leaves no server and no folder behind.
#[test]
fn a_killed_bench_leaves_no_server_behind() {
    if Command::new("redis-server").arg("--version").output().is_err() {
        eprintln!("skipped: redis-server is not on the PATH");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let there = || fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut bench = command();
    bench.args(["bench", "--seconds", "60", "--against-redis"]).env("TMPDIR", folder.path());
    let mut bench = bench.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let port = |name: &str| name.rsplit('-').next().unwrap().parse::<u16>().unwrap();
    let answers = |name: &String| TcpStream::connect((Ipv4Addr::LOCALHOST, port(name))).is_ok();
    let servers = eventually("two servers run", SOON, || {
        let servers: Vec<_> = there().collect();
        if servers.len() == 2 && servers.iter().all(answers) { Ok(servers) } else { Err(format!("{servers:?}")) }
    });
    bench.kill().unwrap();
    bench.wait().unwrap();
    eventually("nothing is left", SOON, || {
        let left: Vec<_> = there().chain(servers.iter().filter(|name| answers(name)).cloned()).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
}

#[test]
fn a_bench_of_no_length_is_refused() {
    tally(&["bench", "--seconds", "0"]).fails(2);
    tally(&["bench", "--rows", "1"]).fails(2);
}
