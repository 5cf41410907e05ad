//! I12: before a handshake is over, nothing that the other end sends has an effect.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::initial::{Initials, retry};
use crate::support::{Mesh, SOON, eventually, tally};

/// Every code that a node closes with, and one that none does.
const CODES: [usize; 13] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 999];

/// The code that reports to a node that it is superseded.
const SUPERSEDED: usize = 3;

/// The code of a connection to oneself.
const OURSELVES: usize = 4;

fn run_of(mesh: &Mesh, name: &str) -> u64 {
    mesh.sees(name, name)[1].parse().unwrap()
}

fn conflicts(mesh: &Mesh, name: &str) -> u64 {
    mesh.counter(name, "conflicts") + mesh.counter(name, "conflicts_delayed")
}

/// A stranger's datagram that begins a connection and closes it, from an address that it does not have.
#[test]
fn a_datagram_that_closes_before_the_handshake_changes_nothing() {
    let mut mesh = Mesh::new(&["n1", "n2", "n3"]);
    mesh.start("n1", &[]);
    mesh.start("n2", &[]);
    mesh.wait_for_links();
    mesh.ask("n1", &["add", "inbound_cidr", "192.0.2.7", "5"]).ok();
    mesh.counts("n2", "inbound_cidr", "192.0.2.7", 5, SOON);
    let (run, before) = (run_of(&mesh, "n1"), mesh.log("n1").lines().count());
    let socket = UdpSocket::bind("127.66.66.66:0").unwrap();
    let (initials, victim) = (Initials::new(), mesh.listens("n1"));
    let reasons = [run, run + 1, run + 1_000_000_000, (1 << 46) - 1, 1 << 53];
    for (number, code) in CODES.into_iter().chain([SUPERSEDED; 20]).enumerate() {
        let reason = reasons[number % reasons.len()].to_string();
        let datagram = initials.closing(&[b'a'; 8].map(|byte| byte + number as u8), code, &reason);
        socket.send_to(&datagram, victim).unwrap();
    }
    // A node that starts now is handled after all of them.
    mesh.start("n3", &[]);
    mesh.wait_for_links();
    assert_eq!(run_of(&mesh, "n1"), run, "it is the same run");
    assert_eq!(mesh.sees("n2", "n1")[1], run.to_string());
    assert_eq!(conflicts(&mesh, "n1"), 0);
    mesh.counts("n2", "inbound_cidr", "192.0.2.7", 5, Duration::ZERO);
    let log = mesh.log("n1");
    assert!(!log.contains("another process"), "{log}");
    // Two nodes that dial each other at once close one of the two connections.
    let is_lost = |line: &&str| line.contains("link down") && !line.contains("another connection to the peer stays");
    assert_eq!(log.lines().find(is_lost), None, "{log}");
    assert!(log.lines().count() < before + 10, "{log}");
}

