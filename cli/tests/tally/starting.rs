//! The saved state of a node at its start, and when its folder disappears.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal};
use tallymesh_schemas::admin::{self, Request};
use tallymesh_schemas::frame;

use crate::support::{Mesh, Process, SOON, command, eventually};

const NODE: &str = "relay-0-1";

const CACHE: &str = "Datasource \"sessions\" {}\ncluster {\n  Replicate \"sessions\" {\n    type = \"cache\"\n  }\n}\n";

fn mesh() -> Mesh {
    let mesh = Mesh::new(&[NODE]);
    mesh.edit(NODE, |text| text.replacen("node {", "node {\n  data_dir = \"state\"", 1) + CACHE);
    mesh
}

fn state_dir(mesh: &Mesh) -> PathBuf {
    mesh.path("mesh").join("state")
}

fn state(mesh: &Mesh) -> serde_json::Value {
    let info = mesh.ask(NODE, &["--output", "json", "cluster", "info"]).ok();
    serde_json::from_str::<serde_json::Value>(&info).unwrap()["state"].clone()
}

fn log(mesh: &Mesh) -> String {
    fs::read_to_string(mesh.path(&format!("{NODE}.log"))).unwrap()
}

/// Waits until the earlier writes are saved.
fn saved(mesh: &Mesh) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    eventually("it is saved", SOON, || {
        let state = state(mesh);
        if u128::from(state["saved_ms"].as_u64().unwrap()) > now { Ok(()) } else { Err(state.to_string()) }
    });
}

fn troubled(mesh: &Mesh, part: &str) {
    eventually("the trouble is reported", SOON, || {
        let state = state(mesh);
        let reported = state["trouble"].as_str().is_some_and(|trouble| trouble.contains(part));
        if reported { Ok(()) } else { Err(state.to_string()) }
    });
}

fn stop(mesh: &mut Mesh) -> i32 {
    mesh.process(NODE).signal(Signal::TERM);
    mesh.process(NODE).code()
}

/// Sets or removes many keys over one connection.
fn each_key(mesh: &Mesh, keys: std::ops::Range<usize>, value: Option<&[u8]>) {
    let mut stream = UnixStream::connect(mesh.file(NODE, "sock")).unwrap();
    for key in keys {
        let (cache, key) = ("sessions".to_owned(), format!("key-{key}"));
        let request = match value {
            Some(value) => Request::CacheSet { cache, key, value: value.to_vec(), ttl: Duration::ZERO },
            None => Request::CacheRemove { cache, key },
        };
        let payload = admin::encode(&request).unwrap();
        stream.write_all(&[&frame::header(payload.len()).unwrap()[..], &payload].concat()).unwrap();
        let mut header = [0; frame::HEADER_BYTES];
        stream.read_exact(&mut header).unwrap();
        let mut answer = vec![0; frame::payload_len(header).unwrap()];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(admin::decode::<admin::Answer>(&answer).unwrap(), admin::Answer::Done);
    }
}

/// A figure of a process's memory, in KiB.
fn memory(mesh: &mut Mesh, figure: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", mesh.process(NODE).child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(figure)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
}

/// A node at its limit of memory is not killed for starting again.
#[test]
fn a_start_takes_little_more_memory_than_the_node_needs() {
    const ROWS: usize = 12_000;
    let mut mesh = mesh();
    mesh.start(NODE, &[]);
    each_key(&mesh, 0..ROWS, Some(&[7; 8000]));
    saved(&mesh);
    let needed = memory(&mut mesh, "VmRSS");
    assert_eq!(stop(&mut mesh), 0);
    mesh.start(NODE, &[]);
    let taken = memory(&mut mesh, "VmHWM");
    let held = mesh.ask(NODE, &["--output", "csv", "cache", "list"]).ok();
    assert!(held.contains(&format!(",{ROWS},")), "{held}");
    println!("a start took {taken} KiB, the node needs {needed} KiB");
    assert!(taken * 10 <= needed * 13, "a start took {taken} KiB, the node needs {needed} KiB");
}

