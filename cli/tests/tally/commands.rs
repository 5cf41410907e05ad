//! Each command against a running node: its output and its exit code.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use crate::support::{Mesh, Process, SOON, command, eventually, tally};
use rustix::process::Signal;
use tallymesh_schemas::admin::{self, Answer, Request};
use tallymesh_schemas::bounds::PROTOCOL_VERSION;
use tallymesh_schemas::frame;

#[test]
fn counting_and_asking() {
    let mesh = Mesh::running(&["relay-0-1", "relay-0-2"]);
    assert_eq!(mesh.ask("relay-0-1", &["add", "inbound_cidr", "192.0.2.7"]).ok(), "");
    mesh.ask("relay-0-1", &["add", "inbound_cidr", "192.0.2.9", "5"]).ok();
    mesh.ask("relay-0-1", &["add", "inbound_cidr", "192.0.2.9", "-2"]).ok();
    mesh.ask("relay-0-1", &["add", "inbound_cidr", "2001:db8::25"]).ok();
    mesh.ask("relay-0-1", &["add", "outbound_domains", "Example.COM."]).ok();
    mesh.ask("relay-0-1", &["add", "outbound_binding", "pool-a/example.com", "2"]).ok();
    mesh.counts("relay-0-2", "inbound", "192.0.2.0/24", 4, SOON);
    mesh.counts("relay-0-2", "inbound", "::/0", 1, SOON);
    mesh.counts("relay-0-2", "outbound_domains", "example.com", 1, SOON);
    mesh.counts("relay-0-2", "outbound_binding_domains", "pool-a/example.com", 2, SOON);
    let count = mesh.ask("relay-0-2", &["count", "inbound_cidr", "192.0.2.9"]).ok();
    let lines: Vec<_> = count.lines().collect();
    assert_eq!(lines[0], "        total    this node    actors     stalest");
    assert!(lines[1].starts_with("            3            0         2"), "{count}");
    let csv = mesh.ask("relay-0-2", &["count", "inbound_cidr", "192.0.2.9", "--output", "csv"]).ok();
    assert!(csv.starts_with("total,local,actors,stalest_ms\n3,0,2,"), "{csv}");

    assert_eq!(mesh.ask("relay-0-2", &["cluster", "nodename"]).ok(), "relay-0-2\n");
    let json = mesh.ask("relay-0-2", &["--output", "json", "cluster", "nodename"]).ok();
    assert_eq!(json, "{\"node\":\"relay-0-2\"}\n");
    let address = mesh.ask("relay-0-2", &["cluster", "nodeaddr"]).ok();
    let info = mesh.ask("relay-0-2", &["--output", "json", "cluster", "info"]).ok();
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    assert_eq!(info["advertised"], address.trim_end());
    assert_eq!((&info["alive"], &info["links"], &info["protocol"]), (&2.into(), &1.into(), &PROTOCOL_VERSION.into()));
    assert!(mesh.ask("relay-0-2", &["cluster", "info"]).ok().lines().next().unwrap().ends_with(" relay-0-2"));

    let members = mesh.ask("relay-0-2", &["cluster", "membership"]).ok();
    let blocks: Vec<_> = members.split("\n\n").collect();
    assert_eq!(blocks.len(), 2, "{members}");
    let lines: Vec<_> = blocks[1].lines().collect();
    assert!(lines[0].starts_with("#ec1-") && lines[0].ends_with("#relay-0-2"), "{members}");
    assert_eq!(lines[1], "    Node name  relay-0-2");
    assert_eq!(lines[4], format!("    Address    {}", address.trim_end()));
    assert_eq!(lines[5], "    State      self");
}

