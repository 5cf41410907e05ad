//! `tally verify`: compares the copies of all nodes with their owners' rows.

use serde_json::json;
use tallymesh_schemas::NodeName;
use tallymesh_schemas::admin::{Answer, Fault, Finding, Outcome, Request, Unheld, Verified};

use crate::args::Verify;
use crate::client::Target;
use crate::commands::info::off;
use crate::failure::Failure;
use crate::output::{Format, Out};
use crate::style;

/// The exit code if no fault was found but not everything could be compared.
const NOT_COMPARED: u8 = 5;

/// Asks the node to compare the members, and writes the result.
pub(crate) fn run(args: &Verify, target: &Target, format: Format) -> Result<(), Failure> {
    let mut client = target.connect()?;
    client.wait_at_most(Some(target.timeout + args.patience))?;
    client.send(&Request::Verify { patience: args.patience })?;
    let Answer::Verified(mut verified) = client.receive()? else { return Err(client.unexpected()) };
    verified.findings.extend(client.rest(|answer| match answer {
        Answer::Findings(findings) => Some(findings),
        _ => None,
    })?);
    let differences = differences(target)?;
    let mut out = Out::open();
    match format {
        Format::Text => {
            out.text(text(&verified))?;
            differences.iter().try_for_each(|difference| out.line(format!("  configurations differ: {difference}")))?;
        }
        Format::Json => {
            let mut json = as_json(&verified);
            json["differences"] = json!(differences);
            out.json(&json)?;
        }
        Format::Csv => {
            csv(&mut out, &verified)?;
            differences.iter().try_for_each(|difference| out.csv(&["", "", "", "", difference, "", ""]))?;
        }
    }
    out.flush()?;
    match verified.outcome {
        Outcome::Converged if verified.clocks.is_empty() && differences.is_empty() => Ok(()),
        Outcome::Converged | Outcome::NotConverged => Err(Failure::Exit(1)),
        Outcome::NotCompared => Err(Failure::Exit(NOT_COMPARED)),
    }
}

