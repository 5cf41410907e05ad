//! The saved state of a node, and its reports when it cannot save.

use std::fs;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Resource, Rlimit, Signal};

use crate::support::{Mesh, Process, SOON, command, eventually, tally, tally_with};

const NODE: &str = "relay-0-1";

const CACHE: &str = "Datasource \"sessions\" {}\ncluster {\n  Replicate \"sessions\" {\n    type = \"cache\"\n  }\n}\ngauge_cache \"opened\" {}\n";

fn mesh(names: &[&str]) -> Mesh {
    let mesh = Mesh::new(names);
    for name in names {
        mesh.edit(name, |text| text.replacen("node {", "node {\n  data_dir = \"state\"", 1) + CACHE);
    }
    mesh
}

fn stop(mesh: &mut Mesh, name: &str) {
    mesh.process(name).signal(Signal::TERM);
    assert_eq!(mesh.process(name).code(), 0);
}

fn refused(mesh: &Mesh, name: &str) -> String {
    let config = mesh.file(name, "hcl");
    tally(&["node", "--config", config.to_str().unwrap(), "--log", "off"]).fails(2)
}

fn state(mesh: &Mesh, name: &str) -> serde_json::Value {
    let info = mesh.ask(name, &["--output", "json", "cluster", "info"]).ok();
    serde_json::from_str::<serde_json::Value>(&info).unwrap()["state"].clone()
}

#[test]
fn a_state_is_inspected_exported_and_imported() {
    let mut mesh = mesh(&[NODE]);
    mesh.start(NODE, &[]);
    for n in 0..30 {
        mesh.ask(NODE, &["cache", "set", "sessions", &format!("user:{n}"), "Ada", "--ttl", "5H"]).ok();
    }
    mesh.ask(NODE, &["cache", "del", "sessions", "user:7"]).ok();
    mesh.ask(NODE, &["gauge", "inc", "opened", "door", "4"]).ok();
    let text = mesh.ask(NODE, &["cluster", "info"]).ok();
    assert!(text.contains("saved 0 s ago") || text.contains("saved 1 s ago"), "{text}");
    let dir = mesh.path("mesh").join("state");
    let dir = dir.to_str().unwrap();
    assert!(tally(&["state", "inspect", dir]).fails(2).contains("is in use"));
    stop(&mut mesh, NODE);

    let shown = tally(&["state", "inspect", dir]).ok();
    for part in [
        "node          relay-0-1\n",
        "format        2, of protocol 2\n",
        "31 rows in 2 parts\n",
        "sessions",
        "gauge:opened",
    ] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    let csv = tally(&["--output", "csv", "state", "inspect", dir]).ok();
    assert_eq!(csv.lines().count(), 3, "{csv}");
    let exported = tally(&["state", "export", dir]).ok();
    assert_eq!(exported.lines().count(), 1 + 2 + 31);
    assert!(exported.contains("\"text\":\"user:8\""), "{exported}");

    assert!(tally_with(&["state", "import", dir], exported.as_bytes()).fails(2).contains("is there already"));
    let copy = mesh.path("copy");
    let copy = copy.to_str().unwrap();
    let cut = exported.lines().take(20).collect::<Vec<_>>().join("\n") + "\n{\"row\":{}}\n";
    let bad = tally_with(&["state", "import", copy], cut.as_bytes()).fails(2);
    assert!(bad.contains("line 21: ") && bad.contains("nothing was written"), "{bad}");
    assert!(tally(&["state", "inspect", copy]).fails(2).contains("is not there"));
    let imported = tally_with(&["state", "import", copy], exported.as_bytes()).ok();
    assert_eq!(imported, "31 rows in 2 parts\n");
    assert_eq!(tally(&["state", "export", copy]).ok(), exported);

    // A node starts with the copy.
    fs::remove_dir_all(dir).unwrap();
    fs::rename(copy, dir).unwrap();
    mesh.start(NODE, &[]);
    assert_eq!(mesh.ask(NODE, &["cache", "get", "sessions", "user:8"]).ok(), "Ada");
    mesh.ask(NODE, &["cache", "get", "sessions", "user:7"]).fails(1);
    assert_eq!(mesh.ask(NODE, &["gauge", "get", "opened", "door"]).ok().trim(), "4");
}

const LIMITS: &str = "cluster {\n  Replicate \"shared_named_throttles\" {}\n}\nlimits {\n  throttle \"mail\" {\n    rate = \"1/1h\"\n    burst = 10\n  }\n}\n";

