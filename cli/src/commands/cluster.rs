//! `tally cluster` and `tally shared`.

use crate::args::{Cluster, Shared};
use crate::client::Target;
use crate::commands::{forget, info, list, membership, show};
use crate::failure::Failure;
use crate::output::Format;

/// Runs a command of `tally cluster`.
pub(crate) fn run(command: Cluster, target: &Target, format: Format) -> Result<(), Failure> {
    match command {
        Cluster::Shared(command) => shared(command, target, format),
        Cluster::Membership => membership::run(target, format),
        Cluster::Info => info::info(target, format),
        Cluster::Nodename => info::nodename(target, format),
        Cluster::Nodeaddr => info::nodeaddr(target, format),
        Cluster::Forget { node } => forget::run(&node, target, format),
    }
}

/// Runs a command of `tally shared`.
pub(crate) fn shared(command: Shared, target: &Target, format: Format) -> Result<(), Failure> {
    match command {
        Shared::List => list::run(target, format),
        Shared::Show { object, from } => show::run(object, &from, target, format),
    }
}
