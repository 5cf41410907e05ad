//! Metrics and health by HTTP, of nodes as processes.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::exposition::{Family, parse};
use crate::support::{Mesh, SOON, eventually};

const NODES: [&str; 3] = ["relay-0-1", "relay-0-2", "relay-0-3"];

/// Lets the nodes serve HTTP on free ports.
fn serving_http(names: &[&str]) -> Mesh {
    let mesh = Mesh::new(names);
    for name in names {
        mesh.edit(name, |text| {
            let commented = "  # http = \"127.0.0.1:9180\"";
            assert!(text.contains(commented), "init writes a comment");
            text.replacen(commented, "  http = \"127.0.0.1:0\"", 1)
        });
    }
    mesh
}

/// Where a node serves HTTP, as it has logged.
#[track_caller]
fn address(mesh: &Mesh, name: &str) -> SocketAddr {
    eventually(&format!("{name} logs where it serves HTTP"), SOON, || {
        let log = mesh.log(name);
        let line = log.lines().rfind(|line| line.contains("serving HTTP")).ok_or(&log)?;
        let address = line.split("address=").nth(1).ok_or(line)?;
        address.trim().parse().map_err(|error| format!("{line}: {error}"))
    })
}

/// Sends a request and returns code, fields and body of the answer.
fn exchange(mut stream: impl Read + Write, path: &str, fields: &str) -> (u16, String, String) {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: node\r\n{fields}\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer}"));
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    (code, head.to_owned(), body.to_owned())
}

fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let (code, _, body) = exchange(stream, path, "");
    (code, body)
}

/// The metrics of a node.
#[track_caller]
fn scrape(address: SocketAddr) -> BTreeMap<String, Family> {
    let (code, text) = get(address, "/metrics");
    assert_eq!(code, 200, "{text}");
    parse(&text).unwrap_or_else(|error| panic!("{error}\nin\n{text}"))
}

/// A value by the text of its name and labels.
fn value(families: &BTreeMap<String, Family>, series: &str) -> Option<f64> {
    families.values().find_map(|family| family.samples.get(series)).copied()
}