#[test]
fn bad_requests_fail_with_a_message_and_an_exit_code() {
    let mesh = Mesh::running(&["relay-0-1"]);
    for (arguments, expected) in [
        (["count", "outbound", "example.com"].as_slice(), "outbound_binding_domains, outbound_cidr, outbound_domains"),
        (&["count", "inbound_cdir", "192.0.2.7"], "no object \"inbound_cdir\""),
        (&["shared", "show", "inbound", "from", "relay-0-9"], "nothing is known of node relay-0-9"),
        (&["count", "inbound", "192.0.2.7", "from", "relay-0-9"], "nothing is known of node relay-0-9"),
        (&["shared", "show", "inbound", "of", "relay-0-1"], "write from NODE"),
        (&["shared", "show", "inbound", "from"], "write from NODE"),
        (&["shared", "show", "inbound", "from", "Relay"], "is not the name of a node"),
        (&["add", "inbound_cidr", "example.com"], "is not an address or CIDR block"),
        (&["add", "outbound_domains", "a b"], "is not a domain"),
        (&["add", "inbound_cidr", "192.0.2.7", "9223372036854775807"], "more than one step"),
        (&["add", "inbound_cidr", "192.0.2.7", "1099511627777"], "1099511627776 at most"),
        (&["add", "outbound_domains", "a.example", "-1099511627777"], "1099511627776 at most"),
        (&["add", "inbound_cidr", "192.0.2.7", "x"], "invalid value 'x'"),
        (&["hold", "inbound_cidr", "nobody", "--", "true"], "is not an address or CIDR block"),
        (
            &["hold", "inbound_cidr", "192.0.2.0/24", "--", "true"],
            "a hold takes an address, and 192.0.2.0/24 is a block",
        ),
        (&["hold", "inbound_cidr", "192.0.2.7", "--limit", "24=3", "--", "true"], "is not a limit"),
        (&["hold", "inbound_cidr", "192.0.2.7", "--limit", "ipv4/33=3", "--", "true"], "an IPv4 address has 32 bits"),
        (&["hold", "inbound_cidr", "192.0.2.7", "--limit", "/64=3", "--", "true"], "no limit applies to 192.0.2.7"),
        (&["hold", "outbound_domains", "a.example", "--limit", "/24=3", "--", "true"], "does not count by address"),
        (&["watch", "outbound"], "write more of the name"),
        (&["load", "outbound", "no-such-file"], "cannot read no-such-file"),
        (&["--output", "csv", "add", "inbound_cidr", "192.0.2.7"], "no table to write as CSV"),
        (&["--output", "csv", "cluster", "info"], "no table to write as CSV"),
        (&["verify", "--patience", "never"], "number of seconds"),
        (&["shared"], "Usage"),
    ] {
        let said = mesh.ask("relay-0-1", arguments).fails(2);
        assert!(said.contains(expected), "{arguments:?} printed {said}");
    }
    // Refused input is not counted.
    assert_eq!(mesh.total("relay-0-1", "inbound_cidr", "0.0.0.0/0"), 0);

    let missing = mesh.path("missing.sock");
    let unreachable = tally(&["--at", missing.to_str().unwrap(), "shared", "list"]).fails(3);
    assert!(unreachable.contains("there is no such socket"), "{unreachable}");
    let abandoned = mesh.path("abandoned.sock");
    drop(std::os::unix::net::UnixListener::bind(&abandoned).unwrap());
    let unreachable = tally(&["--at", abandoned.to_str().unwrap(), "shared", "list"]).fails(3);
    assert!(unreachable.contains("no node listens there"), "{unreachable}");
    assert!(tally(&["shared", "list"]).fails(2).contains("TALLY_AT"));
    let at = mesh.file("relay-0-1", "sock");
    let by_environment = command().env("TALLY_AT", at).args(["cluster", "nodename"]).output().unwrap();
    assert_eq!(by_environment.stdout, b"relay-0-1\n");
}

