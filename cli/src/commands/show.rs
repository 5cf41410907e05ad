//! `tally cluster shared show`: what an object counts, page by page as the node sends it.

use std::fmt;

use ipnet::IpNet;
use serde_json::json;
use tallymesh_schemas::admin::{Answer, CacheItem, Object, Request};
use tallymesh_schemas::{Actor, Kind};

use crate::args::FromNode;
use crate::client::Target;
use crate::commands::caches;
use crate::failure::Failure;
use crate::output::{Format, Out, json};
use crate::style;

/// Asks a node for a view, and writes it.
pub(crate) fn run(object: String, from: &FromNode, target: &Target, format: Format) -> Result<(), Failure> {
    let request = Request::Show { object, from: from.node()? };
    let mut client = target.connect()?;
    client.send(&request)?;
    let Answer::View { object, actor } = client.receive()? else { return Err(client.unexpected()) };
    let mut view = View { out: Out::open(), format, kind: object.kind, first: true };
    view.begin(&object, actor.as_ref())?;
    loop {
        match client.receive()? {
            Answer::Blocks(blocks) => blocks.iter().try_for_each(|(net, count)| view.block(*net, *count))?,
            Answer::Entries(entries) => entries.iter().try_for_each(|(key, count)| view.entry(key, *count))?,
            Answer::CacheItems(items) => items.iter().try_for_each(|item| view.item(item))?,
            Answer::Done => return view.end(),
            _ => return Err(client.unexpected()),
        }
    }
}

/// A view that is being written.
struct View {
    out: Out,
    format: Format,
    kind: Kind,
    first: bool,
}

impl View {
    fn begin(&mut self, object: &Object, actor: Option<&Actor>) -> Result<(), Failure> {
        match self.format {
            Format::Text => {
                let Object { name, kind, snapshot, .. } = object;
                let heading = Heading { name, kind: *kind, snapshot: *snapshot, actor };
                self.out.line(style::strong(&heading.to_string()))
            }
            Format::Csv if self.kind == Kind::Cache => self.out.csv(&caches::COLUMNS),
            Format::Csv => self.out.csv(&[self.column(), "count"]),
            Format::Json => {
                let view = json!({
                    "object": object.name,
                    "class": object.class,
                    "kind": object.kind.label(),
                    "snapshots": object.snapshot,
                    "view": view_name(actor),
                    "node": actor.map(|actor| actor.node.as_str()),
                    "incarnation": actor.map(|actor| actor.incarnation.0),
                });
                let object = json(&view)?;
                self.out.raw(object.strip_suffix('}').unwrap_or(&object))?;
                self.out.raw(",\"rows\":[")
            }
        }
    }

    fn block(&mut self, net: IpNet, count: i64) -> Result<(), Failure> {
        match self.format {
            Format::Text => self.out.line(block_line(net, count)),
            _ => self.row(&net.to_string(), count),
        }
    }

    fn entry(&mut self, key: &str, count: i64) -> Result<(), Failure> {
        match self.format {
            Format::Text => self.out.line(entry_line(key, count)),
            _ => self.row(key, count),
        }
    }

    fn item(&mut self, item: &CacheItem) -> Result<(), Failure> {
        match self.format {
            Format::Text => self.out.line(caches::line(item)),
            Format::Csv => caches::csv(&mut self.out, item),
            Format::Json => {
                if !std::mem::take(&mut self.first) {
                    self.out.raw(",")?;
                }
                let row = json(&caches::as_json(item))?;
                self.out.raw(row)
            }
        }
    }

    fn row(&mut self, key: &str, count: i64) -> Result<(), Failure> {
        if self.format == Format::Csv {
            return self.out.csv(&[key, &count.to_string()]);
        }
        if !std::mem::take(&mut self.first) {
            self.out.raw(",")?;
        }
        let row = json(&json!({ self.column(): key, "count": count }))?;
        self.out.raw(row)
    }

    fn end(mut self) -> Result<(), Failure> {
        if self.format == Format::Json {
            self.out.line("]}")?;
        }
        self.out.flush()
    }

    fn column(&self) -> &'static str {
        match self.kind {
            Kind::CidrTree => "prefix",
            _ => "key",
        }
    }
}

/// The heading of a view: `lazy, snapped cidrtree 'inbound_cidr', view 'global'`.
pub(crate) struct Heading<'a> {
    /// The name of the object.
    pub(crate) name: &'a str,
    /// The kind of its keys.
    pub(crate) kind: Kind,
    /// Whether joining nodes receive a snapshot of it.
    pub(crate) snapshot: bool,
    /// The run whose view it is; `None` for the view of the cluster.
    pub(crate) actor: Option<&'a Actor>,
}

impl fmt::Display for Heading<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, kind, snapshot, actor } = self;
        let snapped = if *snapshot { "snapped " } else { "" };
        write!(f, "lazy, {snapped}{} '{name}', view '{}'", kind.label(), view_name(*actor))
    }
}

/// `global`, or the run of one node as Momentum's console names it.
pub(super) fn view_name(actor: Option<&Actor>) -> String {
    actor.map_or("global".to_owned(), private_name)
}

/// A run of a node as Momentum's console names it: `#ec1-12137#relay-0-1`.
pub(super) fn private_name(Actor { node, incarnation }: &Actor) -> String {
    format!("#ec1-{incarnation}#{node}")
}

/// A line of an address tree: the count ends in column 7, the prefix begins behind 25 blanks.
pub(crate) fn block_line(net: IpNet, count: i64) -> String {
    format!("{count:>7}{:25}{net}", "")
}

/// A line of a table: the key ends in column 60, a colon, and the count ends 13 columns on.
pub(crate) fn entry_line(key: &str, count: i64) -> String {
    format!("{key:>60}:{count:>13}")
}

#[cfg(test)]
mod tests {
    use tallymesh_schemas::{Incarnation, NodeName};

    use super::*;

    #[test]
    fn lines_are_as_on_the_console_to_the_column() {
        assert_eq!(block_line("10.0.0.0/8".parse().unwrap(), 31), "     31                         10.0.0.0/8");
        assert_eq!(block_line("10.0.0.103/32".parse().unwrap(), 4), "      4                         10.0.0.103/32");
        assert_eq!(
            entry_line("aol.com", 10),
            "                                                     aol.com:           10"
        );
    }

    #[test]
    fn headings_name_the_view() {
        let actor = Actor::new(NodeName::new("relay-0-1").unwrap(), Incarnation(12137));
        assert_eq!(
            Heading { name: "inbound_cidr", kind: Kind::CidrTree, snapshot: true, actor: Some(&actor) }.to_string(),
            "lazy, snapped cidrtree 'inbound_cidr', view '#ec1-12137#relay-0-1'"
        );
        assert_eq!(
            Heading { name: "outbound_domains", kind: Kind::GaugeTable, snapshot: false, actor: None }.to_string(),
            "lazy, gauge table 'outbound_domains', view 'global'"
        );
    }
}
