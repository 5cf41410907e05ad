//! The admin socket: silent, slow and many clients, long answers, and the socket's file.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal};
use tallymesh_schemas::admin::{self, Answer, Request};
use tallymesh_schemas::frame;

use crate::support::{Mesh, SOON, eventually, mode, tally};

/// A client that speaks the protocol itself.
struct Client(UnixStream);

impl Client {
    fn new(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        Self(stream)
    }

    fn send(&mut self, request: &Request) {
        let payload = admin::encode(request).unwrap();
        self.0.write_all(&[frame::header(payload.len()).unwrap().as_slice(), &payload].concat()).unwrap();
    }

    fn receive(&mut self) -> Answer {
        let mut header = [0; frame::HEADER_BYTES];
        self.0.read_exact(&mut header).unwrap();
        let mut payload = vec![0; frame::payload_len(header).unwrap()];
        self.0.read_exact(&mut payload).unwrap();
        admin::decode(&payload).unwrap()
    }

    /// Sends a request whose answer is only an acknowledgement.
    fn order(&mut self, request: &Request) {
        self.send(request);
        assert_eq!(self.receive(), Answer::Done);
    }

    fn load(&mut self, keys: impl Iterator<Item = u32>) {
        let lines: Vec<_> = keys.map(|n| (std::net::Ipv4Addr::from(0x0a00_0000 + n).to_string(), 1)).collect();
        for lines in lines.chunks(admin::LOAD_LINES) {
            self.send(&Request::Load { object: "inbound_cidr".to_owned(), lines: lines.to_vec(), skip_bad: false });
            assert!(matches!(self.receive(), Answer::Loaded { .. }));
            assert_eq!(self.receive(), Answer::Done);
        }
    }
}

/// Memory of a process, in MiB.
fn memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() >> 10
}

#[test]
fn silent_clients_do_not_keep_others_out() {
    let mesh = Mesh::running(&["relay-0-1"]);
    let path = mesh.file("relay-0-1", "sock");
    Client::new(&path).load(0..20_000);
    let silent = || UnixStream::connect(&path).unwrap();
    let mut clients: Vec<_> = (0..100).map(|_| silent()).collect();
    mesh.ask("relay-0-1", &["cluster", "nodename"]).ok();
    clients.extend((0..100).map(|_| {
        let mut client = silent();
        client.write_all(&frame::header(100).unwrap()[..3]).unwrap();
        client
    }));
    mesh.ask("relay-0-1", &["cluster", "nodename"]).ok();
    // Clients that do not read their answers.
    clients.extend((0..100).map(|_| {
        let mut client = Client::new(&path);
        client.send(&Request::Show { object: "inbound_cidr".to_owned(), from: None });
        client.0
    }));
    mesh.ask("relay-0-1", &["cluster", "nodename"]).ok();
    // And clients that wait for a verification.
    let patience = Duration::from_secs(600);
    clients.extend((0..100).map(|_| {
        let mut client = Client::new(&path);
        client.send(&Request::Verify { patience });
        client.0
    }));
    mesh.ask("relay-0-1", &["cluster", "nodename"]).ok();
}

#[test]
fn a_leaving_node_removes_no_socket_but_its_own() {
    let mut mesh = Mesh::running(&["relay-0-1"]);
    let path = mesh.file("relay-0-1", "sock");
    assert_eq!(mode(&path), 0o600);
    std::fs::remove_file(&path).unwrap();
    let other = UnixListener::bind(&path).unwrap();
    mesh.process("relay-0-1").signal(Signal::TERM);
    assert_eq!(mesh.process("relay-0-1").code(), 0);
    UnixStream::connect(&path).unwrap();
    drop(other);

    // The node does not remove a file that only looks like a leftover of its own.
    let beside = path.with_extension("sock.new");
    std::fs::write(&beside, "mine").unwrap();
    mesh.start("relay-0-1", &[]);
    assert_eq!(std::fs::read_to_string(&beside).unwrap(), "mine");
}

