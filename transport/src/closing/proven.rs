//! Connections whose peer has proven its identity.

use quinn::{Connection, ConnectionError};
use rustls::pki_types::CertificateDer;
use tallymesh_schemas::actor::NodeName;

use crate::closing::code::Code;
use crate::closing::ending::{Ending, Unproven};
use crate::counters::Refusal;
use crate::verify::certificate_name;

/// A connection whose handshake is complete: the peer has a certificate of the cluster and its key.
#[derive(Debug, Clone)]
pub(crate) struct Proven {
    conn: Connection,
    peer: NodeName,
}

impl Proven {
    /// The connection with the name that its certificate proves. QUIC hands out a connection only after its handshake, when TLS
    /// has verified the certificate and the key.
    pub(crate) fn of(conn: Connection) -> Result<Self, Unproven> {
        let chain = conn.peer_identity().and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok());
        let named = match chain.as_ref().and_then(|chain| chain.first()) {
            Some(own) => certificate_name(own).map_err(|error| error.to_string()),
            None => Err("the peer showed no certificate".to_owned()),
        };
        match named {
            Ok(peer) => Ok(Self { conn, peer }),
            Err(reason) => {
                conn.close(Code::of(Refusal::Certificate).var(), reason.as_bytes());
                Err(Unproven::refused(Refusal::Certificate, reason))
            }
        }
    }

    /// The name in the certificate.
    pub(crate) fn peer(&self) -> &NodeName {
        &self.peer
    }

    /// The connection.
    pub(crate) fn conn(&self) -> &Connection {
        &self.conn
    }

    /// The meaning of the end of the connection.
    pub(crate) fn ending(&self, error: &ConnectionError) -> Ending {
        Ending::of(error)
    }

    /// The meaning of the end of the connection, if it has ended.
    pub(crate) fn ended(&self) -> Option<Ending> {
        self.conn.close_reason().map(|error| Ending::of(&error))
    }
}
