//! Starts a cluster in one process with generated certificates, for the examples.

use std::error::Error;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tallymesh::{Builder, Identity, Node};

/// Starts nodes with these names and waits until each knows all others.
pub(crate) async fn cluster(
    names: &[&str],
    configure: impl Fn(Builder) -> Builder,
) -> Result<Vec<Node>, Box<dyn Error>> {
    let mut nodes: Vec<Node> = Vec::new();
    for (name, identity) in names.iter().zip(identities(names)?) {
        let mut builder = configure(Node::builder(name).identity(identity));
        if let Some(first) = nodes.first() {
            builder = builder.seed(first.listen_addr().to_string());
        }
        nodes.push(builder.start().await?);
    }
    for node in &nodes {
        node.joined().await?;
        while node.members().await?.iter().filter(|member| member.linked).count() + 1 < names.len() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    Ok(nodes)
}

/// Creates a certificate authority, and a certificate for each node.
pub(crate) fn identities(names: &[&str]) -> Result<Vec<Identity>, Box<dyn Error>> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let one = |name: &&str| -> Result<Identity, Box<dyn Error>> {
        let key = KeyPair::generate()?;
        let cert = CertificateParams::new([(*name).to_owned()])?.signed_by(&key, &ca)?;
        Ok(Identity::from_pem(ca.pem().as_bytes(), cert.pem().as_bytes(), key.serialize_pem().as_bytes())?)
    };
    names.iter().map(one).collect()
}
