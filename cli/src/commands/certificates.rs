//! The certificate of a node, as `tally config check` judges it.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tallymesh::{Identity, IdentityError};
use tallymesh_schemas::config::NodeConfig;

use crate::commands::series::moment;

/// A certificate that is valid for less than this many days causes a warning.
const SOON_DAYS: u64 = 30;

/// What is wrong with the files of a certificate.
#[derive(Debug, Default)]
pub(super) struct Checked {
    /// For how many days peers accept the certificate.
    pub(super) days: Option<u64>,
    /// What keeps the node from starting.
    pub(super) faults: Vec<String>,
    /// What needs attention.
    pub(super) warnings: Vec<String>,
}

/// Checks the files that a node names, whose paths are complete.
pub(super) fn check(node: &NodeConfig) -> Checked {
    let mut checked = Checked::default();
    let tls = &node.tls;
    match Identity::from_files(&tls.ca, &tls.cert, &tls.key) {
        Ok(identity) if *identity.name() != node.name => {
            let (path, certified) = (tls.cert.display(), identity.name());
            checked.faults.push(format!("{path} is the certificate of node {certified} and not of {}", node.name));
        }
        Ok(identity) => checked.note_expiry(node, identity.valid_until()),
        // A configuration may be checked on a machine that does not have the keys.
        Err(IdentityError::File { path, source }) if source.kind() == ErrorKind::NotFound => {
            checked.warnings.push(format!("{} does not exist here: the certificate is not checked", path.display()));
        }
        Err(error) => checked.faults.push(format!("the certificate of {} cannot be used: {error}", node.name)),
    }
    if let Ok(metadata) = fs::metadata(&tls.key) {
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            let path = tls.key.display();
            checked.warnings.push(format!("other users can use {path}, whose mode is {mode:o}: chmod 600 {path}"));
        }
    }
    checked
}

impl Checked {
    fn note_expiry(&mut self, node: &NodeConfig, until: Option<SystemTime>) {
        let Some(until) = until else {
            self.faults.push(format!("peers refuse the certificate of {} now", node.name));
            return;
        };
        let days = until.duration_since(SystemTime::now()).unwrap_or(Duration::ZERO).as_secs() / 86_400;
        self.days = Some(days);
        if days < SOON_DAYS {
            let at = until.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
            self.warnings.push(format!(
                "the certificate of {} expires in {days} days, at {}: tally init --renew {}",
                node.name,
                moment(at),
                node.name
            ));
        }
    }
}
