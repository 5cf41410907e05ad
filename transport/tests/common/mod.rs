//! Certificates, nodes and waiting, for the tests on real sockets.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tallymesh_schemas::actor::{Incarnation, NodeName};
use tallymesh_transport::{Config, Endpoint, Event, Events, Gate, Identity, Link};

/// Shows the log of a test run that asks for it with `RUST_LOG`.
pub fn log() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    // An error says that another test of this process was first.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_test_writer().try_init();
}

/// Longer than anything takes that is not measured.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// An address that no other process uses: the host is of this process, and the system gives the port to nobody who asks for any
/// free port.
pub fn own_addr(number: u16) -> SocketAddr {
    let [_, a, b, c] = (std::process::id() << 6).to_be_bytes();
    (Ipv4Addr::new(127, a, b, c | 1), 5801 + number).into()
}

/// A cluster's authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// All authorities of these tests bear the same subject, as those made by one tool do.
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test authority");
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for these names and its key.
    pub fn issue(&self, names: &[&str]) -> (String, String) {
        self.issue_for(names, &[ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth])
    }

    pub fn issue_for(&self, names: &[&str], usages: &[ExtendedKeyUsagePurpose]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = usages.to_vec();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    pub fn identity(&self, name: &str) -> Identity {
        let (cert, key) = self.issue(&[name]);
        Identity::from_pem(self.pem().as_bytes(), cert.as_bytes(), key.as_bytes()).unwrap()
    }
}

/// A node under test.
pub struct Node {
    pub endpoint: Endpoint,
    pub events: Events,
    pub gate: Gate,
    /// Notices that were passed over: they have no order among the other events.
    notices: Vec<Event>,
}

impl Node {
    pub fn start(authority: &Authority, name: &str, incarnation: u64, seeds: &[SocketAddr]) -> Self {
        Self::start_with(authority, name, incarnation, seeds, |_| {})
    }

    pub fn start_with(
        authority: &Authority,
        name: &str,
        incarnation: u64,
        seeds: &[SocketAddr],
        adjust: impl FnOnce(&mut Config),
    ) -> Self {
        log();
        let mut config = Config::loopback(Incarnation(incarnation));
        config.seeds = seeds.iter().map(ToString::to_string).collect();
        adjust(&mut config);
        let gate = config.gate.clone();
        let (endpoint, events) = Endpoint::bind(authority.identity(name), config).unwrap();
        Self { endpoint, events, gate, notices: Vec::new() }
    }

    pub fn addr(&self) -> SocketAddr {
        self.endpoint.local_addr()
    }

    /// Waits for an event that `pick` takes; the others are passed over.
    pub async fn expect<T>(&mut self, what: &str, pick: impl FnMut(Event) -> Option<T>) -> T {
        self.expect_within(what, PATIENCE, pick).await
    }

    pub async fn expect_within<T>(
        &mut self,
        what: &str,
        within: Duration,
        mut pick: impl FnMut(Event) -> Option<T>,
    ) -> T {
        let mut passed = Vec::new();
        let mut kept = std::mem::take(&mut self.notices).into_iter();
        while let Some(notice) = kept.next() {
            match pick(notice.clone()) {
                Some(picked) => {
                    self.notices.extend(kept);
                    return picked;
                }
                None => self.notices.push(notice),
            }
        }
        let wait = async {
            loop {
                let Some(event) = self.events.recv().await else { panic!("closed while waiting for {what}") };
                if passed.len() < 50 {
                    passed.push(format!("{event:.120?}"));
                }
                let notice = !matches!(event, Event::Up(_) | Event::Frame { .. } | Event::Down { .. });
                let kept = notice.then(|| event.clone());
                if let Some(picked) = pick(event) {
                    return picked;
                }
                self.notices.extend(kept);
            }
        };
        match tokio::time::timeout(within, wait).await {
            Ok(picked) => picked,
            Err(_) => panic!("{}: no {what} within {within:?}; saw {passed:#?}", self.endpoint.name()),
        }
    }

    pub async fn up(&mut self, peer: &str) -> Link {
        let peer = name(peer);
        self.expect(&format!("link to {peer}"), |event| match event {
            Event::Up(link) if *link.peer() == peer => Some(link),
            _ => None,
        })
        .await
    }

    /// The reason and whether it was a goodbye.
    pub async fn down(&mut self, peer: &str) -> (String, bool) {
        let wanted = name(peer);
        self.expect(&format!("loss of the link to {peer}"), |event| match event {
            Event::Down { peer, reason, goodbye, .. } if peer == wanted => Some((reason, goodbye)),
            _ => None,
        })
        .await
    }

    pub async fn frame(&mut self) -> (NodeName, Bytes) {
        self.expect("frame", |event| match event {
            Event::Frame { peer, payload, .. } => Some((peer, payload)),
            _ => None,
        })
        .await
    }

    /// Events that come within a time in which nothing more should.
    pub async fn drain(&mut self, time: Duration) -> Vec<Event> {
        let mut events = Vec::new();
        let end = tokio::time::Instant::now() + time;
        while let Ok(Some(event)) = tokio::time::timeout_at(end, self.events.recv()).await {
            events.push(event);
        }
        events
    }
}

/// Waits until a condition of two nodes' counters or members holds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(tokio::time::Instant::now() < end, "{what} did not come about");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub fn name(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

/// A QUIC client that is no node: it speaks what the test lets it speak.
pub struct Stranger {
    pub endpoint: quinn::Endpoint,
}

impl Stranger {
    /// A client with a certificate of `own` that trusts `authority`.
    pub fn new(authority: &Authority, own: (String, String), alpn: &str) -> Self {
        Self::at("127.0.0.1:0", authority, own, alpn)
    }

    /// As [`Stranger::new`], from a certain address.
    pub fn at(local: &str, authority: &Authority, own: (String, String), alpn: &str) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(own.0.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(own.1.as_bytes()).unwrap(),
            )
            .unwrap();
        tls.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        let tls = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
        let mut endpoint = quinn::Endpoint::client(local.parse().unwrap()).unwrap();
        endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(tls)));
        Self { endpoint }
    }

    pub async fn connect(&self, node: &Node) -> Result<quinn::Connection, quinn::ConnectionError> {
        self.endpoint.connect(node.addr(), node.endpoint.name().as_str()).unwrap().await
    }
}

/// A hello as the wire has it, with the header of its frame.
pub fn hello(name: &str, incarnation: u64) -> Vec<u8> {
    framed(&hello_payload(name, incarnation))
}

pub fn hello_payload(name: &str, incarnation: u64) -> Vec<u8> {
    let addr: SocketAddr = "127.0.0.1:9".parse().unwrap();
    postcard::to_stdvec(&(name, incarnation, 1u64, addr, "test")).unwrap()
}

pub fn framed(payload: &[u8]) -> Vec<u8> {
    framed_as(tallymesh_schemas::bounds::PROTOCOL_VERSION, payload)
}

pub fn framed_as(version: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = tallymesh_schemas::frame::header_of(version, payload.len()).unwrap().to_vec();
    frame.extend_from_slice(payload);
    frame
}
