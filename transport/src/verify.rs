//! Verifies the peer's identity: its certificate against the cluster's authority, and the name in it.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use tallymesh_schemas::actor::{NameError, NodeName};

/// Why a certificate does not name a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateNameError {
    /// The certificate cannot be read.
    #[error("the certificate cannot be read: {0}")]
    Malformed(String),
    /// The certificate does not name exactly one DNS name.
    #[error("the certificate has {0} DNS names as subject alternative names; it needs exactly one, the node's name")]
    Count(usize),
    /// The DNS name is no valid node name.
    #[error("the certificate's DNS name is not a node name: {0}")]
    Name(#[from] NameError),
}

/// The node name in a certificate: its only DNS name, in lower case.
pub(crate) fn certificate_name(certificate: &CertificateDer<'_>) -> Result<NodeName, CertificateNameError> {
    let parsed = webpki::EndEntityCert::try_from(certificate)
        .map_err(|error| CertificateNameError::Malformed(error.to_string()))?;
    let mut names = parsed.valid_dns_names();
    match (names.next(), names.count()) {
        (Some(name), 0) => Ok(NodeName::new(&name.to_ascii_lowercase())?),
        (None, _) => Err(CertificateNameError::Count(0)),
        (Some(_), more) => Err(CertificateNameError::Count(more + 1)),
    }
}

/// Checks a listener's certificate.
///
/// A dialer that follows a seed knows an address and no name, so the certificate need not match the name in the TLS hello: any
/// name that the cluster's authority signed is accepted. The dialer reads the name after the handshake and compares it with the
/// expected one then. A certificate is no secret, and only the complete handshake proves the key.
#[derive(Debug)]
pub(crate) struct ListenerVerifier {
    pub(crate) roots: Arc<RootCertStore>,
    pub(crate) provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ListenerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)
            .map_err(unknown_authority)?;
        named(end_entity)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Checks a dialer's certificate, which is mandatory.
#[derive(Debug)]
pub(crate) struct DialerVerifier(Arc<dyn ClientCertVerifier>);

impl DialerVerifier {
    pub(crate) fn new(roots: Arc<RootCertStore>, provider: Arc<CryptoProvider>) -> Result<Self, VerifierBuilderError> {
        WebPkiClientVerifier::builder_with_provider(roots, provider).build().map(Self)
    }
}

impl ClientCertVerifier for DialerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.0.verify_client_cert(end_entity, intermediates, now).map_err(unknown_authority)?;
        named(end_entity)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// The name in a certificate whose chain is valid, or the error that refuses it.
fn named(certificate: &CertificateDer<'_>) -> Result<NodeName, rustls::Error> {
    certificate_name(certificate).map_err(|error| {
        tracing::debug!(%error, "the certificate names no node");
        CertificateError::BadEncoding.into()
    })
}

/// The authorities of two clusters often have the same subject, because the same tool made both. A chain that ends at the right
/// subject with the wrong signature comes from another authority; it is not a broken signature.
fn unknown_authority(error: rustls::Error) -> rustls::Error {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::BadSignature) => CertificateError::UnknownIssuer.into(),
        other => other,
    }
}