/// The members that were not compared, by reason.
fn away(verified: &Verified) -> [(&'static str, &[NodeName]); 5] {
    [
        ("silent", &verified.silent),
        ("late", &verified.late),
        ("dead", &verified.dead),
        ("unlinked", &verified.unlinked),
        ("not asked", &verified.beyond),
    ]
}

fn csv(out: &mut Out, verified: &Verified) -> Result<(), Failure> {
    out.csv(&["object", "node", "incarnation", "member", "finding", "have", "head"])?;
    for finding in &verified.findings {
        let Finding { object, actor, member, applied, head, .. } = finding;
        let (incarnation, applied, head) = (actor.incarnation.to_string(), applied.to_string(), head.to_string());
        out.csv(&[object, actor.node.as_str(), &incarnation, member.as_str(), word(finding), &applied, &head])?;
    }
    for (word, members) in away(verified) {
        members.iter().try_for_each(|member| out.csv(&["", "", "", member.as_str(), word, "", ""]))?;
    }
    for clock in &verified.clocks {
        let finding = if clock.ahead_ms < 0 { "clock behind" } else { "clock ahead" };
        out.csv(&["", "", "", clock.node.as_str(), finding, "", ""])?;
    }
    for (member, object) in &verified.mismatched {
        out.csv(&[object, "", "", member.as_str(), "other kind", "", ""])?;
    }
    for unheld in &verified.unheld {
        match unheld {
            Unheld::Run { object, actor } => {
                let incarnation = actor.incarnation.to_string();
                out.csv(&[object, actor.node.as_str(), &incarnation, "", "not held", "", ""])?;
            }
            Unheld::Node { node } => out.csv(&["", node.as_str(), "", "", "not held", "", ""])?,
            Unheld::Unsent { object } => out.csv(&[object, "", "", "", "not told", "", ""])?,
            Unheld::NoRoom { object } => out.csv(&[object, "", "", "", "no room", "", ""])?,
        }
    }
    Ok(())
}

/// How the limits of other nodes differ from those of the asked node.
pub(super) fn differences(target: &Target) -> Result<Vec<String>, Failure> {
    let mut client = target.connect()?;
    client.send(&Request::Differences)?;
    client.rest(|answer| match answer {
        Answer::Lines(lines) => Some(lines),
        _ => None,
    })
}

fn text(verified: &Verified) -> String {
    let Verified { members, beyond, structures, actors, copies, .. } = verified;
    let others = if beyond.is_empty() { String::new() } else { format!("; not asked, no link: {}", names(beyond)) };
    let compared = format!("objects {structures}, actors {actors}, copies {copies}, on {}{others}", names(members));
    let clocks = verified.clocks.iter();
    let off: String = clocks.map(|clock| format!("  the clock of {}: set the clocks\n", off(clock))).collect();
    let outcome = match verified.outcome {
        Outcome::Converged => style::good("converged"),
        Outcome::NotConverged => style::bad("not converged"),
        Outcome::NotCompared if verified.alone => style::bad("not compared"),
        Outcome::NotCompared => style::bad("not compared in time"),
    };
    let mut text = format!("{outcome}: {compared}\n");
    if verified.alone {
        text += "  this node has a link to no other node: its seeds do not answer\n";
    }
    for finding in &verified.findings {
        let Finding { object, actor, member, applied, head, fault } = finding;
        text += &match fault {
            Fault::Differs => format!("  {object}: {member} differs from {actor} at version {applied}\n"),
            Fault::Lags => format!("  {object}: {member} lags behind {actor}: it has version {applied} of {head}\n"),
            Fault::Changes => format!(
                "  {object}: {actor} changes too fast to be compared on {member}: it has version {applied} of {head}\n"
            ),
        };
    }
    for (word, members) in away(verified) {
        let what = match word {
            "silent" => "does not answer",
            "late" => "did not complete its answer in time",
            "dead" => "is dead and was not asked: if it does not come back, `tally cluster forget` it",
            "unlinked" => "is alive but has no link to this node, so it was not asked",
            _ => continue,
        };
        members.iter().for_each(|member| text += &format!("  {member} {what}\n"));
    }
    for (member, object) in &verified.mismatched {
        text += &format!(
            "  {object}: {member} has another kind for it, or too old a build, so the two do not exchange it: configure the \
             same kind on both nodes, or upgrade the older one\n"
        );
    }
    for unheld in &verified.unheld {
        text += &match unheld {
            Unheld::Run { object, actor } => format!("  {object}: this node has no place for the rows of {actor}\n"),
            Unheld::Node { node } => format!("  this node has no place for {node}, and drops its rows\n"),
            Unheld::Unsent { object } => format!("  {object}: other nodes do not receive all rows of this node\n"),
            Unheld::NoRoom { object } => format!("  {object}: this node's budget has no room for all keys\n"),
        };
    }
    if verified.more_unheld {
        text += "  there are more rows that this node has no place for\n";
    }
    if !verified.unheld.is_empty() {
        text += "  a bound is reached: see `tally cluster info`\n";
    }
    text + &off
}

fn names(members: &[NodeName]) -> String {
    members.iter().map(NodeName::as_str).collect::<Vec<_>>().join(", ")
}

fn word(finding: &Finding) -> &'static str {
    match finding.fault {
        Fault::Lags => "lags",
        Fault::Changes => "changes",
        Fault::Differs => "differs",
    }
}

fn as_json(verified: &Verified) -> serde_json::Value {
    let findings = verified.findings.iter().map(|finding| {
        json!({
            "object": finding.object,
            "node": finding.actor.node,
            "incarnation": finding.actor.incarnation,
            "member": finding.member,
            "finding": word(finding),
            "have": finding.applied,
            "head": finding.head,
        })
    });
    let mismatched = verified.mismatched.iter().map(|(member, object)| json!({ "member": member, "object": object }));
    let unheld = verified.unheld.iter().map(|unheld| match unheld {
        Unheld::Run { object, actor } => {
            json!({ "object": object, "node": actor.node, "incarnation": actor.incarnation })
        }
        Unheld::Node { node } => json!({ "node": node }),
        Unheld::Unsent { object } => json!({ "object": object }),
        Unheld::NoRoom { object } => json!({ "object": object, "no_room": true }),
    });
    json!({
        "converged": verified.outcome == Outcome::Converged,
        "outcome": match verified.outcome {
            Outcome::Converged => "converged",
            Outcome::NotConverged => "not converged",
            Outcome::NotCompared if verified.alone => "not compared",
            Outcome::NotCompared => "not compared in time",
        },
        "alone": verified.alone,
        "members": verified.members,
        "silent": verified.silent,
        "late": verified.late,
        "dead": verified.dead,
        "unlinked": verified.unlinked,
        "beyond": verified.beyond,
        "mismatched": mismatched.collect::<Vec<_>>(),
        "not_held": unheld.collect::<Vec<_>>(),
        "more_not_held": verified.more_unheld,
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
