//! A peer with a valid certificate of the cluster that can send anything: QUIC, a hello and frames, without the checks of an
//! honest node.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, Endpoint, RecvStream, SendStream};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tallymesh_schemas::message::{Message, Want};
use tallymesh_schemas::{Actor, NodeName, StructureId, bounds, frame};

use crate::lab;

/// Longer than any exchange on a link takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// The files of the peer's identity.
#[derive(Debug, Clone)]
pub(crate) struct Papers {
    pub(crate) authority: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) name: NodeName,
}

/// A peer that may have many links.
#[derive(Debug)]
pub(crate) struct Peer {
    endpoint: Endpoint,
    papers: Papers,
}

impl Peer {
    /// A peer on the machine of the calling thread.
    pub(crate) fn new(papers: Papers) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&papers.authority).expect("the authority")).expect("it is one");
        let chain = vec![CertificateDer::from_pem_file(&papers.certificate).expect("the certificate")];
        let key = PrivateKeyDer::from_pem_file(&papers.key).expect("the key");
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3 is there")
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .expect("key and certificate fit");
        tls.alpn_protocols = vec![format!("tallymesh/{}", bounds::PROTOCOL_VERSION).into_bytes()];
        let tls = QuicClientConfig::try_from(tls).expect("TLS for QUIC");
        let mut endpoint = Endpoint::client(([0, 0, 0, 0], 0).into()).expect("a port");
        endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(tls)));
        Self { endpoint, papers }
    }

    /// Links to a node, as this run.
    pub(crate) async fn link(&self, node: usize, incarnation: u64) -> Talk {
        let name = crate::cluster::name(node);
        let connecting = self.endpoint.connect(lab::address(node), name.as_str()).expect("an address");
        let conn = tokio::time::timeout(PATIENCE, connecting).await.expect("in time").expect("the certificate is good");
        let mut stream = conn.open_uni().await.expect("one stream is allowed");
        let ours = lab::address(crate::cluster::STRANGER);
        let hello = postcard::to_stdvec(&(&self.papers.name, incarnation, 1u64, ours, "test")).expect("a hello");
        stream.write_all(&framed(&hello)).await.expect("the hello is sent");
        let received = Arc::new(Mutex::new(Received::default()));
        let incoming = conn.accept_uni().await.expect("the node has a stream, too");
        tokio::spawn(receive(incoming, Arc::clone(&received)));
        Talk { conn, stream, received, nonce: 0 }
    }
}

/// What the node has sent on a link.
#[derive(Debug, Default)]
pub(crate) struct Received {
    /// Its applied versions of each actor's rows.
    pub(crate) heads: BTreeMap<(StructureId, Actor), u64>,
    /// Its requests for rows.
    pub(crate) wants: Vec<Want>,
    /// The last probe that it answered.
    pub(crate) answered: u64,
}

/// A link of the peer.
#[derive(Debug)]
pub(crate) struct Talk {
    conn: Connection,
    stream: SendStream,
    received: Arc<Mutex<Received>>,
    nonce: u64,
}

impl Talk {
    /// Sends a message; `false` if the node has closed the link.
    pub(crate) async fn send(&mut self, message: &Message<'_>) -> bool {
        // Without the checks of an honest node.
        self.frame(&postcard::to_stdvec(message).expect("it can be written")).await
    }

    /// Sends a frame.
    pub(crate) async fn frame(&mut self, payload: &[u8]) -> bool {
        self.bytes(&framed(payload)).await
    }

    /// Sends bytes that need not be a frame.
    pub(crate) async fn bytes(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok()
    }

    /// Sends a datagram.
    pub(crate) fn datagram(&self, bytes: Vec<u8>) {
        // A datagram that finds no room is lost.
        let _ = self.conn.send_datagram(bytes.into());
    }

    /// Ends the stream in the middle of a frame.
    pub(crate) fn cut_short(&mut self) {
        self.stream.finish().expect("it is open");
    }

    /// Waits until the node closes the link, and gives its reason.
    pub(crate) async fn refused(self, what: &str) -> String {
        let ended = tokio::time::timeout(PATIENCE, self.conn.closed()).await;
        ended.unwrap_or_else(|_| panic!("{what}: the link is still open")).to_string()
    }

    /// Waits until the node has answered a probe. Then it has read everything that was sent before.
    pub(crate) async fn all_read(&mut self, what: &str) {
        self.nonce += 1;
        let nonce = self.nonce;
        assert!(self.send(&Message::Probe { nonce }).await, "{what}: the link ended");
        self.until(what, |received| (received.answered >= nonce).then_some(())).await;
    }

    /// Waits until `look` finds something in what the node has sent.
    pub(crate) async fn until<T>(&self, what: &str, mut look: impl FnMut(&Received) -> Option<T>) -> T {
        let wait = async {
            loop {
                if let Some(found) = look(&self.received.lock().expect("no thread panics with it")) {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let ended = self.conn.closed();
        tokio::select! {
            found = tokio::time::timeout(PATIENCE, wait) => found.unwrap_or_else(|_| panic!("{what}: not in time")),
            error = ended => panic!("{what}: the link ended: {error}"),
        }
    }

    /// Closes the link without a goodbye.
    pub(crate) fn close(self) {
        self.conn.close(0u32.into(), b"");
    }
}

async fn receive(mut stream: RecvStream, received: Arc<Mutex<Received>>) {
    let mut first = true;
    loop {
        let mut header = [0; frame::HEADER_BYTES];
        if stream.read_exact(&mut header).await.is_err() {
            return;
        }
        let mut payload = vec![0; frame::payload_len(header).expect("a node sends good frames")];
        if stream.read_exact(&mut payload).await.is_err() {
            return;
        }
        if std::mem::take(&mut first) {
            continue;
        }
        let mut received = received.lock().expect("no thread panics with it");
        match Message::decode(&payload).expect("a node sends good messages") {
            Message::Digest(digest) => {
                received.answered = received.answered.max(digest.answers);
                for part in digest.structures {
                    received.heads.extend(part.entries.into_iter().map(|e| ((part.structure, e.actor), e.applied.0)));
                }
            }
            Message::Want(want) => received.wants.push(want),
            _ => {}
        }
    }
}

fn framed(payload: &[u8]) -> Vec<u8> {
    let header = frame::header(payload.len()).expect("a length that a frame may have");
    [header.as_slice(), payload].concat()
}
