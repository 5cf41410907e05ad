//! `tally add`: adds to a count of a node.

use tallymesh_schemas::admin::Request;

use crate::args::Add;
use crate::client::Target;
use crate::commands::flush;
use crate::failure::Failure;
use crate::output::Format;

/// Adds to the asked node's own count of a key. Prints nothing.
pub(crate) fn run(Add { object, key, n, wait }: Add, target: &Target, format: Format) -> Result<(), Failure> {
    format.no_csv("add")?;
    target.connect()?.order(&Request::Add { object, key, n })?;
    flush::wait(&wait, target)
}
