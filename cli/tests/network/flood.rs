//! Connections that are never completed.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::cluster::{Cluster, NODES, STRANGER};
use crate::initial::{Initials, retry};
use crate::lab;
use crate::report::Row;
use crate::truth::{DOMAINS, Load, Random};
use crate::wait::{PATIENCE, until_true};

/// Initials sent at a time, and the pause after them: about 10,000 a second.
const BURST: usize = 100;
const PAUSE: Duration = Duration::from_millis(9);

/// Memory that the flood may cost the node, in KiB.
const COST: u64 = 64 << 10;

/// Strangers that prove their address and then fall silent. The node holds 64 handshakes at a time.
const PROVEN: usize = 200;

/// Sends Initials from invented ports for invented connections: at least `attempts`, and until `stop`. Returns how many.
fn flood(victim: usize, attempts: usize, stop: &AtomicBool) -> usize {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP)).expect("root may open raw sockets");
    let to = lab::address(victim).into();
    let initials = Initials::new();
    let mut random = Random(7);
    let mut sent = 0;
    while sent < attempts || !stop.load(Ordering::Relaxed) {
        assert!(sent < attempts * 20, "the test should have ended");
        for _ in 0..BURST {
            let datagram = initials.datagram(&random.bytes(8), &[]);
            let port = 1024 + random.below(60_000) as u16;
            // Source, destination, length; without a checksum, which is allowed.
            let fields = [port, lab::PORT, 8 + datagram.len() as u16, 0];
            let header: Vec<u8> = fields.iter().flat_map(|field| field.to_be_bytes()).collect();
            // A full queue loses it, as any network may.
            let _ = socket.send_to(&[header, datagram].concat(), &to);
        }
        sent += BURST;
        std::thread::sleep(PAUSE);
    }
    sent
}

/// Begins connections, proves the address when the node asks for it, and sends no more. Returns how often the node asked.
fn fall_silent(victim: usize) -> usize {
    let initials = Initials::new();
    let mut random = Random(11);
    let mut buffer = [0; 2048];
    let mut asked = 0;
    let mut kept = Vec::new();
    for _ in 0..PROVEN {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a port");
        socket.connect(lab::address(victim)).expect("the cable is there");
        socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
        socket.send(&initials.datagram(&random.bytes(8), &[])).expect("it is sent");
        let answer = socket.recv(&mut buffer).ok().and_then(|len| retry(&buffer[..len]));
        if let Some((theirs, token)) = answer {
            asked += 1;
            socket.send(&initials.datagram(theirs, token)).expect("it is sent");
        }
        kept.push(socket);
    }
    asked
}

fn half_open(test: &str, attempts: usize) {
    let Some(mut cluster) = Cluster::start(test) else { return };
    let mut loads = cluster.load(0..NODES - 1);
    let last = cluster.load([NODES - 1]);
    let before = cluster.process(0).memory().0;
    let begin = Instant::now();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let flood = cluster.lab.on(STRANGER, move || flood(0, attempts, &stopped));
    until_true("the flood has an effect", PATIENCE, || cluster.counter(0, "address_proofs_asked") > 1000);

    // The node serves the cluster meanwhile, and a node can join.
    cluster.add(0, DOMAINS, "flooded.example", 5);
    cluster.add(1, DOMAINS, "spared.example", 6);
    let seen = until_true("counts reach the node and leave it", PATIENCE, || {
        cluster.total(1, DOMAINS, "flooded.example") == 5 && cluster.total(0, DOMAINS, "spared.example") == 6
    });
    cluster.kill(NODES - 1);
    let mut added: u64 = last.into_iter().map(Load::end_of_killed).sum();
    cluster.launch(NODES - 1);
    let joined = until_true("a node joins the flooded node", PATIENCE, || cluster.linked(NODES - 1).contains(&0));
    loads.extend(cluster.load([NODES - 1]));
    stop.store(true, Ordering::Relaxed);
    let sent = flood.join().expect("the flood does not panic");
    let lasted = begin.elapsed();
    let asked = cluster.counter(0, "address_proofs_asked");
    assert!(asked as usize > attempts / 2, "{asked} of {sent} were answered");

    let refused = cluster.counter(0, "connections_refused");
    let proven = cluster.lab.on(STRANGER, || fall_silent(0)).join().expect("it does not panic");
    assert!(proven > PROVEN / 2, "{proven} were asked for a proof");
    until_true("the node has dropped all of them", PATIENCE, || {
        cluster.counter(0, "connections_refused") >= refused + proven as u64
    });
    let all_linked = cluster.all_linked();
    added += loads.into_iter().map(Load::end).sum::<u64>();
    let exact = cluster.exact();
    let (now, peak) = cluster.process(0).memory();
    let cost = peak.saturating_sub(before);
    assert!(cost < COST, "the flood cost {cost} KiB: {before} before, {now} now, {peak} at most");
    let effect = format!(
        "{asked} of {sent} asked for a proof of address, {PROVEN} more held half open; counts passed in {:.1} s, a node \
         joined in {:.1} s meanwhile; cost {} MiB",
        seen.as_secs_f64(),
        joined.as_secs_f64(),
        cost >> 10
    );
    let fault = format!("{attempts} half-open connections to node-0");
    Row { fault, lasted, effect, added, all_linked, exact, peak_mib: cluster.sound() }.print();
}

/// A hundred thousand connections to one node are begun, and none is completed. The node keeps no state for them, and serves.
#[test]
fn half_open_connections() {
    half_open("half_open_connections", 100_000);
}

/// The same with a million connections.
#[test]
#[ignore = "takes two minutes: cargo test --release -p tallymesh-cli --test network million -- --ignored --nocapture"]
fn a_million_half_open_connections() {
    half_open("a_million_half_open_connections", 1_000_000);
}