/// Waits until a value of a node fits.
#[track_caller]
fn reaches(address: SocketAddr, series: &str, fits: impl Fn(f64) -> bool) {
    eventually(series, SOON, || match value(&scrape(address), series) {
        Some(value) if fits(value) => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[test]
fn three_nodes_are_scraped() {
    let mut mesh = serving_http(&NODES);
    NODES.iter().for_each(|name| mesh.start(name, &[]));
    mesh.wait_for_links();
    let addresses = NODES.map(|name| address(&mesh, name));
    for (name, address) in NODES.iter().zip(addresses) {
        mesh.ask(name, &["add", "inbound_cidr", "192.0.2.7", "3"]).ok();
        assert_eq!(get(address, "/healthz"), (200, "ok\n".to_owned()));
    }
    for (name, address) in NODES.iter().zip(addresses) {
        reaches(address, "tallymesh_object_rows{object=\"inbound_cidr\"}", |rows| rows == 3.0);
        reaches(address, "tallymesh_ready{condition=\"snapshots\"}", |ready| ready == 1.0);
        let families = scrape(address);
        assert_eq!(value(&families, "tallymesh_object_keys{object=\"inbound_cidr\"}"), Some(1.0));
        assert_eq!(value(&families, "tallymesh_members{state=\"alive\"}"), Some(3.0));
        assert_eq!(value(&families, "tallymesh_links"), Some(2.0));
        let build = families["tallymesh_build_info"].samples.keys().next().unwrap();
        assert!(build.contains(&format!("node=\"{name}\"")), "{build}");
        let expiry = value(&families, "tallymesh_certificate_expiry_timestamp_seconds").unwrap();
        assert!(expiry > 1.7e9, "{expiry}");
        assert!(!families.values().flat_map(|family| family.samples.keys()).any(|series| series.contains("192.0.2.7")));
        assert_eq!(get(address, "/readyz"), (200, "ready\n".to_owned()));
    }
    counters_rise(&mesh, addresses[0]);
    checked_by_promtool(addresses[1]);
    let stream = TcpStream::connect(addresses[2]).unwrap();
    let (_, head, open) = exchange(stream, "/metrics", "accept: application/openmetrics-text; version=1.0.0\r\n");
    assert!(head.contains("application/openmetrics-text; version=1.0.0") && open.ends_with("\n# EOF\n"), "{head}");

    for (name, address) in NODES.iter().zip(addresses) {
        mesh.process(name).signal(Signal::TERM);
        assert_eq!(mesh.process(name).code(), 0);
        TcpListener::bind(address).unwrap_or_else(|error| panic!("{name} has not freed {address}: {error}"));
    }
}

/// Waits until a value of a node is higher than it was at the look before.
#[track_caller]
fn rises(address: SocketAddr, series: &str) {
    let mut last = None;
    eventually(series, SOON, || {
        let now = value(&scrape(address), series);
        let before = std::mem::replace(&mut last, now);
        if before.is_some() && now > before { Ok(()) } else { Err(format!("{before:?}, {now:?}")) }
    });
}

/// No counter falls, and those of work that is done rise.
fn counters_rise(mesh: &Mesh, address: SocketAddr) {
    let before = scrape(address);
    mesh.ask(NODES[0], &["add", "inbound_cidr", "192.0.2.8"]).ok();
    mesh.ask(NODES[1], &["add", "inbound_cidr", "192.0.2.9"]).ok();
    mesh.ask(NODES[0], &["verify"]).ok();
    let risen = [
        "tallymesh_object_changes_total{object=\"inbound_cidr\"}",
        "tallymesh_object_commits_total{object=\"inbound_cidr\"}",
        "tallymesh_flushes_total",
        "tallymesh_deltas_total{direction=\"in\"}",
        "tallymesh_deltas_total{direction=\"out\"}",
        "tallymesh_digests_sent_total",
        "tallymesh_verifications_total{outcome=\"converged\"}",
        "tallymesh_driver_step_seconds_count",
        "tallymesh_frames_total{direction=\"in\"}",
        "tallymesh_frame_payload_bytes_total{direction=\"out\"}",
    ];
    for series in risen {
        let was = value(&before, series).unwrap_or_else(|| panic!("no {series}"));
        reaches(address, series, |now| now > was);
    }
    for metric in ["peer_frames", "peer_frame_payload_bytes", "peer_datagrams", "peer_datagram_bytes"] {
        for direction in ["in", "out"] {
            rises(address, &format!("tallymesh_{metric}_total{{peer=\"{}\",direction=\"{direction}\"}}", NODES[1]));
        }
    }
    let after = scrape(address);
    // Those of a peer begin again with each link, and of two links that come up together one replaces the other.
    let lasts = |name: &str, family: &Family| family.kind == "counter" && !name.starts_with("tallymesh_peer_");
    for (name, family) in before.iter().filter(|(name, family)| lasts(name, family)) {
        for (series, was) in &family.samples {
            let now = after[name].samples[series];
            assert!(now >= *was, "{series} fell from {was} to {now}");
        }
    }
}

/// Checks metrics and alerts with the tool of Prometheus, if it is installed.
fn checked_by_promtool(address: SocketAddr) {
    if Command::new("promtool").arg("--version").output().is_err() {
        eprintln!("skipped: promtool is not on the PATH, so it does not check metrics and alerts");
        return;
    }
    let (_, text) = get(address, "/metrics");
    let mut check = Command::new("promtool");
    check.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = check.spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout) + String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success() && said.trim().is_empty(), "{said}");
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs");
    for arguments in [["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]] {
        let ended = Command::new("promtool").args(arguments).current_dir(docs).output().unwrap();
        let said = String::from_utf8_lossy(&ended.stdout) + String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success(), "{arguments:?}: {said}");
    }
}

#[test]
fn a_node_says_what_it_lacks_until_it_is_ready() {
    let mut mesh = serving_http(&NODES[..2]);
    let [first, second] = [NODES[0], NODES[1]];
    mesh.edit(second, |text| text.replacen("  # data_dir = ", "  data_dir = ", 1));
    mesh.start(second, &[]);
    let at = address(&mesh, second);
    let (code, said) = get(at, "/readyz");
    let seed = mesh.listens(first);
    assert_eq!(code, 503, "{said}");
    assert!(said.starts_with(&format!("not ready\njoin: no seed has answered yet: {seed}\nsnapshots: ")), "{said}");
    assert_eq!(get(at, "/healthz"), (200, "ok\n".to_owned()), "it lives, and is not ready");
    assert_eq!(value(&scrape(at), "tallymesh_ready{condition=\"join\"}"), Some(0.0));
    mesh.start(first, &[]);
    mesh.wait_for_links();
    let ready = |code: u16| {
        eventually("the node's readiness", SOON, || match get(at, "/readyz") {
            (found, said) if found == code => Ok(said),
            (found, said) => Err(format!("{found} {said}")),
        })
    };
    assert_eq!(ready(200), "ready\n");
    // The file of the state is gone, so the node cannot save.
    let state = mesh.file(second, "state").join("state.redb");
    std::fs::rename(&state, state.with_extension("away")).unwrap();
    let said = ready(503);
    assert!(said.starts_with("not ready\ndisk: the state cannot be saved: "), "{said}");
    reaches(at, "tallymesh_state_failing", |failing| failing == 1.0);
    let (code, said) = get(at, "/api/v1/objects");
    assert!(code == 404 && said.contains("/readyz"), "{said}");
}

#[test]
fn health_is_served_on_a_unix_socket() {
    let mut mesh = Mesh::new(&NODES[..1]);
    let name = NODES[0];
    mesh.edit(name, |text| text.replacen("  # http = \"127.0.0.1:9180\"", "  http = \"relay.http\"", 1));
    let path = mesh.path("mesh").join("relay.http");
    let healthy = || {
        let stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let (code, _, body) = exchange(stream, "/healthz", "");
        assert_eq!((code, body.as_str()), (200, "ok\n"));
    };
    mesh.start(name, &[]);
    healthy();
    assert_eq!(crate::support::mode(&path), 0o600);
    // A killed node leaves its sockets behind, and the next one replaces them.
    mesh.kill(name);
    assert!(path.exists());
    mesh.start(name, &[]);
    healthy();
    mesh.process(name).signal(Signal::TERM);
    assert_eq!(mesh.process(name).code(), 0);
    assert!(!path.exists(), "a node that leaves removes its socket");
}

/// A slow client of a real node: the node cuts it off, and serves others meanwhile.
#[test]
fn slow_clients_do_not_hold_a_node() {
    let mut mesh = serving_http(&NODES[..1]);
    mesh.start(NODES[0], &[]);
    let at = address(&mesh, NODES[0]);
    let mut slow: Vec<_> = (0..80).map(|_| TcpStream::connect(at).unwrap()).collect();
    for stream in &mut slow {
        stream.write_all(b"GET /metrics HTTP/1.1\r\nx: ").unwrap();
    }
    for _ in 0..10 {
        assert_eq!(get(at, "/healthz").0, 200);
    }
    for stream in &mut slow {
        stream.set_read_timeout(Some(SOON)).unwrap();
        let mut rest = Vec::new();
        // The end of the stream, or a reset.
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&rest));
    }
    reaches(at, "tallymesh_bound_reached_total{bound=\"http connections\",object=\"\"}", |times| times > 0.0);
}