#[test]
fn the_file_shrinks_when_most_of_it_is_free() {
    let mut mesh = mesh();
    mesh.start(NODE, &[]);
    each_key(&mesh, 0..6000, Some(&[7; 8000]));
    saved(&mesh);
    // The remaining entries are spread over the file.
    for key in (0..6000).step_by(60) {
        each_key(&mesh, key + 1..key + 60, None);
    }
    saved(&mesh);
    assert_eq!(stop(&mut mesh), 0);
    let file = state_dir(&mesh).join("state.redb");
    let before = fs::metadata(&file).unwrap().len();
    mesh.start(NODE, &[]);
    let after = fs::metadata(&file).unwrap().len();
    println!("{before} bytes before, {after} after");
    assert!(before > 40 << 20 && after < 12 << 20, "{before} bytes before, {after} after");
    assert!(log(&mesh).contains("gave back what the state had free"), "{}", log(&mesh));
    let held = mesh.ask(NODE, &["--output", "csv", "cache", "list"]).ok();
    assert!(held.contains(",100,"), "{held}");
}

#[test]
fn a_folder_that_is_gone_is_noticed_and_the_node_ends_with_an_error() {
    let mut mesh = mesh();
    mesh.start(NODE, &[]);
    saved(&mesh);
    // Nothing is written meanwhile: the node checks the file by itself.
    fs::remove_dir_all(state_dir(&mesh)).unwrap();
    troubled(&mesh, "is gone: its folder was deleted");
    assert!(mesh.ask(NODE, &["cluster", "info"]).ok().contains("not saved for "));
    let log = log(&mesh);
    assert!(log.contains("ERROR") && log.contains("is gone"), "{log}");
    mesh.ask(NODE, &["cache", "set", "sessions", "k", "v"]).ok();
    assert_eq!(mesh.ask(NODE, &["cache", "get", "sessions", "k"]).ok(), "v", "serving goes on");
    assert_eq!(stop(&mut mesh), 3);
}

#[test]
fn a_folder_that_was_replaced_is_noticed_and_one_that_comes_back_is_used_again() {
    let mut mesh = mesh();
    mesh.start(NODE, &[]);
    mesh.ask(NODE, &["cache", "set", "sessions", "before", "1"]).ok();
    saved(&mesh);
    let (dir, aside) = (state_dir(&mesh), mesh.path("aside"));
    fs::rename(&dir, &aside).unwrap();
    fs::create_dir(&dir).unwrap();
    fs::copy(aside.join("state.redb"), dir.join("state.redb")).unwrap();
    let copy = fs::read(dir.join("state.redb")).unwrap();
    troubled(&mesh, "is another file than the one that this node opened");
    mesh.ask(NODE, &["cache", "set", "sessions", "meanwhile", "2"]).ok();
    assert_eq!(fs::read(dir.join("state.redb")).unwrap(), copy, "nothing is written into the other one");

    fs::remove_dir_all(&dir).unwrap();
    fs::rename(&aside, &dir).unwrap();
    eventually("it is saved again", SOON, || {
        let state = state(&mesh);
        if state["trouble"].is_null() { Ok(()) } else { Err(state.to_string()) }
    });
    saved(&mesh);
    mesh.kill(NODE);
    mesh.start(NODE, &[]);
    for (key, value) in [("before", "1"), ("meanwhile", "2")] {
        assert_eq!(mesh.ask(NODE, &["cache", "get", "sessions", key]).ok(), value);
    }
    assert_eq!(stop(&mut mesh), 0);
}

/// Flips a bit of one byte after another, until the newest commit does not pass its check at a restart. Returns the report of
/// the node.
fn roll_back(mesh: &mut Mesh, saved_file: &[u8], marker: &[u8]) -> serde_json::Value {
    let file = state_dir(mesh).join("state.redb");
    let at = saved_file.windows(marker.len()).rposition(|bytes| bytes == marker).unwrap();
    let mut damaged = saved_file.to_vec();
    damaged[at] ^= 1;
    fs::write(&file, damaged).unwrap();
    mesh.start(NODE, &[]);
    state(mesh)["rolled_back"].clone()
}

