//! A peer with a valid certificate of the cluster that says what it likes: QUIC, a hello and frames, and nothing of what
//! keeps a node of ours from saying it.

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

/// Longer than anything takes on a link that is up.
const PATIENCE: Duration = Duration::from_secs(20);

/// The files that say who the peer is.
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
    /// On the machine of the thread that calls.
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

    /// Links with a node, as this run.
    pub(crate) async fn link(&self, node: usize, incarnation: u64) -> Talk {
        let name = crate::cluster::name(node);
        let connecting = self.endpoint.connect(lab::address(node), name.as_str()).expect("an address");
        let conn = tokio::time::timeout(PATIENCE, connecting).await.expect("in time").expect("the certificate is good");
        let mut stream = conn.open_uni().await.expect("one stream is allowed");
        let ours = lab::address(crate::cluster::STRANGER);
        let hello = postcard::to_stdvec(&(&self.papers.name, incarnation, 1u64, ours, "test")).expect("a hello");
        stream.write_all(&framed(&hello)).await.expect("the hello is sent");
        let heard = Arc::new(Mutex::new(Heard::default()));
        let incoming = conn.accept_uni().await.expect("the node has a stream, too");
        tokio::spawn(hear(incoming, Arc::clone(&heard)));
        Talk { conn, stream, heard, nonce: 0 }
    }
}

/// What the node has said on a link.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// How far it is with each actor's rows.
    pub(crate) heads: BTreeMap<(StructureId, Actor), u64>,
    /// What it asked for.
    pub(crate) wants: Vec<Want>,
    /// The last probe that it answered.
    pub(crate) answered: u64,
}

/// A link of the peer's.
#[derive(Debug)]
pub(crate) struct Talk {
    conn: Connection,
    stream: SendStream,
    heard: Arc<Mutex<Heard>>,
    nonce: u64,
}

impl Talk {
    /// Says a message; `false` when the node has closed the link.
    pub(crate) async fn say(&mut self, message: &Message<'_>) -> bool {
        // Past the checks that a node of ours makes before it sends.
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
        // One that finds no room is lost, as datagrams are.
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

    /// Waits until the node has answered a probe: then it has read all that was said before.
    pub(crate) async fn heard_out(&mut self, what: &str) {
        self.nonce += 1;
        let nonce = self.nonce;
        assert!(self.say(&Message::Probe { nonce }).await, "{what}: the link ended");
        self.until(what, |heard| (heard.answered >= nonce).then_some(())).await;
    }

    /// Waits until something was heard.
    pub(crate) async fn until<T>(&self, what: &str, mut look: impl FnMut(&Heard) -> Option<T>) -> T {
        let wait = async {
            loop {
                if let Some(found) = look(&self.heard.lock().expect("nobody panics with it")) {
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

    /// Leaves without a word.
    pub(crate) fn close(self) {
        self.conn.close(0u32.into(), b"");
    }
}

async fn hear(mut stream: RecvStream, heard: Arc<Mutex<Heard>>) {
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
        let mut heard = heard.lock().expect("nobody panics with it");
        match Message::decode(&payload).expect("a node sends good messages") {
            Message::Digest(digest) => {
                heard.answered = heard.answered.max(digest.answers);
                for part in digest.structures {
                    heard.heads.extend(part.entries.into_iter().map(|e| ((part.structure, e.actor), e.applied)));
                }
            }
            Message::Want(want) => heard.wants.push(want),
            _ => {}
        }
    }
}

fn framed(payload: &[u8]) -> Vec<u8> {
    let header = frame::header(payload.len()).expect("a length that a frame may have");
    [header.as_slice(), payload].concat()
}
