//! QUIC Initials without a connection: what an attacker sends who only wants to cause work.
//!
//! Each is a client's first packet (RFC 9000 section 17.2.2, protected as in RFC 9001 section 5). It carries a genuine TLS
//! ClientHello, so that the node has to answer with its certificate and to wait for more.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::quic::{ClientConnection, Keys, Version};
use rustls::{CipherSuite, RootCertStore, Side, SupportedCipherSuite};

/// Bytes of a datagram that begins a connection: fewer are not answered.
const DATAGRAM: usize = 1200;

/// The client's connection id. It is constant, because the ClientHello repeats it.
const OURS: [u8; 8] = *b"nuisance";

const PACKET_NUMBER_BYTES: usize = 4;
const TAG_BYTES: usize = 16;

/// Makes Initials.
pub(crate) struct Initials {
    hello: Vec<u8>,
    provider: Arc<CryptoProvider>,
}

impl Initials {
    /// With a valid ClientHello.
    pub(crate) fn new() -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3 is there")
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"tallymesh/1".to_vec()];
        // initial_source_connection_id
        let parameters = [&[0x0f, 8], OURS.as_slice()].concat();
        let name = "node.invalid".try_into().expect("a server name");
        let mut client = ClientConnection::new(Arc::new(tls), Version::V1, name, parameters).expect("a client");
        let mut hello = Vec::new();
        client.write_hs(&mut hello);
        Self { hello, provider }
    }

    /// The first datagram of a connection to the connection id `theirs`, with a token if the node has sent one.
    pub(crate) fn datagram(&self, theirs: &[u8], token: &[u8]) -> Vec<u8> {
        seal(theirs, token, self.client_hello(), &self.keys(theirs, Side::Client))
    }

    /// The first datagram of a connection, which closes it at once with an application's code.
    pub(crate) fn closing(&self, theirs: &[u8], code: usize, reason: &str) -> Vec<u8> {
        let frames = [self.client_hello(), close(code, reason)].concat();
        seal(theirs, &[], frames, &self.keys(theirs, Side::Client))
    }

    /// A server's answer to the first datagram of a connection that closes it with an application's code, before the server has
    /// shown a certificate.
    pub(crate) fn refusal(&self, asked: &[u8], code: usize, reason: &str) -> Option<Vec<u8>> {
        if asked.first()? & 0xf0 != 0xc0 {
            return None;
        }
        let (ours, rest) = asked.get(5..)?.split_first()?;
        let (ours, rest) = rest.split_at_checked(usize::from(*ours))?;
        let (theirs, rest) = rest.split_first()?;
        let theirs = rest.get(..usize::from(*theirs))?;
        Some(seal(theirs, &[], close(code, reason), &self.keys(ours, Side::Server)))
    }

    fn client_hello(&self) -> Vec<u8> {
        let mut frame = vec![0x06, 0];
        put_length(&mut frame, self.hello.len());
        frame.extend_from_slice(&self.hello);
        frame
    }

    fn keys(&self, connection: &[u8], side: Side) -> Keys {
        let suites = &self.provider.cipher_suites;
        let suite = suites.iter().find(|suite| suite.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256);
        let Some(SupportedCipherSuite::Tls13(suite)) = suite else { panic!("every QUIC has this suite") };
        Keys::initial(Version::V1, suite, suite.quic.expect("it is QUIC's own"), connection, side)
    }
}

/// CONNECTION_CLOSE with a code of the application. An Initial packet must not have it, but an attacker can put it there.
fn close(code: usize, reason: &str) -> Vec<u8> {
    let mut frame = vec![0x1d];
    put_length(&mut frame, code);
    put_length(&mut frame, reason.len());
    frame.extend_from_slice(reason.as_bytes());
    frame
}

/// An Initial packet to the connection id `theirs`, as long as a datagram, with these frames.
fn seal(theirs: &[u8], token: &[u8], mut payload: Vec<u8>, keys: &Keys) -> Vec<u8> {
    let mut packet = vec![0xc0 | (PACKET_NUMBER_BYTES as u8 - 1), 0, 0, 0, 1];
    for name in [theirs, &OURS] {
        packet.push(u8::try_from(name.len()).expect("a connection's name is short"));
        packet.extend_from_slice(name);
    }
    put_length(&mut packet, token.len());
    packet.extend_from_slice(token);
    let rest = DATAGRAM - packet.len() - 2;
    put_length(&mut packet, rest);
    let at = packet.len();
    packet.extend_from_slice(&[0; PACKET_NUMBER_BYTES]);
    payload.resize(rest - PACKET_NUMBER_BYTES - TAG_BYTES, 0);
    let tag = keys.local.packet.encrypt_in_place(0, &packet, &mut payload).expect("it is short enough");
    packet.extend_from_slice(&payload);
    packet.extend_from_slice(tag.as_ref());
    let (head, protected) = packet.split_at_mut(at);
    let (number, sample) = protected.split_at_mut(PACKET_NUMBER_BYTES);
    let first = head.first_mut().expect("the header has a first byte");
    let sample = &sample[..keys.local.header.sample_len()];
    keys.local.header.encrypt_in_place(sample, first, number).expect("the sample is long enough");
    packet
}

/// The contents of a Retry: the node's new connection id, and the token that proves the client's address.
pub(crate) fn retry(packet: &[u8]) -> Option<(&[u8], &[u8])> {
    if packet.first()? & 0xf0 != 0xf0 {
        return None;
    }
    let rest = packet.get(5..)?;
    let (ours, rest) = rest.split_first()?;
    let (theirs, rest) = rest.get(usize::from(*ours)..)?.split_first()?;
    let (theirs, rest) = rest.split_at_checked(usize::from(*theirs))?;
    Some((theirs, rest.get(..rest.len().checked_sub(TAG_BYTES)?)?))
}

/// A number below 2^14 as QUIC writes it.
fn put_length(packet: &mut Vec<u8>, length: usize) {
    let length = u16::try_from(length).expect("it fits a datagram");
    packet.extend_from_slice(&(0x4000 | length).to_be_bytes());
}
