//! Formats nodes and their views.

use std::time::Duration;

use ipnet::IpNet;
use tallymesh::{Actor, Kind, NodeName};
use tallymesh_engine::Structure;
use tallymesh_schemas::key;

use crate::commands::show::{Heading, block_line, entry_line};
use crate::demo::member::Member;
use crate::demo::truth::{Truth, What, listed};

/// Blocks and keys of a page of a listing.
const PAGE: usize = 512;

/// The totals of a node's view at one moment.
struct Totals {
    inbound: i64,
    inbound_own: i64,
    outbound: i64,
    outbound_own: i64,
    actors: u32,
    stalest: Duration,
}

impl Totals {
    fn of(member: &Member) -> Self {
        let everything = [IpNet::V4(ipnet::Ipv4Net::default()), IpNet::V6(ipnet::Ipv6Net::default())];
        let [v4, v6] = everything.map(|net| member.inbound.count(net));
        let sum = |from: Option<&NodeName>| listed(member.outbound.structure(), from).values().sum();
        Self {
            inbound: v4.total + v6.total,
            inbound_own: v4.local + v6.local,
            outbound: sum(None),
            outbound_own: sum(Some(member.name())),
            actors: v4.actors,
            stalest: v4.stalest,
        }
    }
}

/// A table of each node's totals, and below it the true totals. It fits a terminal of 80 columns.
pub(super) fn table(members: &[Member], truth: &Truth) -> Vec<String> {
    let width = members.iter().map(|member| member.name().as_str().len()).max().unwrap_or(0).max(7);
    let mut lines = vec![format!("  {:width$}  inbound   own  outbound   own  nodes counted  stalest", "asked")];
    for member in members {
        let Totals { inbound, inbound_own, outbound, outbound_own, actors, stalest } = Totals::of(member);
        let cut = if member.gate.is_open() { "" } else { "  cut off" };
        let stalest = format!("{:.2} s", stalest.as_secs_f64());
        lines.push(format!(
            "  {:width$}{inbound:>9}{inbound_own:>6}{outbound:>10}{outbound_own:>6}{actors:>15}{stalest:>9}{cut}",
            member.name()
        ));
    }
    let (inbound, outbound) = (truth.total(What::Inbound), truth.total(What::Outbound));
    lines.push(format!("  {:width$}{inbound:>9}{:>6}{outbound:>10}", "in fact", ""));
    lines
}

/// The totals on one line.
pub(super) fn line(members: &[Member], truth: &Truth) -> String {
    let said = members.iter().map(|member| {
        let Totals { inbound, outbound, stalest, .. } = Totals::of(member);
        format!("{} {inbound}/{outbound} ({:.2} s)", member.name(), stalest.as_secs_f64())
    });
    let fact = format!("{}/{}", truth.total(What::Inbound), truth.total(What::Outbound));
    format!("  in/out: {}, in fact {fact}", said.collect::<Vec<_>>().join(", "))
}

/// A node's view of an object, as `tally shared show` writes it.
pub(super) fn view(object: &std::sync::Arc<Structure>, from: Option<&NodeName>) -> Vec<String> {
    let (spec, kind) = (object.spec(), object.kind());
    let actor: Option<Actor> = from.and_then(|node| object.latest(node));
    let mut lines =
        vec![Heading { name: spec.name.as_str(), kind, snapshot: spec.snapshot, actor: actor.as_ref() }.to_string()];
    let Some(mut listing) = object.list(from) else { return lines };
    loop {
        let page: Vec<_> = match kind {
            Kind::CidrTree => listing.blocks(PAGE).iter().map(|block| block_line(block.net, block.count)).collect(),
            Kind::GaugeTable | Kind::ThrottleTable | Kind::Cache => {
                let text = |key: &[u8]| key::display(kind, key).unwrap_or_else(|error| error.to_string());
                listing.entries(PAGE).iter().map(|entry| entry_line(&text(&entry.key), entry.count)).collect()
            }
        };
        if page.is_empty() {
            return lines;
        }
        lines.extend(page);
    }
}
