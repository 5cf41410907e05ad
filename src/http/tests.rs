//! The HTTP listener of real nodes: its routes, clients that do not behave, and what the metrics hold.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use tallymesh_schemas::config::{CacheConfig, Metric as AuditMetric, Monitor, OutboundScope};
use tallymesh_schemas::{
    Bound, Class, GaugeCacheSpec, Kind, NodeName, Rate, SeriesName, SeriesSpec, Strength, StructureName, StructureSpec,
    ThrottleSpec,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::*;
use crate::command::Command;
use crate::fixtures::identities;
use crate::metrics::definition::{Kind as MetricKind, Metric};
use crate::metrics::figures::PREFIX;
use crate::{Builder, HttpAddress, Node, StartError};

/// Longer than any step of these tests takes.
const PATIENCE: Duration = Duration::from_secs(30);

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// Configures nodes that serve HTTP on a free port.
fn nodes<const N: usize>(names: [&str; N]) -> [Builder; N] {
    let mut identities = identities(&names).into_iter();
    names.map(|name| Node::builder(name).identity(identities.next().unwrap()).http(LOOPBACK))
}

/// Sends a request and returns the whole answer.
async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> String {
    let mut answer = String::new();
    let exchange = async {
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.read_to_string(&mut answer).await.unwrap();
    };
    timeout(PATIENCE, exchange).await.expect("the node answers");
    answer
}

async fn ask(node: &Node, request: &str) -> String {
    exchange(TcpStream::connect(node.http_addr().unwrap()).await.unwrap(), request).await
}

async fn get(node: &Node, path: &str) -> String {
    ask(node, &format!("GET {path} HTTP/1.1\r\nhost: n\r\n\r\n")).await
}

/// The body of an answer that has this code.
#[track_caller]
fn body<'a>(answer: &'a str, code: &str) -> &'a str {
    assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{answer}");
    answer.split_once("\r\n\r\n").unwrap().1
}

