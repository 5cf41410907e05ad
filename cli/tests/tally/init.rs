//! `tally init`, `tally config check`, and nodes that do not start.

use std::fs;

use crate::support::{Mesh, command, mode, tally};

#[test]
fn init_makes_secret_files_that_only_their_owner_can_read() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("mesh");
    let dir_name = dir.to_str().unwrap();
    let said = tally(&["init", "--dir", dir_name, "--nodes", "relay-0-1,relay-0-2", "--base-port", "6001"]).ok();
    let expected = format!(
        "\
Made a cluster of 2 nodes in {dir_name}. Run each in a terminal of its own:

  tally node --config {dir_name}/relay-0-1.hcl
  tally node --config {dir_name}/relay-0-2.hcl

Then count, and ask any of them:

  tally --at {dir_name}/relay-0-1.sock add inbound_cidr 192.0.2.7
  tally --at {dir_name}/relay-0-2.sock shared show inbound_cidr

For further nodes: tally init --dir {dir_name} --add NODE
Anyone who has {dir_name}/ca.key can add nodes: do not keep it on machines that run nodes.
"
    );
    assert_eq!(said, expected);
    let mut names: Vec<_> =
        fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let nodes = ["relay-0-1", "relay-0-2"];
    let mut expected: Vec<_> =
        nodes.iter().flat_map(|node| ["hcl", "key", "pem"].map(|suffix| format!("{node}.{suffix}"))).collect();
    expected.extend(["ca.key".to_owned(), "ca.pem".to_owned()]);
    expected.sort();
    assert_eq!(names, expected);
    for name in names.iter().filter(|name| name.ends_with(".key")) {
        assert_eq!(mode(&dir.join(name)), 0o600, "{name}");
    }
    let config = fs::read_to_string(dir.join("relay-0-2.hcl")).unwrap();
    assert!(config.contains("listen = \"127.0.0.1:6002\"") && config.contains("seeds = [\"127.0.0.1:6001\"]"));

    // A second time, nothing is changed.
    let before = fs::read(dir.join("ca.key")).unwrap();
    let refused = tally(&["init", "--dir", dir_name, "--nodes", "relay-0-2,relay-0-9"]).fails(2);
    assert!(refused.contains("ca.key") && refused.contains("nothing was written"), "{refused}");
    assert_eq!(fs::read(dir.join("ca.key")).unwrap(), before);
    assert!(!dir.join("relay-0-9.hcl").exists());
}

#[test]
fn bad_arguments_of_init_are_refused_before_anything_is_written() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("mesh");
    let dir_name = dir.to_str().unwrap();
    for arguments in [
        ["--nodes", "Relay"].as_slice(),
        &["--nodes", "a,b,a"],
        &["--nodes", "ca"],
        &["--nodes", "a,b", "--base-port", "65535"],
        &["--nodes", "a", "--host", "0.0.0.0"],
        &["--add", "a"],
        &["--nodes", "a", "--add", "b"],
        &[],
    ] {
        tally(&[&["init", "--dir", dir_name], arguments].concat()).fails(2);
        assert!(!dir.exists(), "{arguments:?}");
    }
}

#[test]
fn a_node_that_is_added_later_joins_the_others() {
    let mut mesh = Mesh::running(&["relay-0-1", "relay-0-2"]);
    let dir = mesh.path("mesh");
    let added = tally(&["--output", "json", "init", "--dir", dir.to_str().unwrap(), "--add", "relay-0-3"]).ok();
    let added: serde_json::Value = serde_json::from_str(&added).unwrap();
    assert_eq!(added["nodes"][0]["node"], "relay-0-3");
    // Another process may use the port after the highest, so the system chooses a free one.
    mesh.edit("relay-0-3", |text| {
        let listen = added["nodes"][0]["listen"].as_str().unwrap();
        text.replace(&format!("listen = \"{listen}\""), "listen = \"127.0.0.1:0\"")
    });
    mesh.ask("relay-0-1", &["add", "inbound_cidr", "192.0.2.7", "3"]).ok();
    let mut node = command();
    node.args(["node", "--config", mesh.file("relay-0-3", "hcl").to_str().unwrap(), "--log", "off"]);
    let third = crate::support::Process::start(&mut node);
    assert!(third.lines.recv_timeout(crate::support::SOON).unwrap().starts_with("relay-0-3 serving on 127.0.0.1:"));
    mesh.counts("relay-0-3", "inbound_cidr", "192.0.2.7", 3, crate::support::SOON);
    mesh.process("relay-0-1").signal(rustix::process::Signal::TERM);
    assert_eq!(mesh.process("relay-0-1").code(), 0);
    assert!(!mesh.file("relay-0-1", "sock").exists());
    // It has left with a goodbye, so its counts are gone at once.
    mesh.counts("relay-0-3", "inbound_cidr", "192.0.2.7", 0, crate::support::SOON);
}

