//! `tally init --renew`: new certificates and keys for nodes that exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::json;
use tallymesh_schemas::NodeName;

use crate::authority::Authority;
use crate::commands::init::files::{self, NewFile};
use crate::commands::init::issue::{CA_CERTIFICATE, issued, names};
use crate::failure::Failure;
use crate::output::{Format, Out};

/// Which nodes get new certificates.
#[derive(Debug, Clone, Copy)]
pub(super) enum Which<'a> {
    /// These.
    Named(&'a [String]),
    /// Those with a certificate in the folder.
    All,
}

/// Renews the certificates. The configurations stay as they are.
pub(super) fn run(dir: &Path, which: Which<'_>, authority: &Authority, format: Format) -> Result<(), Failure> {
    let here = certified(dir)?;
    let renewed: Vec<_> = match which {
        Which::All => here.into_iter().collect(),
        Which::Named([]) => return Err(Failure::Input("whose certificates? Name the nodes, or give --all".to_owned())),
        Which::Named(texts) => {
            let named = names(texts)?;
            if let Some(unknown) = named.iter().find(|name| !here.contains(*name)) {
                let why = format!("there is no {unknown}.pem in {}", dir.display());
                return Err(Failure::Input(format!("{why}: --add {unknown} makes a new node")));
            }
            named
        }
    };
    if renewed.is_empty() {
        return Err(Failure::Input(format!("there is no certificate of a node in {}", dir.display())));
    }
    let mut new = Vec::new();
    for name in &renewed {
        let made = issued(name, authority)?;
        new.push(NewFile::public(format!("{name}.pem"), made.certificate));
        new.push(NewFile::secret(format!("{name}.key"), made.key));
    }
    files::replace_all(dir, &new)?;
    report(dir, &renewed, format)
}

/// The nodes whose certificates are in the folder.
fn certified(dir: &Path) -> Result<BTreeSet<NodeName>, Failure> {
    let cannot = |error: std::io::Error| Failure::Input(format!("cannot read {}: {error}", dir.display()));
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(dir).map_err(cannot)? {
        let name = entry.map_err(cannot)?.file_name();
        let stem = name.to_str().filter(|name| *name != CA_CERTIFICATE).and_then(|name| name.strip_suffix(".pem"));
        found.extend(stem.and_then(|stem| NodeName::new(stem).ok()));
    }
    Ok(found)
}

fn report(dir: &Path, renewed: &[NodeName], format: Format) -> Result<(), Failure> {
    let mut out = Out::open();
    if format == Format::Json {
        out.json(&json!({ "dir": dir, "renewed": renewed }))?;
        return out.flush();
    }
    let count = if renewed.len() == 1 { "1 node".to_owned() } else { format!("{} nodes", renewed.len()) };
    out.line(format!("Renewed the certificates and keys of {count} in {}:\n", dir.display()))?;
    for name in renewed {
        out.line(format!("  {name}.pem {name}.key"))?;
    }
    out.line("\nA running node uses them some seconds after they are in its own files. It needs no restart.")?;
    out.flush()
}