/// Waits until an answer fits.
async fn until(node: &Node, path: &str, fits: impl Fn(&str) -> bool) -> String {
    let begun = Instant::now();
    loop {
        let answer = get(node, path).await;
        if fits(&answer) {
            return answer;
        }
        assert!(begun.elapsed() < PATIENCE, "at last: {answer}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_routes_answer() {
    let [builder] = nodes(["n1"]);
    let node = builder.start().await.unwrap();
    let text = get(&node, "/metrics").await;
    assert!(text.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{text}");
    assert!(body(&text, "200").contains("\ntallymesh_build_info{node=\"n1\""), "{text}");
    let open = "GET /metrics?x=1 HTTP/1.1\r\nhost: n\r\naccept: application/openmetrics-text;version=1.0.0\r\n\r\n";
    let open = ask(&node, open).await;
    assert!(open.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"), "{open}");
    assert!(body(&open, "200").ends_with("# EOF\n"), "{open}");
    assert!(open.contains("vary: Accept\r\n") && open.contains("x-content-type-options: nosniff\r\n"), "{open}");

    assert_eq!(body(&get(&node, "/healthz").await, "200"), "ok\n");
    // A node without seeds has nobody to wait for.
    assert_eq!(body(&until(&node, "/readyz", |answer| answer.contains(" 200 ")).await, "200"), "ready\n");
    let head = ask(&node, "HEAD /healthz HTTP/1.1\r\nhost: n\r\n\r\n").await;
    assert!(body(&head, "200").is_empty() && head.contains("content-length: 3\r\n"), "{head}");

    for path in ["/", "/api/v1/objects", "/metrics/", "//metrics", "/%6detrics"] {
        let answer = get(&node, path).await;
        let listed = body(&answer, "404");
        assert!(["/metrics ", "/healthz ", "/readyz "].iter().all(|route| listed.contains(route)), "{listed}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"] {
        let answer = ask(&node, &format!("{method} /metrics HTTP/1.1\r\nhost: n\r\ncontent-length: 0\r\n\r\n")).await;
        assert_eq!(body(&answer, "405"), "the methods are GET, HEAD\n");
        assert!(answer.contains("allow: GET, HEAD\r\n"), "{answer}");
    }
    let counted = until(&node, "/metrics", |text| text.contains("http_requests_total{route=\"/readyz\"")).await;
    assert!(counted.contains("tallymesh_http_requests_total{route=\"other\",code=\"404\"} 5\n"), "{counted}");
    assert!(counted.contains("tallymesh_http_requests_total{route=\"/metrics\",code=\"405\"} 6\n"), "{counted}");
    let address = node.http_addr().unwrap();
    node.shutdown().await;
    assert!(TcpStream::connect(address).await.is_err(), "the port is free");
    std::net::TcpListener::bind(address).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_ready_when_it_has_joined_and_holds_what_its_peers_had() {
    let [first, second] = nodes(["n1", "n2"]);
    // Nothing answers there.
    let nobody = std::net::UdpSocket::bind(LOOPBACK).unwrap().local_addr().unwrap();
    let second = second.seed(nobody.to_string()).replicate(Class::InboundCidr.into());
    let second = second.cache(StructureName::new("sessions").unwrap()).start().await.unwrap();
    let answer = get(&second, "/readyz").await;
    let lines: Vec<_> = body(&answer, "503").lines().collect();
    assert_eq!(lines[..2], ["not ready".to_owned(), format!("join: no seed has answered yet: {nobody}")], "{answer}");
    assert_eq!(lines[2..], ["snapshots: there is no peer to receive from yet"]);
    let text = get(&second, "/metrics").await;
    for line in ["tallymesh_ready{condition=\"join\"} 0\n", "tallymesh_ready{condition=\"disk\"} 1\n"] {
        assert!(text.contains(line), "{text}");
    }
    let first = first.seed(second.listen_addr().to_string()).replicate(Class::InboundCidr.into());
    let first = first.cache(StructureName::new("sessions").unwrap()).start().await.unwrap();
    let address: std::net::IpAddr = "192.0.2.1".parse().unwrap();
    first.cidr("inbound_cidr").unwrap().add(address, 1).unwrap();
    for node in [&second, &first] {
        assert_eq!(body(&until(node, "/readyz", |answer| answer.contains(" 200 ")).await, "200"), "ready\n");
    }
    // It stays ready when its peer has gone: it serves what it holds.
    first.shutdown().await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(body(&get(&second, "/readyz").await, "200"), "ready\n");
    second.shutdown().await;
}

/// Silent, slow and rude clients in all places: a client that behaves is still answered soon, and the node reports the bound.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_do_not_behave_do_not_keep_others_out() {
    let [builder] = nodes(["n1"]);
    let node = builder.start().await.unwrap();
    let address = node.http_addr().unwrap();
    let beginnings =
        ["", "G", "GET /metrics HTTP/1.1\r\n", "GET /metrics HTTP/1.1\r\nhost: ", "POST / HTTP/1.1\r\ncontent-"];
    let mut rude = Vec::new();
    for beginning in beginnings.iter().cycle().take(HTTP_CONNECTIONS * 3) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(beginning.as_bytes()).await.unwrap();
        rude.push(stream);
    }
    let begun = Instant::now();
    assert_eq!(body(&get(&node, "/healthz").await, "200"), "ok\n");
    assert!(begun.elapsed() < HTTP_TIME_OF_A_GOOD_CLIENT, "{:?}", begun.elapsed());
    let text = get(&node, "/metrics").await;
    let connections = text.lines().find_map(|line| line.strip_prefix("tallymesh_http_connections ")).unwrap();
    assert!(connections.parse::<usize>().unwrap() <= HTTP_CONNECTIONS, "{connections}");
    let begun = Instant::now();
    loop {
        let status = node.ask(Command::Status).await.unwrap();
        if status.bounds.iter().any(|(bound, ..)| *bound == Bound::HttpConnections) {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "the bound is not reported");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    node.shutdown().await;
    for mut stream in rude {
        let end = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await;
        assert!(end.is_ok(), "no connection outlives the node");
    }
}

/// Much shorter than the time after which the node gives up each rude client by itself.
const HTTP_TIME_OF_A_GOOD_CLIENT: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unix_socket_serves_too_and_a_place_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("n1.http");
    let [first, second, third] = nodes(["n1", "n2", "n3"]);
    let node = first.http(path.as_path()).start().await.unwrap();
    assert_eq!(node.http_addr(), None);
    let stream = UnixStream::connect(&path).await.unwrap();
    assert_eq!(body(&exchange(stream, "GET /healthz HTTP/1.1\r\nhost: n\r\n\r\n").await, "200"), "ok\n");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let refused = second.http(HttpAddress::Unix(path.clone())).start().await.unwrap_err();
    assert!(matches!(refused, StartError::Http(HttpError::Socket(_))), "{refused}");
    node.shutdown().await;
    assert!(!path.exists());

    let taken = std::net::TcpListener::bind(LOOPBACK).unwrap();
    let refused = third.http(taken.local_addr().unwrap()).start().await.unwrap_err();
    assert!(matches!(&refused, StartError::Http(HttpError::Listen { .. })), "{refused}");
    assert!(refused.to_string().contains(&taken.local_addr().unwrap().to_string()), "{refused}");
}

fn everything(builder: Builder) -> Builder {
    let rate: Rate = "300/5m".parse().unwrap();
    let founders = ["n1", "n2"].map(|name| NodeName::new(name).unwrap());
    let series = SeriesSpec::new(SeriesName::new("logins").unwrap(), Kind::GaugeTable, 300, 2);
    let builder = Class::THROTTLES.into_iter().fold(builder, |builder, class| builder.replicate(class.into()));
    builder
        .replicate(Class::InboundCidr.into())
        .replicate(StructureSpec::from(Class::OutboundDomains).with_max_keys(NonZeroU64::new(500).unwrap()))
        .cache_with(&CacheConfig {
            name: StructureName::new("sessions").unwrap(),
            snapshot: true,
            bounds: tallymesh_schemas::Bounds::default(),
            pace: tallymesh_schemas::config::Pace::default(),
        })
        .gauge_cache(GaugeCacheSpec::new("retries").unwrap())
        .series(series)
        .audit(&[AuditMetric::Connect], Monitor { interval: 300, windows: 2 })
        .founders(founders, Duration::from_secs(30))
        .throttle("campaign", ThrottleSpec::new(rate, Strength::Soft))
        .throttle("strict", ThrottleSpec::new(rate, Strength::Hard))
        .permits("uploads", 20)
        .outbound_messages(OutboundScope::Domain("*".to_owned()), ThrottleSpec::new(rate, Strength::Soft))
}

/// A node with one of everything shows each metric that is defined, and no key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_is_shown_and_no_key() {
    const SECRET: &str = "zebra";
    let dir = tempfile::tempdir().unwrap();
    let [first, second] = nodes(["n1", "n2"]);
    let many = NonZeroU64::new(1_000_000).unwrap();
    let first = everything(first).max_keys(many).max_bytes(many).data_dir(dir.path()).start().await.unwrap();
    let second = everything(second).seed(first.listen_addr().to_string()).start().await.unwrap();
    second.joined().await.unwrap();
    for node in [&first, &second] {
        node.cidr("inbound_cidr").unwrap().add("203.0.113.77".parse::<std::net::IpAddr>().unwrap(), 1).unwrap();
        node.domains("outbound_domains").unwrap().add(&format!("{SECRET}.example"), 1).unwrap();
        node.cache("sessions").unwrap().set(SECRET, SECRET, Duration::ZERO).unwrap();
        node.gauge_cache("retries").unwrap().inc(SECRET, 1).unwrap();
        node.series("logins").unwrap().add(SECRET, 1).unwrap();
        node.audit().record(AuditMetric::Connect, "203.0.113.77".parse().unwrap()).unwrap();
        let soft = ThrottleSpec::new("5/1s".parse().unwrap(), Strength::Soft);
        assert!(node.create_throttle(SECRET, soft).unwrap().take(1).admitted());
        assert!(node.throttle(&format!("domain {SECRET}.example")).is_ok(), "the pattern makes one");
        assert!(node.throttle("campaign").unwrap().take(1).admitted());
        assert!(!node.throttle("campaign").unwrap().take(1000).admitted());
    }
    first.verify(Duration::from_secs(5)).await.unwrap();
    let address = first.http_addr().unwrap();
    let mut silent = Vec::new();
    for _ in 0..HTTP_CONNECTIONS * 2 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let shown = |text: &str, metric: Metric| {
        let name = full_name(metric);
        text.lines().any(|line| line.starts_with(&format!("# TYPE {name} ")))
    };
    let all = || Metric::GROUPS.iter().flat_map(|(_, metrics)| *metrics).copied();
    let text = until(&first, "/metrics", |text| all().all(|metric| shown(text, metric))).await;
    assert!(!text.contains(SECRET) && !text.contains("203.0.113.77"), "{text}");
    for line in [
        "tallymesh_object_rows{object=\"inbound_cidr\"} 2\n",
        "tallymesh_object_keys{object=\"series/logins/300\"} 1\n",
        "tallymesh_object_keys{object=\"audit/connect/300\"} 1\n",
        "tallymesh_object_nodes{object=\"outbound_domains\"} 2\n",
        "tallymesh_cache_entries{object=\"sessions\"} 1\n",
        "tallymesh_throttle_decisions_total{object=\"shared_named_throttles\",throttle=\"campaign\",decision=\"admitted\"} 1\n",
        "tallymesh_throttle_decisions_total{object=\"shared_named_throttles\",throttle=\"campaign\",decision=\"refused\"} 1\n",
        "tallymesh_permits_maximum{permits=\"uploads\"} 20\n",
        "tallymesh_members{state=\"alive\"} 2\n",
        "tallymesh_keys_maximum 1000000\n",
        "tallymesh_object_keys_maximum{object=\"outbound_domains\"} 500\n",
        "tallymesh_state_failing 0\n",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
    second.shutdown().await;
    first.shutdown().await;
}

/// The name of a metric in the text format of Prometheus.
fn full_name(metric: Metric) -> String {
    let definition = metric.definition();
    let unit = definition.unit.map(|unit| format!("_{unit}")).unwrap_or_default();
    let suffix = match definition.kind {
        MetricKind::Counter => "_total",
        MetricKind::Info => "_info",
        MetricKind::Gauge | MetricKind::Histogram => "",
    };
    format!("{PREFIX}_{}{unit}{suffix}", definition.name)
}