#[test]
fn a_commit_that_a_flipped_bit_destroys_is_reported() {
    let mut mesh = mesh();
    mesh.start(NODE, &[]);
    mesh.ask(NODE, &["cache", "set", "sessions", "first", "1"]).ok();
    saved(&mesh);
    mesh.ask(NODE, &["cache", "set", "sessions", "second", "the-newest-value"]).ok();
    saved(&mesh);
    mesh.kill(NODE);
    let (saved_file, log_before) = (fs::read(state_dir(&mesh).join("state.redb")).unwrap(), log(&mesh).len());
    let rolled_back = roll_back(&mut mesh, &saved_file, b"the-newest-value");
    mesh.ask(NODE, &["cache", "get", "sessions", "second"]).fails(1);
    assert_eq!(mesh.ask(NODE, &["cache", "get", "sessions", "first"]).ok(), "1");
    assert!(rolled_back["commits"].as_u64().unwrap() >= 1, "{rolled_back}");
    assert!(rolled_back["restored_ms"].as_u64().unwrap() < rolled_back["last_ms"].as_u64().unwrap(), "{rolled_back}");
    let info = mesh.ask(NODE, &["cluster", "info"]).ok();
    assert!(info.contains("state is older") && info.contains("started with the commit of 20"), "{info}");
    let log = &log(&mesh)[log_before..];
    assert!(log.contains("ERROR") && log.contains("the newest commits of the state are damaged"), "{log}");

    // It is a new run, and its next save is the last commit from now on.
    mesh.ask(NODE, &["cache", "set", "sessions", "third", "3"]).ok();
    saved(&mesh);
    mesh.kill(NODE);
    mesh.start(NODE, &[]);
    assert_eq!(mesh.ask(NODE, &["cache", "get", "sessions", "third"]).ok(), "3");
    assert!(state(&mesh)["rolled_back"].is_null(), "{}", state(&mesh));
}

#[test]
fn a_kill_is_no_roll_back() {
    let mut mesh = mesh();
    for round in 0..3 {
        mesh.start(NODE, &[]);
        assert!(state(&mesh)["rolled_back"].is_null(), "{}", state(&mesh));
        each_key(&mesh, 0..50, Some(format!("{round}").as_bytes()));
        mesh.kill(NODE);
    }
}

/// Starts a node whose files must not exceed a size: the system refuses writes as on a full disk.
fn start_without_room(mesh: &Mesh, bytes: u64) -> Process {
    let mut shell = Command::new("sh");
    let tally = command().get_program().to_str().unwrap().to_owned();
    // The blocks of the shell have 512 bytes.
    shell.args(["-c", &format!("trap '' XFSZ; ulimit -S -f {}; exec \"$0\" \"$@\"", bytes / 512), &tally]);
    shell.args(["node", "--config", mesh.file(NODE, "hcl").to_str().unwrap(), "--log", "info"]);
    let log = fs::File::create(mesh.path("full.log")).unwrap();
    Process::start(shell.stderr(log))
}

fn make_room(process: &Process) {
    let unlimited = Rlimit { current: None, maximum: None };
    rustix::process::prlimit(Some(Pid::from_child(&process.child)), Resource::Fsize, unlimited).unwrap();
}

fn serve_without_room(mesh: &Mesh) {
    mesh.edit(NODE, |text| text.replacen("node {", "node {\n  on_full_disk = \"serve\"", 1));
}

fn full_log(mesh: &Mesh) -> String {
    let text = |path: &Path| fs::read_to_string(path).unwrap();
    text(&mesh.path("full.log"))
}

#[test]
fn a_node_that_starts_on_a_full_disk_reports_what_to_do() {
    let mesh = mesh();
    assert_eq!(start_without_room(&mesh, 4096).code(), 2);
    let said = full_log(&mesh);
    for part in ["state.redb", "File too large", "make room and start again", "on_full_disk = \"serve\""] {
        assert!(said.contains(part), "{part} in {said}");
    }
}

#[test]
fn a_node_may_serve_on_a_full_disk_and_saves_when_there_is_room() {
    let mut mesh = mesh();
    serve_without_room(&mesh);
    // First without a state, and then with one.
    for (before, after) in [(None, "first"), (Some("first"), "second")] {
        let process = start_without_room(&mesh, 4096);
        let line = process.lines.recv_timeout(SOON);
        assert!(line.is_ok(), "{}", full_log(&mesh));
        troubled(&mesh, "File too large");
        assert!(full_log(&mesh).contains("nothing was saved for"), "{}", full_log(&mesh));
        if let Some(before) = before {
            assert_eq!(mesh.ask(NODE, &["cache", "get", "sessions", before]).ok(), "1");
        }
        mesh.ask(NODE, &["cache", "set", "sessions", after, "1"]).ok();
        make_room(&process);
        eventually("it is saved", SOON, || {
            let state = state(&mesh);
            if state["trouble"].is_null() { Ok(()) } else { Err(state.to_string()) }
        });
        saved(&mesh);
        drop(process);
    }
    mesh.start(NODE, &[]);
    for key in ["first", "second"] {
        assert_eq!(mesh.ask(NODE, &["cache", "get", "sessions", key]).ok(), "1");
    }
}