#[test]
fn loading_streams_and_stops_at_a_bad_line() {
    let mesh = Mesh::running(&["relay-0-1"]);
    let lines: String = (0..5000).map(|n| format!("10.0.{}.{} 2\n", n / 256, n % 256)).collect();
    let said = mesh.feed("relay-0-1", &["load", "inbound_cidr"], &lines).ok();
    assert!(said.starts_with("5000 lines in ") && said.ends_with(" lines/s\n"), "{said}");
    assert_eq!(mesh.total("relay-0-1", "inbound_cidr", "10.0.0.0/8"), 10_000);

    // In the third batch: the lines before it count, those after it do not.
    let mut bad: Vec<_> = (0..4000).map(|n| format!("172.16.{}.{}", n / 256, n % 256)).collect();
    bad[2999] = "172.16.0.0/33".to_owned();
    let text = format!("# heading\n{}\n", bad.join("\n"));
    let error = mesh.feed("relay-0-1", &["load", "inbound_cidr"], &text).fails(2);
    assert!(error.contains("stdin:3001: \"172.16.0.0/33\" is not an address or CIDR block"), "{error}");
    assert!(error.contains("2999 lines before it have been counted"), "{error}");
    assert_eq!(mesh.total("relay-0-1", "inbound_cidr", "172.16.0.0/12"), 2999);

    let error = mesh.feed("relay-0-1", &["load", "inbound_cidr"], "192.0.2.1 1099511627777\n").fails(2);
    assert!(error.contains("stdin:1: 1099511627777 is more than one step may add or remove"), "{error}");
    assert_eq!(mesh.total("relay-0-1", "inbound_cidr", "192.0.2.1"), 0);
    mesh.feed("relay-0-1", &["load", "inbound_cidr"], "192.0.2.8 1099511627776\n192.0.2.8 -1099511627776\n").ok();

    let file = mesh.path("lines.txt");
    std::fs::write(&file, "192.0.2.1 x\n192.0.2.1\n\n192.0.2.2 4 4\nnobody 3\n192.0.2.3 -1").unwrap();
    let file = file.to_str().unwrap();
    let error = mesh.ask("relay-0-1", &["load", "inbound_cidr", file]).fails(2);
    assert!(error.contains(&format!("{file}:1: \"x\" is not a whole number")), "{error}");
    let json = mesh.ask("relay-0-1", &["--output", "json", "load", "inbound_cidr", file, "--skip-bad"]).ok();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["lines"], &json["bad"]), (&2.into(), &3.into()));
    assert_eq!(mesh.total("relay-0-1", "inbound_cidr", "192.0.2.0/24"), 0);
    assert_eq!(mesh.total("relay-0-1", "inbound_cidr", "192.0.2.1"), 1);
}

/// More connections hold than the node serves at a time: a hold gives its place back, so the console answers.
#[test]
fn holds_do_not_block_the_console() {
    let mesh = Mesh::running(&["relay-0-1"]);
    let hold =
        Request::Hold { object: "outbound_domains".to_owned(), key: "example.com".to_owned(), limits: Vec::new() };
    let request = admin::encode(&hold).unwrap();
    let held: Vec<_> = (0..100)
        .map(|_| {
            let mut connection = UnixStream::connect(mesh.file("relay-0-1", "sock")).unwrap();
            connection.write_all(&frame::header(request.len()).unwrap()).unwrap();
            connection.write_all(&request).unwrap();
            let mut header = [0; frame::HEADER_BYTES];
            connection.read_exact(&mut header).unwrap();
            let mut answer = vec![0; frame::payload_len(header).unwrap()];
            connection.read_exact(&mut answer).unwrap();
            assert_eq!(admin::decode::<Answer>(&answer).unwrap(), Answer::Held);
            connection
        })
        .collect();
    assert_eq!(mesh.total("relay-0-1", "outbound_domains", "example.com"), 100);
    drop(held);
    mesh.counts("relay-0-1", "outbound_domains", "example.com", 0, SOON);
}

