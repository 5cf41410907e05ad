//! `tally verify`: whether all nodes hold what every owner has.

use serde_json::json;
use tallymesh_schemas::NodeName;
use tallymesh_schemas::admin::{Answer, Finding, Request, Verified};

use super::info::off;
use crate::args::Verify;
use crate::client::Target;
use crate::failure::Failure;
use crate::output::{Format, Out};
use crate::style;

/// Has the members compared, and writes what was found.
pub(crate) fn run(args: &Verify, target: &Target, format: Format) -> Result<(), Failure> {
    let mut client = target.connect()?;
    client.wait_at_most(Some(target.timeout + args.patience))?;
    client.send(&Request::Verify { patience: args.patience })?;
    let Answer::Verified(mut verified) = client.receive()? else { return Err(client.unexpected()) };
    verified.findings.extend(client.rest(|answer| match answer {
        Answer::Findings(findings) => Some(findings),
        _ => None,
    })?);
    let mut out = Out::open();
    match format {
        Format::Text => out.text(text(&verified))?,
        Format::Json => out.json(&as_json(&verified))?,
        Format::Csv => {
            out.csv(&["object", "node", "incarnation", "member", "finding", "have", "head"])?;
            for finding in &verified.findings {
                let Finding { object, actor, member, have, head, .. } = finding;
                let (incarnation, have, head) = (actor.incarnation.to_string(), have.to_string(), head.to_string());
                out.csv(&[object, actor.node.as_str(), &incarnation, member.as_str(), word(finding), &have, &head])?;
            }
            for member in &verified.silent {
                out.csv(&["", "", "", member.as_str(), "silent", "", ""])?;
            }
            for clock in &verified.clocks {
                let finding = if clock.ahead_ms < 0 { "clock behind" } else { "clock ahead" };
                out.csv(&["", "", "", clock.node.as_str(), finding, "", ""])?;
            }
            for member in &verified.beyond {
                out.csv(&["", "", "", member.as_str(), "not asked", "", ""])?;
            }
        }
    }
    out.flush()?;
    if verified.converged() && verified.clocks.is_empty() { Ok(()) } else { Err(Failure::Exit(1)) }
}

fn text(verified: &Verified) -> String {
    let Verified { members, silent, beyond, structures, actors, copies, findings, clocks } = verified;
    let others = if beyond.is_empty() { String::new() } else { format!("; not asked, no link: {}", names(beyond)) };
    let compared = format!("objects {structures}, actors {actors}, copies {copies}, on {}{others}", names(members));
    let off: String = clocks.iter().map(|clock| format!("  the clock of {}: set the clocks\n", off(clock))).collect();
    if verified.converged() {
        return format!("{}: {compared}\n{off}", style::good("converged"));
    }
    let mut text = format!("{}: {compared}\n", style::bad("not converged"));
    for finding in findings {
        let Finding { object, actor, member, have, head, differs } = finding;
        text += &match differs {
            true => format!("  {object}: {member} differs from {actor} at version {have}\n"),
            false => format!("  {object}: {member} lags behind {actor}: it has version {have} of {head}\n"),
        };
    }
    for member in silent {
        text += &format!("  {member} does not answer\n");
    }
    text + &off
}

fn names(members: &[NodeName]) -> String {
    members.iter().map(NodeName::as_str).collect::<Vec<_>>().join(", ")
}

fn word(finding: &Finding) -> &'static str {
    if finding.differs { "differs" } else { "lags" }
}

fn as_json(verified: &Verified) -> serde_json::Value {
    let findings = verified.findings.iter().map(|finding| {
        json!({
            "object": finding.object,
            "node": finding.actor.node,
            "incarnation": finding.actor.incarnation,
            "member": finding.member,
            "finding": word(finding),
            "have": finding.have,
            "head": finding.head,
        })
    });
    json!({
        "converged": verified.converged(),
        "members": verified.members,
        "silent": verified.silent,
        "beyond": verified.beyond,
        "structures": verified.structures,
        "actors": verified.actors,
        "copies": verified.copies,
        "findings": findings.collect::<Vec<_>>(),
        "clocks": verified.clocks.iter().map(|clock| json!({
            "member": clock.node,
            "ahead_ms": clock.ahead_ms,
        })).collect::<Vec<_>>(),
    })
}
