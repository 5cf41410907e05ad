//! The identity of a running node: another certificate, another key and other authorities.

use quinn::{Connection, ServerConfig};
use rustls::CertificateError;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::danger::ClientCertVerifier;

use crate::closing::code::Code;
use crate::closing::ending::Ending;
use crate::identity::{Identity, SERVER_NAME};
use crate::mesh::Mesh;
use crate::mesh::settle::DialedBy;
use crate::quic;
use crate::tls::{self, TlsError};
use crate::wall_clock::WallClock;

impl Mesh {
    /// Uses another identity for all handshakes from now on. A link stays, because its peer has proven its key, and a second
    /// handshake would prove nothing more. A link whose peer showed a certificate that the new authorities do not accept ends.
    /// The two nodes then connect again with the certificates that they have now.
    pub(super) fn use_identity(&mut self, identity: Identity) -> Result<(), TlsError> {
        let server: ServerConfig = quic::server(tls::server(&identity)?, self.dialer.transport.clone());
        // An error must appear here and not at the next dial.
        tls::client(&identity)?;
        self.dialer.endpoint.set_server_config(Some(server));
        self.dialer.identity = identity;
        for live in self.state.links.values() {
            if let Err(error) = self.accepts(live.link.conn(), live.candidate.dialed_by) {
                tracing::info!(peer = %live.link.peer(), %error, "the authorities have changed: the nodes connect again");
                let why = "its certificate is not accepted any more";
                live.link.end(Code::Closed, Ending::local(why), "the authorities have changed: connect again");
            }
        }
        // A peer that had refused the earlier certificate may accept this one.
        let now = self.now();
        self.plan.hurry(now);
        Ok(())
    }

    /// Whether the node's authorities accept the certificate that the peer of a connection has shown. A handshake that began
    /// before a change of the authorities may end after it.
    pub(super) fn accepts(&self, conn: &Connection, dialed_by: DialedBy) -> Result<(), rustls::Error> {
        let chain = conn.peer_identity().and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok());
        let refused = || rustls::Error::InvalidCertificate(CertificateError::BadEncoding);
        let chain = chain.ok_or_else(refused)?;
        let (own, intermediates) = chain.split_first().ok_or_else(refused)?;
        let (identity, now) = (&self.dialer.identity, WallClock::now());
        match dialed_by {
            DialedBy::Us => {
                let name = ServerName::try_from(SERVER_NAME).map_err(|_| refused())?;
                identity.listener_verifier().verify_server_cert(own, intermediates, &name, &[], now).map(drop)
            }
            DialedBy::Peer => {
                let verifier = identity.dialer_verifier().map_err(|error| rustls::Error::General(error.to_string()))?;
                verifier.verify_client_cert(own, intermediates, now).map(drop)
            }
        }
    }
}