#[test]
fn config_check_reports_the_place_and_what_to_do() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("mesh.hcl");
    let name = file.to_str().unwrap();
    fs::write(&file, "cluster {\n  Replicate \"inbound_cidr\" {\n    max_dely = 0.5\n  }\n}\n").unwrap();
    let wrong = tally(&["config", "check", name]).fails(2);
    let expected = format!(
        "{name}:3:5: unknown key \"max_dely\" in Replicate \"inbound_cidr\"\n    max_dely = 0.5\n    ^ did you mean \"max_delay\"?\n"
    );
    assert_eq!(wrong, expected);
    let wrong = tally(&["--output", "json", "config", "check", name]);
    let json: serde_json::Value = serde_json::from_str(&wrong.stdout).unwrap();
    assert_eq!((wrong.code, &json["good"], &json["errors"][0]["line"]), (Some(2), &false.into(), &3.into()));
    // A node runs only with a file that has no error and has a node block.
    assert_eq!(tally(&["node", "--config", name]).fails(2), expected);

    let cache =
        "Datasource \"c\" {}\ncluster {\n  Replicate \"inbound_cidr\" {}\n  Replicate \"c\" { type = \"cache\" }\n}\n";
    fs::write(&file, cache).unwrap();
    let good = tally(&["config", "check", name]);
    assert_eq!(good.stdout, format!("{name}: good: no node; inbound_cidr, c\n"));
    assert_eq!(good.stderr, "");

    let metrics = "cluster {\n  Replicate \"metrics\" { parameters = \"audit_series\" }\n}\n";
    let series = "audit_series \"s\" {\n  type = \"string\"\n  interval = 60\n  windows = 5\n  persist = true\n}\n";
    fs::write(&file, format!("{metrics}{series}")).unwrap();
    let good = tally(&["config", "check", name]);
    assert_eq!((good.stdout, good.stderr), (format!("{name}: good: no node; no objects\n"), String::new()));
    let nothing = tally(&["node", "--config", name]).fails(2);
    assert!(nothing.contains("there is no node block"), "{nothing}");

    fs::write(&file, b"\xff").unwrap();
    assert!(tally(&["config", "check", name]).fails(2).contains("line 1 is not UTF-8"));
    fs::remove_file(&file).unwrap();
    assert!(tally(&["config", "check", name]).fails(2).contains("cannot read"));
}

#[test]
fn a_node_that_cannot_start_reports_why() {
    let mut mesh = Mesh::new(&["relay-0-1", "relay-0-2"]);
    mesh.start("relay-0-1", &[]);
    let config = mesh.file("relay-0-1", "hcl");
    let again = tally(&["node", "--config", config.to_str().unwrap(), "--log", "off"]).fails(2);
    assert!(again.contains("in use"), "{again}");

    // The certificate of another node.
    fs::copy(mesh.file("relay-0-1", "pem"), mesh.file("relay-0-2", "pem")).unwrap();
    fs::copy(mesh.file("relay-0-1", "key"), mesh.file("relay-0-2", "key")).unwrap();
    let config = mesh.file("relay-0-2", "hcl");
    let other = tally(&["node", "--config", config.to_str().unwrap(), "--log", "off"]).fails(2);
    assert!(other.contains("relay-0-1") && other.contains("relay-0-2"), "{other}");
    let filter = tally(&["node", "--config", config.to_str().unwrap(), "--log", "a=b=c"]).fails(2);
    assert!(filter.contains("log filter"), "{filter}");
}
