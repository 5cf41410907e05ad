//! The identity of this node: the cluster's authority, the node's certificate and key.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::RootCertStore;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use tallymesh_schemas::actor::NodeName;

use crate::verify::{CertificateNameError, DialerVerifier, ListenerVerifier, certificate_name};
use crate::wall_clock::WallClock;

/// The server name in a dialer's TLS hello. Nothing depends on it and it is not sent, but TLS requires a name.
pub(crate) const SERVER_NAME: &str = "node.tallymesh.invalid";

/// Seconds since 1970 after the last moment that a certificate can name, the end of the year 9999.
const AFTER_ALL: u64 = 253_402_300_800;

/// The cluster's authority, this node's certificate chain and its key.
///
/// The node's name is the only DNS name in its certificate. Clones share the material.
#[derive(Clone)]
pub struct Identity {
    name: NodeName,
    pub(crate) roots: Arc<RootCertStore>,
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: Arc<PrivateKeyDer<'static>>,
    pub(crate) provider: Arc<CryptoProvider>,
}

/// Why an identity was refused.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The PEM text is malformed, or an item is missing.
    #[error("the {what} is not valid PEM: {source}")]
    Pem {
        /// Which of the three texts.
        what: &'static str,
        /// The error.
        source: pem::Error,
    },
    /// There is no certificate in the PEM text.
    #[error("the {0} holds no certificate: it needs at least one block BEGIN CERTIFICATE")]
    Empty(&'static str),
    /// A certificate of the authority is unusable.
    #[error("the authority's certificate cannot be used: {0}")]
    Authority(rustls::Error),
    /// The certificate does not name a node.
    #[error("the node's certificate cannot be used: {0}")]
    Name(#[from] CertificateNameError),
    /// The configured authority did not sign this node's certificate.
    #[error(
        "the cluster would refuse this node's certificate as a {role}: {source}; issue it with the authority given, for both server and client use"
    )]
    Untrusted {
        /// The role: server or client.
        role: &'static str,
        /// The error.
        source: rustls::Error,
    },
    /// The verifier cannot be built.
    #[error("the authority's certificate cannot be used: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    /// The key does not match.
    #[error("the key does not fit the node's certificate: {0}")]
    Key(rustls::Error),
}