/// Over an orderly restart, and over a restart after SIGKILL.
#[test]
fn a_soft_throttle_keeps_its_level_over_a_restart() {
    let mut mesh = mesh(&[NODE]);
    mesh.edit(NODE, |text| text + LIMITS);
    mesh.start(NODE, &[]);
    assert_eq!(mesh.ask(NODE, &["throttle", "take", "mail", "6"]).ok(), "admitted\n");
    stop(&mut mesh, NODE);
    let dir = mesh.path("mesh").join("state");
    let shown = tally(&["state", "inspect", dir.to_str().unwrap()]).ok();
    assert!(shown.contains("level:shared_named_throttles"), "{shown}");

    mesh.start(NODE, &[]);
    let listed = mesh.ask(NODE, &["cluster", "shared", "list"]).ok() + &mesh.ask(NODE, &["cache", "list"]).ok();
    assert!(!listed.contains("level:"), "the level is not shared: {listed}");
    assert!(mesh.ask(NODE, &["throttle", "take", "mail", "5"]).fails(1).contains("refused"));
    assert_eq!(mesh.ask(NODE, &["throttle", "take", "mail", "3"]).ok(), "admitted\n");
    let taken = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    eventually("it is saved", SOON, || {
        let saved = state(&mesh, NODE)["saved_ms"].as_u64().unwrap();
        if u128::from(saved) > taken + 2500 { Ok(()) } else { Err(saved.to_string()) }
    });
    mesh.kill(NODE);
    mesh.start(NODE, &[]);
    assert!(mesh.ask(NODE, &["throttle", "take", "mail", "2"]).fails(1).contains("refused"));
    assert_eq!(mesh.ask(NODE, &["throttle", "take", "mail"]).ok(), "admitted\n");
}

#[test]
fn a_node_does_not_start_with_a_state_that_is_not_its_own() {
    let mut mesh = mesh(&[NODE, "relay-0-2"]);
    mesh.start(NODE, &[]);
    let file = mesh.path("mesh").join("state/state.redb");
    let named = file.to_str().unwrap();
    // Two nodes have the same folder by mistake.
    let said = refused(&mesh, "relay-0-2");
    assert!(said.contains(&format!("the node does not start: {named} is in use")), "{said}");
    stop(&mut mesh, NODE);
    let said = refused(&mesh, "relay-0-2");
    assert!(said.contains("is the state of node relay-0-1 and not of relay-0-2: give each node its own"), "{said}");

    // The file is damaged.
    mesh.start(NODE, &[]);
    mesh.ask(NODE, &["cache", "set", "sessions", "k", "v"]).ok();
    stop(&mut mesh, NODE);
    let saved = fs::read(&file).unwrap();
    fs::write(&file, &saved[..saved.len() / 3]).unwrap();
    let said = refused(&mesh, NODE);
    assert!(said.contains(named) && said.contains("move it away"), "{said}");
    assert_eq!(fs::read(&file).unwrap().len(), saved.len() / 3, "nothing is written over it");
    fs::write(&file, "not a database\n".repeat(500)).unwrap();
    let said = refused(&mesh, NODE);
    assert!(said.contains("is no state of a node (not a database)"), "{said}");
    fs::write(&file, saved).unwrap();
    mesh.start(NODE, &[]);
    assert_eq!(mesh.ask(NODE, &["cache", "get", "sessions", "k"]).ok(), "v");
}

/// A limit of the file's size stands for a full disk: the system refuses to write.
#[test]
fn a_full_disk_is_reported_and_the_node_still_serves() {
    let mut mesh = mesh(&[NODE]);
    let log = mesh.path("full.log");
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\"", command().get_program().to_str().unwrap()]);
    shell.args(["node", "--config", mesh.file(NODE, "hcl").to_str().unwrap(), "--log", "info"]);
    let process = Process::start(shell.stderr(fs::File::create(&log).unwrap()));
    process.lines.recv_timeout(SOON).unwrap();
    let pid = Pid::from_child(&process.child);
    mesh.ask(NODE, &["cache", "set", "sessions", "before", "1"]).ok();
    eventually("it is saved", SOON, || {
        let saved = state(&mesh, NODE)["saved_ms"].as_u64().unwrap();
        if saved > 0 { Ok(()) } else { Err(saved.to_string()) }
    });
    let was =
        rustix::process::prlimit(Some(pid), Resource::Fsize, Rlimit { current: Some(4096), maximum: None }).unwrap();
    mesh.ask(NODE, &["cache", "set", "sessions", "meanwhile", &"x".repeat(60_000)]).ok();
    eventually("the trouble is reported", SOON, || {
        let state = state(&mesh, NODE);
        if state["trouble"].is_string() { Ok(()) } else { Err(state.to_string()) }
    });
    let text = mesh.ask(NODE, &["cluster", "info"]).ok();
    assert!(text.contains("not saved for ") && text.contains("File too large"), "{text}");
    mesh.ask(NODE, &["cache", "set", "sessions", "meanwhile", "2"]).ok();
    assert_eq!(mesh.ask(NODE, &["cache", "get", "sessions", "meanwhile"]).ok(), "2", "the node still serves");
    let said = fs::read_to_string(&log).unwrap();
    assert_eq!(said.matches("nothing was saved for").count(), 1, "{said}");

    rustix::process::prlimit(Some(pid), Resource::Fsize, was).unwrap();
    eventually("it is saved again", SOON, || {
        let state = state(&mesh, NODE);
        if state["trouble"].is_null() { Ok(()) } else { Err(state.to_string()) }
    });
    assert!(fs::read_to_string(&log).unwrap().contains("saved again"));
    drop(process);
    mesh.start(NODE, &[]);
    for (key, value) in [("before", "1"), ("meanwhile", "2")] {
        assert_eq!(mesh.ask(NODE, &["cache", "get", "sessions", key]).ok(), value);
    }
}