/// Answers every connection at an address with a close.
struct Impostor {
    addr: SocketAddr,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Impostor {
    fn start(code: usize, reason: String) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let addr = socket.local_addr().unwrap();
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&answered));
        let thread = std::thread::spawn(move || {
            let (initials, mut buffer) = (Initials::new(), [0; 9000]);
            while !stopped.load(Ordering::Relaxed) {
                let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
                if let Some(answer) = initials.refusal(&buffer[..len], code, &reason) {
                    let _ = socket.send_to(&answer, from);
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { addr, stop, answered, thread: Some(thread) }
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().into_iter().for_each(|thread| thread.join().unwrap());
    }
}

/// Hosts without a certificate answer at the addresses of seeds. Each dial fails and has no other effect: when a node of the
/// cluster serves at such an address later, it is found there.
#[test]
fn a_host_at_a_seed_s_address_can_only_make_dials_fail() {
    let mut mesh = Mesh::new(&["n1", "n2"]);
    mesh.edit("n1", |text| text.replace(&mesh.listens("n2").to_string(), "127.0.0.1:1"));
    let begun = u64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
    let reason = (begun + 1_000_000).to_string();
    let impostors = CODES.map(|code| (code, Impostor::start(code, reason.clone())));
    let seeds: Vec<_> = impostors.iter().map(|(_, impostor)| format!("\"{}\"", impostor.addr)).collect();
    mesh.edit("n1", |text| text.replace("seeds = [", &format!("seeds = [{}, ", seeds.join(", "))));
    mesh.start("n1", &[]);
    let run = run_of(&mesh, "n1");
    assert!(run < begun + 600_000, "it is the wall clock's");
    for (code, impostor) in &impostors {
        eventually(&format!("it dials the one with code {code} again"), SOON, || {
            let answered = impostor.answered.load(Ordering::Relaxed);
            if answered >= 2 { Ok(()) } else { Err(format!("{answered} answers")) }
        });
    }
    assert_eq!((run_of(&mesh, "n1"), conflicts(&mesh, "n1")), (run, 0));
    // The node behind one of these addresses waits to be dialed.
    let taken = impostors.iter().find(|(code, _)| *code == OURSELVES).unwrap().1.addr;
    drop(impostors);
    let listens = mesh.listens("n2").to_string();
    mesh.edit("n2", |text| text.replace(&listens, &taken.to_string()));
    let text = std::fs::read_to_string(mesh.file("n2", "hcl")).unwrap();
    let seeds = text.lines().find(|line| line.trim().starts_with("seeds = ")).unwrap().to_owned();
    mesh.edit("n2", |text| text.replace(&seeds, "  seeds = []"));
    mesh.start("n2", &[]);
    mesh.wait_for_links();
    assert_eq!(run_of(&mesh, "n1"), run);
}

/// Connections from one address that are never completed do not delay a node.
#[test]
fn a_flood_of_handshakes_does_not_delay_a_restart() {
    let mut mesh = Mesh::running(&["n1", "n2"]);
    let victim = mesh.listens("n1");
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, proven) = (Arc::clone(&stop), Arc::new(AtomicU64::new(0)));
    let count = Arc::clone(&proven);
    let flood = std::thread::spawn(move || {
        let (initials, mut buffer, mut number) = (Initials::new(), [0; 2048], 0_u64);
        while !stopped.load(Ordering::Relaxed) {
            // From the address of the nodes, each from a port of its own, and each proves its address.
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect(victim).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
            number += 1;
            socket.send(&initials.datagram(&number.to_be_bytes(), &[])).unwrap();
            let answer = socket.recv(&mut buffer).ok().and_then(|len| retry(&buffer[..len]));
            if let Some((theirs, token)) = answer {
                socket.send(&initials.datagram(theirs, token)).unwrap();
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    eventually("the flood has taken all that it can get", SOON, || {
        let (refused, proven) = (mesh.counter("n1", "connections_refused"), proven.load(Ordering::Relaxed));
        if refused > 50 && proven > 100 { Ok(()) } else { Err(format!("{refused} refused, {proven} proven")) }
    });
    mesh.kill("n2");
    eventually("n1 has noticed", SOON, || {
        let seen = mesh.sees("n1", "n2");
        if seen[5] == "false" { Ok(()) } else { Err(format!("{seen:?}")) }
    });
    let refused = mesh.counter("n1", "connections_refused");
    mesh.start("n2", &[]);
    let begin = std::time::Instant::now();
    mesh.wait_for_links();
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(3), "it is linked after {took:?}");
    eventually("the flood goes on", SOON, || {
        let now = mesh.counter("n1", "connections_refused");
        if now > refused { Ok(()) } else { Err(format!("{now} refused, {refused} before")) }
    });
    stop.store(true, Ordering::Relaxed);
    flood.join().unwrap();
    let log = mesh.log("n1");
    let lines = log.lines().filter(|line| line.contains("refused")).count();
    assert!(lines <= 6, "{lines} lines about refused connections:\n{log}");
}

/// An incarnation beyond the range is an error.
#[test]
fn a_run_beyond_the_last_is_an_error() {
    let mut mesh = Mesh::new(&["n1"]);
    let config = mesh.file("n1", "hcl");
    for number in ["9007199254740992", "18446744073709551615"] {
        let said = tally(&["node", "--config", config.to_str().unwrap(), "--incarnation", number]).fails(2);
        assert!(said.contains(&format!("{number} is no number of a run: the last one is 9007199254740991")), "{said}");
    }
    mesh.start("n1", &["--incarnation", "9007199254740991"]);
    assert_eq!(run_of(&mesh, "n1"), 9_007_199_254_740_991);
}