impl Identity {
    /// Loads an identity from PEM texts: the authority's certificates, the node's chain (its own certificate first), its key.
    ///
    /// # Errors
    /// [`IdentityError`] when a text cannot be read, the certificate does not name exactly one node, the certificate does not
    /// verify against the authority now, or the key does not match.
    pub fn from_pem(ca: &[u8], chain: &[u8], key: &[u8]) -> Result<Self, IdentityError> {
        let roots = certificates(ca, "authority")?;
        let chain = certificates(chain, "node's certificate chain")?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|source| IdentityError::Pem { what: "key", source })?;
        let mut store = RootCertStore::empty();
        for root in roots {
            store.add(root).map_err(IdentityError::Authority)?;
        }
        let Some(own) = chain.first() else { return Err(IdentityError::Empty("node's certificate chain")) };
        // ring, because it builds with only a C compiler. The provider is passed on explicitly and never installed for the
        // process, so that an embedding service can choose its own.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let identity =
            Self { name: certificate_name(own)?, roots: Arc::new(store), chain, key: Arc::new(key), provider };
        identity.check()?;
        Ok(identity)
    }

    /// Loads the identity of a node from the folder that `tally init --dir DIR` writes: `ca.pem`, `NODE.pem` and `NODE.key`.
    ///
    /// # Errors
    /// As [`Identity::from_files`].
    pub fn from_dir(dir: impl AsRef<Path>, node: &str) -> Result<Self, IdentityError> {
        let path = |name: &str| dir.as_ref().join(name);
        Self::from_files(&path("ca.pem"), &path(&format!("{node}.pem")), &path(&format!("{node}.key")))
    }

    /// As [`Identity::from_pem`] from files.
    ///
    /// # Errors
    /// As [`Identity::from_pem`], and when a file cannot be read.
    pub fn from_files(ca: &Path, cert: &Path, key: &Path) -> Result<Self, IdentityError> {
        let read =
            |path: &Path| std::fs::read(path).map_err(|source| IdentityError::File { path: path.to_owned(), source });
        Self::from_pem(&read(ca)?, &read(cert)?, &read(key)?)
    }

    /// The node's name.
    pub fn name(&self) -> &NodeName {
        &self.name
    }

    /// Until when peers accept the node's certificate: its own expiry, or an earlier one in its chain. `None` when they do not
    /// accept it now. Searches with the verifier of the peers, so it takes some milliseconds, and no second parser of
    /// certificates decides anything.
    pub fn valid_until(&self) -> Option<SystemTime> {
        let (own, intermediates) = self.chain.split_first()?;
        let verifier = self.dialer_verifier().ok()?;
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let valid = |seconds| verifier.verify_client_cert(own, intermediates, at(seconds)).is_ok();
        // Valid at the first moment, and not at the second one.
        let (mut last, mut over) = (WallClock::now().as_secs(), AFTER_ALL);
        if last >= over || !valid(last) {
            return None;
        }
        while over - last > 1 {
            let middle = last + (over - last) / 2;
            *(if valid(middle) { &mut last } else { &mut over }) = middle;
        }
        UNIX_EPOCH.checked_add(Duration::from_secs(last))
    }

    /// The verifier for listeners that this node dials.
    pub(crate) fn listener_verifier(&self) -> ListenerVerifier {
        ListenerVerifier { roots: Arc::clone(&self.roots), provider: Arc::clone(&self.provider) }
    }

    /// The verifier for dialers that connect to this node.
    pub(crate) fn dialer_verifier(&self) -> Result<DialerVerifier, rustls::server::VerifierBuilderError> {
        DialerVerifier::new(Arc::clone(&self.roots), Arc::clone(&self.provider))
    }

    /// Verifies the node's own certificate as a peer does. An error at the start is better than one in every peer's log.
    fn check(&self) -> Result<(), IdentityError> {
        let Some((own, intermediates)) = self.chain.split_first() else {
            return Err(IdentityError::Empty("node's certificate chain"));
        };
        let now = WallClock::now();
        let name = ServerName::try_from(SERVER_NAME).map_err(|_| IdentityError::Empty("server name"))?;
        self.listener_verifier()
            .verify_server_cert(own, intermediates, &name, &[], now)
            .map_err(|source| IdentityError::Untrusted { role: "server", source })?;
        self.dialer_verifier()?
            .verify_client_cert(own, intermediates, now)
            .map_err(|source| IdentityError::Untrusted { role: "client", source })?;
        rustls::sign::CertifiedKey::from_der(self.chain.clone(), self.key.clone_key(), &self.provider)
            .map_err(IdentityError::Key)?;
        Ok(())
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("name", &self.name).finish_non_exhaustive()
    }
}

fn certificates(text: &[u8], what: &'static str) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let certificates = CertificateDer::pem_slice_iter(text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| IdentityError::Pem { what, source })?;
    if certificates.is_empty() { Err(IdentityError::Empty(what)) } else { Ok(certificates) }
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd,
    };

    use super::*;

    #[test]
    fn a_certificate_is_valid_until_its_last_second() {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["n1".to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_after = date_time_ymd(2999, 12, 31);
        let cert = params.signed_by(&key, &ca).unwrap().pem();
        let identity =
            Identity::from_pem(ca.pem().as_bytes(), cert.as_bytes(), key.serialize_pem().as_bytes()).unwrap();
        // 2999-12-31T00:00:00Z.
        let expected = UNIX_EPOCH + Duration::from_secs(32_503_593_600);
        assert_eq!(identity.valid_until(), Some(expected));
    }
}