#[test]
fn a_hold_counts_while_its_command_runs() {
    let mesh = Mesh::running(&["relay-0-1", "relay-0-2"]);
    let counts = |total| mesh.counts("relay-0-2", "outbound_domains", "example.com", total, SOON);
    let hold = ["hold", "outbound_domains", "example.com"];
    let mut held = Process::start(
        mesh.asking("relay-0-1", &hold).args(["--", "sh", "-c", "read x; exit 7"]).stdin(Stdio::piped()),
    );
    counts(1);

    // The other node has received the count, and has no room for a second one.
    let mark = mesh.path("ran");
    let limited = [&hold[..], &["--limit", "1", "--", "touch", mark.to_str().unwrap()]].concat();
    let no = mesh.ask("relay-0-2", &limited).fails(1);
    assert!(no.contains("no room: 1 are counted and 1 are allowed"), "{no}");
    assert!(!mark.exists());
    mesh.ask("relay-0-2", &[&hold[..], &["--limit", "2", "--", "touch", mark.to_str().unwrap()]].concat()).ok();
    assert!(mark.exists());

    drop(held.child.stdin.take());
    assert_eq!(held.code(), 7);
    counts(0);

    // Signals go to the command, and tally ends with the command's exit code.
    let trap = "trap 'kill $!; exit 9' TERM; sleep 60 & echo ready; wait";
    let mut held = Process::start(mesh.asking("relay-0-1", &hold).args(["--", "sh", "-c", trap]));
    assert_eq!(held.lines.recv_timeout(SOON).unwrap(), "ready");
    counts(1);
    held.signal(Signal::TERM);
    assert_eq!(held.code(), 9);
    counts(0);
    let killed = mesh.ask("relay-0-1", &[&hold[..], &["--", "sh", "-c", "kill -KILL $$"]].concat());
    assert_eq!(killed.code, Some(137));
    assert_eq!(mesh.ask("relay-0-1", &[&hold[..], &["--", "./no-such-command"]].concat()).code, Some(127));

    // The hold is released even if tally is killed.
    let mut held =
        Process::start(mesh.asking("relay-0-1", &hold).args(["--", "sh", "-c", "read x"]).stdin(Stdio::piped()));
    counts(1);
    held.signal(Signal::KILL);
    assert_eq!(held.code(), 137);
    counts(0);
}

