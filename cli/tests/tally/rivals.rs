//! Two processes with one name and one certificate.

use std::fs;
use std::time::{Duration, Instant};

use crate::support::{Mesh, Process, SOON, command, eventually};

/// Both slow down, the other nodes count one of them, and every log names both addresses in a line or two.
#[test]
fn two_processes_with_one_name_slow_down_and_one_is_counted() {
    let mesh = Mesh::running(&["n1", "n2", "n3"]);
    mesh.ask("n1", &["add", "outbound_domains", "example.com", "1"]).ok();
    mesh.ask("n2", &["add", "outbound_domains", "example.com", "10"]).ok();
    for name in ["n1", "n2", "n3"] {
        mesh.counts(name, "outbound_domains", "example.com", 11, SOON);
    }
    let lines = |name: &str| mesh.log(name).lines().count();
    let before = ["n2", "n3"].map(lines);

    // The same files on another port.
    let (first, second) = (mesh.listens("n1"), mesh.spare());
    let text = fs::read_to_string(mesh.file("n1", "hcl")).unwrap();
    let text = text.replace(&format!("listen = \"{first}\""), &format!("listen = \"{second}\""));
    fs::write(mesh.file("rival", "hcl"), text.replace("n1.sock", "rival.sock")).unwrap();
    let log = fs::File::create(mesh.path("rival.log")).unwrap();
    let mut rival = command();
    rival.args(["node", "--config", mesh.file("rival", "hcl").to_str().unwrap()]).stderr(log);
    let rival = Process::start(&mut rival);
    assert!(rival.lines.recv_timeout(SOON).unwrap().contains("serving"));
    mesh.ask("rival", &["add", "outbound_domains", "example.com", "1"]).ok();

    eventually("both have been superseded", SOON, || {
        let conflicts = ["n1", "rival"].map(|name| mesh.counter(name, "conflicts"));
        if conflicts.iter().all(|conflicts| *conflicts > 0) { Ok(()) } else { Err(format!("{conflicts:?}")) }
    });
    // For some seconds with several changes of the run, either n1 or its rival is counted, and not both.
    let (begin, mut looks, mut one) = (Instant::now(), 0, 0);
    while begin.elapsed() < Duration::from_secs(8) {
        looks += 1;
        one += u32::from(mesh.total("n2", "outbound_domains", "example.com") == 11);
    }
    assert!(one * 10 >= looks * 8, "in {one} of {looks} looks one of the two was counted");
    let conflicts = ["n1", "rival"].map(|name| mesh.counter(name, "conflicts"));
    assert!(conflicts.iter().sum::<u64>() <= 20, "{conflicts:?} changes of the run");

    let both = |line: &&str| line.contains(&first.to_string()) && line.contains(&second.to_string());
    for (name, before) in ["n2", "n3"].into_iter().zip(before) {
        let log = mesh.log(name);
        let named = log.lines().filter(both).count();
        assert!((1..=2).contains(&named), "{named} lines of {name} name both addresses:\n{log}");
        let more = log.lines().count() - before;
        assert!(more < 120, "{more} lines of {name} in some seconds:\n{log}");
    }
    for name in ["n1", "rival"] {
        let log = mesh.log(name);
        let warned = log.lines().filter(|line| line.contains("another process uses this node's name")).count();
        assert_eq!(warned, 1, "{name}:\n{log}");
    }
    // When one of them is gone, the other one is counted.
    drop(rival);
    mesh.counts("n2", "outbound_domains", "example.com", 11, Duration::from_secs(40));
}
