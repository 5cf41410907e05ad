//! TLS 1.3 in both directions: both ends show a certificate of the cluster's authority.

use std::sync::Arc;

use quinn::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig};
use rustls::client::Resumption;
use rustls::server::NoServerSessionStorage;
use tallymesh_schemas::bounds::{PROTOCOL_VERSION, PROTOCOL_VERSION_MIN};

use crate::identity::Identity;
use crate::wall_clock::WallClock;

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The key or the certificate does not match.
    #[error("TLS refuses this node's identity: {0}")]
    Identity(#[from] rustls::Error),
    /// The verifier cannot be built.
    #[error("TLS refuses the cluster's authority: {0}")]
    Authority(#[from] rustls::server::VerifierBuilderError),
    /// The provider does not support what QUIC needs.
    #[error("the cryptography provider cannot do QUIC: {0}")]
    Suite(#[from] NoInitialCipherSuite),
}

/// The protocol names of the versions that this build speaks, the newest first.
pub(crate) fn protocols() -> Vec<Vec<u8>> {
    (PROTOCOL_VERSION_MIN..=PROTOCOL_VERSION).rev().map(|version| format!("tallymesh/{version}").into_bytes()).collect()
}

/// The version of a negotiated protocol name.
pub(crate) fn version_of(protocol: &[u8]) -> Option<u8> {
    let version = std::str::from_utf8(protocol).ok()?.strip_prefix("tallymesh/")?.parse().ok()?;
    (PROTOCOL_VERSION_MIN..=PROTOCOL_VERSION).contains(&version).then_some(version)
}

/// The TLS configuration for incoming connections.
pub(crate) fn server(identity: &Identity) -> Result<QuicServerConfig, TlsError> {
    let mut config = rustls::ServerConfig::builder_with_details(Arc::clone(&identity.provider), Arc::new(WallClock))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(identity.dialer_verifier()?))
        .with_single_cert(identity.chain.clone(), identity.key.clone_key())?;
    config.alpn_protocols = protocols();
    // No resumption: every link needs a certificate that is valid now, and early data could be replayed.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(QuicServerConfig::try_from(config)?)
}

/// The TLS configuration for dialing any node of the cluster.
pub(crate) fn client(identity: &Identity) -> Result<QuicClientConfig, TlsError> {
    let mut config = rustls::ClientConfig::builder_with_details(Arc::clone(&identity.provider), Arc::new(WallClock))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(identity.listener_verifier()))
        .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())?;
    config.alpn_protocols = protocols();
    // As for the server. Also, tickets are kept by server name, and all nodes are dialed under the same one.
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    Ok(QuicClientConfig::try_from(config)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_back() {
        for protocol in protocols() {
            assert!(version_of(&protocol).is_some());
        }
        assert_eq!(version_of(b"tallymesh/1"), Some(1));
        assert_eq!(version_of(b"tallymesh/0"), None);
        assert_eq!(version_of(b"tallymesh/999"), None);
        assert_eq!(version_of(b"h3"), None);
    }
}
