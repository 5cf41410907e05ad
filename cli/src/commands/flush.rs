//! `tally flush`, and the wait for other nodes after a change.

use std::time::Duration;

use serde_json::json;
use tallymesh_schemas::NodeName;
use tallymesh_schemas::admin::{Answer, Request};

use crate::args::{Flush, Wait};
use crate::client::Target;
use crate::failure::Failure;
use crate::output::{Format, Out};

/// How much longer than the node waits the client waits for its answer.
const MARGIN: Duration = Duration::from_secs(5);

/// Waits until other nodes hold all changes of the asked node, and writes their position.
pub(crate) fn run(Flush { nodes }: Flush, target: &Target, format: Format) -> Result<(), Failure> {
    let format = format.no_csv("flush")?;
    let (position, holders) = flush(target, nodes)?;
    let mut out = Out::open();
    match format {
        Format::Json => out.json(&json!({ "position": position, "holders": holders }))?,
        _ => out.line(&position)?,
    }
    out.flush()?;
    enough(&holders, nodes, target.timeout)
}

/// Waits until as many other nodes as wanted hold the change that was made before.
pub(super) fn wait(Wait { nodes }: &Wait, target: &Target) -> Result<(), Failure> {
    let Some(nodes) = *nodes else { return Ok(()) };
    let (_, holders) = flush(target, nodes)?;
    enough(&holders, nodes, target.timeout)
}

/// Waits until the asked node holds the changes of a position.
pub(super) fn reach(position: String, target: &Target) -> Result<(), Failure> {
    let mut client = target.connect()?;
    client.wait_at_most(Some(target.timeout + MARGIN))?;
    client.order(&Request::Reach { position, patience: target.timeout })
}

fn flush(target: &Target, nodes: u32) -> Result<(String, Vec<NodeName>), Failure> {
    let mut client = target.connect()?;
    client.wait_at_most(Some(target.timeout + MARGIN))?;
    client.one(&Request::Flush { nodes, patience: target.timeout }, |answer| match answer {
        Answer::Flushed { position, holders } => Some((position, holders)),
        _ => None,
    })
}

fn enough(holders: &[NodeName], nodes: u32, patience: Duration) -> Result<(), Failure> {
    if holders.len() >= nodes as usize {
        return Ok(());
    }
    let names: Vec<_> = holders.iter().map(NodeName::as_str).collect();
    let names = if names.is_empty() { String::new() } else { format!(": {}", names.join(", ")) };
    let (held, seconds) = (holders.len(), patience.as_secs_f64());
    Err(Failure::No(format!(
        "the node has made the change, and {held} of {nodes} other nodes hold it after {seconds} s{names}; `tally verify` says who lags"
    )))
}
