//! The names of nodes, and their certificates.

use tallymesh::Identity;
use tallymesh_schemas::NodeName;

use crate::args::node_name;
use crate::authority::{Authority, Issued};
use crate::failure::Failure;

pub(super) const CA_CERTIFICATE: &str = "ca.pem";
pub(super) const CA_KEY: &str = "ca.key";

pub(super) fn names(texts: &[String]) -> Result<Vec<NodeName>, Failure> {
    let mut names: Vec<NodeName> = Vec::new();
    for text in texts {
        let name = node_name(text)?;
        if names.contains(&name) {
            return Err(Failure::Input(format!("{name} is named twice: each node needs a name of its own")));
        }
        if name.as_str() == "ca" {
            let why = "a node cannot be named ca here: its files would be those of the authority";
            return Err(Failure::Input(why.to_owned()));
        }
        names.push(name);
    }
    Ok(names)
}

/// A certificate and key for a node, which the authority's own certificate accepts.
pub(super) fn issued(name: &NodeName, authority: &Authority) -> Result<Issued, Failure> {
    let Issued { certificate, key } =
        authority.issue(name).map_err(|error| cannot_make(&format!("the certificate of {name}"), &error))?;
    Identity::from_pem(authority.certificate.as_bytes(), certificate.as_bytes(), key.as_bytes()).map_err(|error| {
        let why = format!("the cluster would refuse {name}: {error}");
        Failure::Input(format!(
            "{why}; do {CA_CERTIFICATE} and {CA_KEY} belong together, and did tally init make them?"
        ))
    })?;
    Ok(Issued { certificate, key })
}

pub(super) fn cannot_make(what: &str, error: &rcgen::Error) -> Failure {
    Failure::Input(format!("cannot make {what}: {error}"))
}