#[test]
fn a_socket_path_may_have_the_systems_full_length() {
    let mut mesh = Mesh::new(&["relay-0-1"]);
    let folder = mesh.path("mesh");
    let name = |bytes: usize| "s".repeat(bytes - folder.as_os_str().len() - 1);
    let longest = name(107);
    mesh.edit("relay-0-1", |text| text.replace("relay-0-1.sock", &longest));
    let path = folder.join(&longest);
    let node = mesh.serving("relay-0-1", &mut mesh.node("relay-0-1"));
    tally(&["--at", path.to_str().unwrap(), "cluster", "nodename"]).ok();
    drop(node);
    mesh.edit("relay-0-1", |text| text.replace(&longest, &name(108)));
    let checked = tally(&["config", "check", mesh.file("relay-0-1", "hcl").to_str().unwrap()]).fails(2);
    assert!(checked.contains("the path of the socket has 108 bytes"), "{checked}");
    mesh.kill("relay-0-1");
}

#[test]
fn answers_larger_than_a_frame_come_in_pages() {
    let mesh = Mesh::new(&["relay-0-1"]);
    mesh.edit("relay-0-1", |text| {
        text + "Datasource \"bytes\" {}\ncluster {\n  Replicate \"bytes\" { type = \"cache\" }\n}\n"
    });
    let _node = mesh.serving("relay-0-1", &mut mesh.node("relay-0-1"));
    let mut client = Client::new(&mesh.file("relay-0-1", "sock"));
    // Each byte of these keys is shown as four characters.
    for n in 0..600 {
        let key = format!("{}{n}", "\u{1}".repeat(500));
        let (cache, value) = ("bytes".to_owned(), vec![1; 300]);
        client.order(&Request::CacheSet { cache, key, value, ttl: Duration::ZERO });
    }
    let shown = mesh.ask("relay-0-1", &["--output", "json", "cache", "show", "bytes"]).ok();
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown.as_array().map(Vec::len), Some(600));
    mesh.ask("relay-0-1", &["shared", "show", "bytes"]).ok();

    // An error message that quotes the request fits into a frame as well.
    let key = "\u{1}".repeat(900_000);
    client.send(&Request::Add { object: "inbound_cidr".to_owned(), key, n: 1 });
    assert!(matches!(client.receive(), Answer::Error { .. }));
}

#[test]
fn watchers_that_do_not_read_are_bounded_in_total() {
    let mut mesh = Mesh::running(&["relay-0-1"]);
    let path = mesh.file("relay-0-1", "sock");
    let mut loader = Client::new(&path);
    let watch = Request::Watch { object: "inbound_cidr".to_owned() };
    let mut watchers: Vec<_> = (0..300)
        .map(|_| {
            let mut watcher = Client::new(&path);
            watcher.send(&watch);
            watcher
        })
        .collect();
    // A watcher that received a change has started to watch. From then on no watcher reads.
    let mut n = 0;
    for watcher in &mut watchers {
        watcher.0.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        while watcher.0.read(&mut [0]).is_err() {
            loader.load(std::iter::once(n));
            n += 1;
        }
    }
    let pid = mesh.process("relay-0-1").child.id();
    loader.load(1_000..201_000);
    let before = memory(pid);
    for _ in 0..3 {
        loader.load(1_000..201_000);
    }
    mesh.counts("relay-0-1", "inbound_cidr", "10.0.3.232", 4, SOON);
    let after = memory(pid);
    assert!(after < 256, "with 300 watchers that do not read: {before} MiB, then {after} MiB");
}

#[test]
fn running_out_of_descriptors_is_logged_once() {
    let mut mesh = Mesh::running(&["relay-0-1"]);
    let path = mesh.file("relay-0-1", "sock");
    let pid = Pid::from_child(&mesh.process("relay-0-1").child);
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as u64;
    let limit = Some(open + 10);
    rustix::process::prlimit(Some(pid), Resource::Nofile, Rlimit { current: limit, maximum: limit }).unwrap();
    let holders: Vec<_> = (0..30)
        .map(|_| {
            let mut client = Client::new(&path);
            let (object, key) = ("outbound_domains".to_owned(), "example.com".to_owned());
            client.send(&Request::Hold { object, key, limits: Vec::new() });
            client
        })
        .collect();
    mesh.logs("relay-0-1", "Too many open files");
    drop(holders);
    eventually("the node answers, and no hold is left", SOON, || {
        let said = mesh.ask("relay-0-1", &["count", "outbound_domains", "example.com"]);
        let idle = said.stdout.lines().last().is_some_and(|line| line.trim_start().starts_with("0 "));
        if said.code == Some(0) && idle { Ok(()) } else { Err(format!("{said:?}")) }
    });
    let lines = mesh.log("relay-0-1").matches("Too many open files").count();
    assert_eq!(lines, 1, "{}", mesh.log("relay-0-1"));
}
