//! A cluster's certificate authority: nodes with its certificates may join.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use tallymesh_schemas::NodeName;

/// The subject of every authority. It must not change: with it and the key, the authority can sign again.
const SUBJECT: &str = "Tallymesh cluster authority";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long an authority's certificate is valid: 10 years.
const AUTHORITY_LIFE: Duration = DAY.saturating_mul(3652);

/// How long a node's certificate is valid: 2 years.
const NODE_LIFE: Duration = DAY.saturating_mul(730);

/// The largest clock offset at which a new certificate is valid already.
const CLOCK_SKEW: Duration = DAY;

/// An authority with its key.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate, PEM.
    pub(crate) certificate: String,
}

/// A certificate and its key, PEM.
pub(crate) struct Issued {
    /// The certificate.
    pub(crate) certificate: String,
    /// The key.
    pub(crate) key: String,
}

impl Authority {
    /// Makes an authority with a new key.
    pub(crate) fn new() -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let params = authority();
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    /// The authority with a certificate and key that [`Authority::new`] made earlier. This does not check that they belong
    /// together; the check of a node's certificate shows that.
    pub(crate) fn from_pem(certificate: String, key: &str) -> Result<Self, rcgen::Error> {
        Ok(Self { issuer: Issuer::new(authority(), KeyPair::from_pem(key)?), certificate })
    }

    /// The authority's key, PEM.
    pub(crate) fn key(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Makes a key for a node, and a certificate with the node's name.
    pub(crate) fn issue(&self, node: &NodeName) -> Result<Issued, rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::new([node.to_string()])?;
        params.distinguished_name = named(node.as_str());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // A node listens and dials.
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = valid_for(NODE_LIFE);
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Issued { certificate, key: key.serialize_pem() })
    }
}

fn authority() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(SUBJECT);
    // It signs nodes, and no further authorities.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = valid_for(AUTHORITY_LIFE);
    params
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// The validity from now on, and a clock offset earlier, for as long as `life`.
fn valid_for<T: From<SystemTime>>(life: Duration) -> (T, T) {
    let now = SystemTime::now();
    ((now - CLOCK_SKEW).into(), (now + life).into())
}

#[cfg(test)]
mod tests {
    use tallymesh::Identity;

    use super::*;

    #[test]
    fn certificates_of_a_stored_authority_name_their_nodes() {
        let authority = Authority::new().unwrap();
        let again = Authority::from_pem(authority.certificate.clone(), &authority.key()).unwrap();
        for name in ["relay-0-1", "mx.example.net", "node_7", "a"] {
            let node = NodeName::new(name).unwrap();
            for authority in [&authority, &again] {
                let Issued { certificate, key } = authority.issue(&node).unwrap();
                let identity =
                    Identity::from_pem(authority.certificate.as_bytes(), certificate.as_bytes(), key.as_bytes());
                assert_eq!(*identity.unwrap().name(), node);
            }
        }
    }

    #[test]
    fn another_authority_with_the_same_name_is_another_authority() {
        let (ours, other) = (Authority::new().unwrap(), Authority::new().unwrap());
        let Issued { certificate, key } = other.issue(&NodeName::new("relay-0-1").unwrap()).unwrap();
        assert!(Identity::from_pem(ours.certificate.as_bytes(), certificate.as_bytes(), key.as_bytes()).is_err());
    }
}
