//! Fixtures for the tests of nodes.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tallymesh_transport::Identity;

/// Creates a certificate authority, and an identity for each node.
pub(crate) fn identities(names: &[&str]) -> Vec<Identity> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let one = |name: &&str| {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new([(*name).to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
        Identity::from_pem(ca.pem().as_bytes(), cert.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap()
    };
    names.iter().map(one).collect()
}