/// Kilobytes of memory of a process.
#[cfg(target_os = "linux")]
fn memory(mesh: &mut Mesh, name: &str) -> usize {
    let path = format!("/proc/{}/status", mesh.process(name).child.id());
    let status = std::fs::read_to_string(path).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Clients that send a megabyte each, as a head, as a body and as many requests, all at once and on and on.
#[cfg(target_os = "linux")]
#[test]
fn hostile_clients_do_not_grow_a_node() {
    const MEGABYTE: usize = 1 << 20;
    let mut mesh = serving_http(&NODES[..1]);
    mesh.start(NODES[0], &[]);
    let at = address(&mesh, NODES[0]);
    let rude = move || {
        for n in 0..60 {
            let Ok(mut stream) = TcpStream::connect(at) else { continue };
            stream.set_read_timeout(Some(SOON)).unwrap();
            let text = match n % 3 {
                0 => format!("GET / HTTP/1.1\r\nx: {}", "a".repeat(MEGABYTE)),
                1 => format!("POST /metrics HTTP/1.1\r\ncontent-length: {MEGABYTE}\r\n\r\n{}", "a".repeat(MEGABYTE)),
                _ => "GET /metrics HTTP/1.1\r\nhost: n\r\n\r\n".repeat(MEGABYTE / 36),
            };
            // The node closes before it has read everything.
            let _ = stream.write_all(text.as_bytes());
            let _ = stream.read(&mut [0; 64]);
        }
    };
    let flood = || {
        let clients: Vec<_> = (0..8).map(|_| std::thread::spawn(rude)).collect();
        clients.into_iter().for_each(|client| client.join().unwrap());
    };
    // The first flood fills the pools of the allocator.
    flood();
    let before = memory(&mut mesh, NODES[0]);
    flood();
    let after = memory(&mut mesh, NODES[0]);
    assert!(after < before + 16 * 1024, "from {before} to {after} kB");
    assert_eq!(get(at, "/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(get(at, "/readyz"), (200, "ready\n".to_owned()));
}
