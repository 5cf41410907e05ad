//! `tally cluster membership`: the members in the view of the asked node, one block each.

use serde_json::json;
use tallymesh_schemas::Actor;
use tallymesh_schemas::admin::{Answer, Member, Request};

use crate::client::Target;
use crate::commands::show::private_name;
use crate::commands::verify::differences;
use crate::failure::Failure;
use crate::output::{Format, Out};
use crate::style;

/// Asks a node for the members, and writes them.
pub(crate) fn run(target: &Target, format: Format) -> Result<(), Failure> {
    let members = target.connect()?.one(&Request::Members, |answer| match answer {
        Answer::Members(members) => Some(members),
        _ => None,
    })?;
    let mut out = Out::open();
    match format {
        Format::Text => {
            for (index, member) in members.iter().enumerate() {
                out.text(if index == 0 { "" } else { "\n" })?;
                block(&mut out, member)?;
            }
            for difference in differences(target)? {
                out.line(format!("\nconfigurations differ: {difference}"))?;
            }
        }
        Format::Json => out.json(&members.iter().map(as_json).collect::<Vec<_>>())?,
        Format::Csv => {
            out.csv(&["node", "incarnation", "version", "address", "state", "linked", "rtt_us"])?;
            for member in &members {
                let (incarnation, linked) = (member.incarnation.to_string(), member.linked.to_string());
                let address = member.addr.map(|addr| addr.to_string()).unwrap_or_default();
                let rtt = member.rtt_us.map(|rtt| rtt.to_string()).unwrap_or_default();
                let node = member.node.as_str();
                out.csv(&[node, &incarnation, &member.version, &address, &member.state, &linked, &rtt])?;
            }
        }
    }
    out.flush()
}

fn block(out: &mut Out, member: &Member) -> Result<(), Failure> {
    let actor = Actor::new(member.node.clone(), member.incarnation);
    let unknown = || "unknown".to_owned();
    let link = match (member.state.as_str(), member.linked, member.rtt_us) {
        ("self", ..) => "this is the asked node".to_owned(),
        (_, false, _) => "none".to_owned(),
        (_, true, None) => "up".to_owned(),
        (_, true, Some(rtt)) => format!("up, round trip {:.3} ms", rtt as f64 / 1000.0),
    };
    out.line(style::strong(&private_name(&actor)))?;
    let version = if member.version.is_empty() { unknown() } else { member.version.clone() };
    for (label, value) in [
        ("Node name", member.node.to_string()),
        ("Type", "tallymesh".to_owned()),
        ("Version", version),
        ("Address", member.addr.map_or_else(unknown, |addr| addr.to_string())),
        ("State", member.state.clone()),
        ("Link", link),
    ] {
        out.line(format!("    {label:<10} {value}"))?;
    }
    Ok(())
}

fn as_json(member: &Member) -> serde_json::Value {
    json!({
        "node": member.node,
        "incarnation": member.incarnation,
        "type": "tallymesh",
        "version": member.version,
        "address": member.addr,
        "state": member.state,
        "linked": member.linked,
        "rtt_us": member.rtt_us,
    })
}
