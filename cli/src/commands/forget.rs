//! `tally cluster forget`: removes the counts of a node that does not come back.

use serde_json::json;
use tallymesh_schemas::admin::Request;

use crate::args::node_name;
use crate::client::Target;
use crate::failure::Failure;
use crate::output::{Format, Out};

/// Makes all nodes forget the node.
pub(crate) fn run(node: &str, target: &Target, format: Format) -> Result<(), Failure> {
    let format = format.no_csv("cluster forget")?;
    let node = node_name(node)?;
    target.connect()?.order(&Request::Forget { node: node.clone() })?;
    let mut out = Out::open();
    match format {
        Format::Json => out.json(&json!({ "forgotten": node }))?,
        _ => out.line(format!("{node} is forgotten"))?,
    }
    out.flush()
}