/// One call holds an address and checks the address and the blocks around it. Nothing is counted twice.
#[test]
fn a_hold_is_limited_by_the_address_and_its_blocks() {
    let mesh = Mesh::running(&["relay-0-1", "relay-0-2"]);
    let hold = |addr: &str| {
        let limits = ["--limit", "2", "--limit", "/24=3", "--limit", "/64=1"];
        [&["hold", "inbound_cidr", addr], &limits[..]].concat().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let start = |node: &str, addr: &str| {
        let hold = hold(addr);
        let hold: Vec<_> = hold.iter().map(String::as_str).collect();
        Process::start(mesh.asking(node, &hold).args(["--", "sh", "-c", "read x"]).stdin(Stdio::piped()))
    };
    let refused = |node: &str, addr: &str| {
        let hold = hold(addr);
        let hold: Vec<_> = hold.iter().map(String::as_str).chain(["--", "true"]).collect();
        mesh.ask(node, &hold).fails(1)
    };
    let counts = |net, total| mesh.counts("relay-0-2", "inbound_cidr", net, total, SOON);
    let mut open = vec![start("relay-0-1", "192.0.2.7")];
    counts("192.0.2.7", 1);
    open.push(start("relay-0-2", "192.0.2.7"));
    counts("192.0.2.7", 2);
    let no = refused("relay-0-2", "192.0.2.7");
    assert!(no.contains("no room: 2 are counted and 2 are allowed"), "{no}");
    open.push(start("relay-0-2", "192.0.2.8"));
    counts("192.0.2.0/24", 3);
    let no = refused("relay-0-2", "192.0.2.9");
    assert!(no.contains("no room in 192.0.2.0/24: 3 are counted and 3 are allowed"), "{no}");
    open.push(start("relay-0-2", "2001:db8::7"));
    counts("2001:db8::/64", 1);
    let no = refused("relay-0-2", "2001:db8::8");
    assert!(no.contains("no room in 2001:db8::/64: 1 are counted and 1 are allowed"), "{no}");
    counts("192.0.2.0/24", 3);

    let mut first = open.remove(0);
    drop(first.child.stdin.take());
    first.code();
    counts("192.0.2.0/24", 2);
    let hold = hold("192.0.2.9");
    let hold: Vec<_> = hold.iter().map(String::as_str).chain(["--", "true"]).collect();
    mesh.ask("relay-0-2", &hold).ok();
}

#[test]
fn a_watch_prints_changes_until_it_is_ended() {
    let mut mesh = Mesh::running(&["relay-0-1", "relay-0-2"]);
    let mut watch = Process::start(mesh.asking("relay-0-2", &["watch", "inbound_cidr"]).stderr(Stdio::piped()));
    let mut json =
        Process::start(mesh.asking("relay-0-2", &["--output", "json", "watch", "inbound"]).stderr(Stdio::piped()));
    // Each watch begins at some moment: count until both have printed a change.
    let (mut printed, mut printed_json, mut total) = (None, None, 0);
    eventually("both print a change", SOON, || {
        mesh.ask("relay-0-1", &["add", "inbound_cidr", "192.0.2.7"]).ok();
        total += 1;
        printed = printed.take().or_else(|| watch.lines.try_recv().ok());
        printed_json = printed_json.take().or_else(|| json.lines.try_recv().ok());
        if printed.is_some() && printed_json.is_some() { Ok(()) } else { Err(format!("{printed:?} {printed_json:?}")) }
    });
    let mut line = printed.unwrap();
    assert!(line.starts_with("192.0.2.7 "), "{line}");
    let change: serde_json::Value = serde_json::from_str(&printed_json.unwrap()).unwrap();
    assert_eq!(change["key"], "192.0.2.7");
    // The last line has the final count.
    while line != format!("192.0.2.7 {total}") {
        line = watch.lines.recv_timeout(SOON).unwrap();
    }
    // A signal ends it without a word. (Ctrl-C as well, but that is ignored where tests run in the background.)
    watch.signal(Signal::TERM);
    assert_eq!(watch.code(), 143);
    assert_eq!(std::io::read_to_string(watch.child.stderr.take().unwrap()).unwrap(), "");
    // And the end of the node with one.
    mesh.kill("relay-0-2");
    assert_eq!(json.code(), 3);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let mesh = Mesh::running(&["relay-0-1"]);
    let lines: String = (0..20_000).map(|n| format!("10.1.{}.{}\n", n / 256, n % 256)).collect();
    mesh.feed("relay-0-1", &["load", "inbound_cidr"], &lines).ok();
    for format in ["text", "json", "csv"] {
        let mut show = mesh.asking("relay-0-1", &["--output", format, "shared", "show", "inbound_cidr"]);
        let mut child = show.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let ended = child.wait_with_output().unwrap();
        assert_eq!((ended.status.code(), ended.stderr.as_slice()), (Some(0), [].as_slice()), "{format}");
    }
}

#[test]
fn a_node_continues_when_its_output_is_closed() {
    let mesh = Mesh::new(&["relay-0-1"]);
    let mut node = command();
    node.args(["node", "--log", "trace", "--config", mesh.file("relay-0-1", "hcl").to_str().unwrap()]);
    let mut node = node.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop((node.stdout.take(), node.stderr.take()));
    eventually("it answers", SOON, || {
        let said = mesh.ask("relay-0-1", &["cluster", "nodename"]);
        if said.code == Some(0) { Ok(()) } else { Err(format!("{said:?}, {:?}", node.try_wait())) }
    });
    mesh.ask("relay-0-1", &["add", "inbound_cidr", "192.0.2.7"]).ok();
    let mut node = Process { child: node, lines: std::sync::mpsc::channel().1, said: String::new() };
    node.signal(Signal::INT);
    assert_eq!(node.code(), 0);
}

#[test]
fn help_is_a_command_and_an_option() {
    let top = tally(&["--help"]).ok();
    assert!(top.contains("Exit codes: 0 done; 1 the answer is no; 2 bad usage or input; 3"), "{top}");
    assert!(top.contains("Words in capitals are placeholders"), "{top}");
    assert_eq!(tally(&["help"]).ok(), top);
    for command in ["hold", "throttle take", "cluster shared show", "permits"] {
        let words: Vec<_> = command.split(' ').collect();
        let help = tally(&[&["help"], words.as_slice()].concat()).ok();
        assert!(help.contains("Example"), "{command}: {help}");
        assert_eq!(tally(&[words.as_slice(), &["--help"]].concat()).ok(), help);
    }
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(tally(&["completions", shell]).ok().contains("nodeaddr"), "{shell}");
    }
    tally(&["completions", "cmd"]).fails(2);
    assert!(tally(&["--version"]).ok().starts_with("tally "));
    tally(&["no-such-command"]).fails(2);
    tally(&[]).fails(2);
}
