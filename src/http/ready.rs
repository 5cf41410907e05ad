//! Whether the node can do its work: the conditions of `/readyz`, and what is missing.

use tallymesh_engine::replica::Awaited;

use crate::work::Start;

/// How many seeds, and how many awaited rows, the answer names.
const NAMED: usize = 8;

/// What is missing at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Missing {
    /// Why the node has not joined.
    join: Option<String>,
    /// What it has not received.
    snapshots: Option<String>,
    /// Why it cannot save, if it must.
    disk: Option<String>,
}

impl Missing {
    /// What is missing, by how far the start has come, for a node with these seeds. `trouble` is why it cannot save, if it must.
    pub(super) fn of(start: &Start, seeds: &[String], trouble: Option<String>) -> Self {
        let join = (!start.has_joined).then(|| format!("no seed has answered yet: {}", list(seeds, String::clone)));
        let snapshots = match (start.has_caught_up, start.awaited.is_empty()) {
            (true, _) => None,
            (false, true) => Some("there is no peer to receive from yet".to_owned()),
            (false, false) => Some(format!("this node waits for {}", list(&start.awaited, name))),
        };
        let disk = trouble.map(|trouble| format!("the state cannot be saved: {trouble}"));
        Self { join, snapshots, disk }
    }

    /// The conditions by name, and what is missing of each.
    fn all(&self) -> [(&'static str, Option<&str>); 3] {
        [("join", self.join.as_deref()), ("snapshots", self.snapshots.as_deref()), ("disk", self.disk.as_deref())]
    }

    /// The conditions by name, and whether they hold.
    pub(super) fn conditions(&self) -> [(&'static str, bool); 3] {
        self.all().map(|(condition, missing)| (condition, missing.is_none()))
    }

    /// A line for each condition that does not hold; empty for a node that is ready.
    pub(super) fn lines(&self) -> Vec<String> {
        let missing = self.all().into_iter().filter_map(|(condition, missing)| Some((condition, missing?)));
        missing.map(|(condition, missing)| format!("{condition}: {missing}")).collect()
    }
}

/// Some of the items, and how many more there are.
fn list<T>(items: &[T], name: impl Fn(&T) -> String) -> String {
    let named = items.iter().take(NAMED).map(name).collect::<Vec<_>>().join(", ");
    match items.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

fn name(awaited: &Awaited) -> String {
    match awaited {
        Awaited::Digest { peer } => format!("the list of what {peer} holds"),
        Awaited::Rows { structure, node } => format!("rows of {node} in {structure}"),
        Awaited::Entries { cache, peer } => format!("entries of {cache} from {peer}"),
    }
}

#[cfg(test)]
mod tests {
    use tallymesh_schemas::{Class, NodeName, StructureSpec};

    use super::*;

    #[test]
    fn the_lines_name_what_is_missing() {
        let seeds = ["127.0.0.1:4801".to_owned(), "mx:4802".to_owned()];
        let waiting = Start::default();
        let missing = Missing::of(&waiting, &seeds, Some("disk full".to_owned()));
        assert_eq!(
            missing.lines(),
            [
                "join: no seed has answered yet: 127.0.0.1:4801, mx:4802",
                "snapshots: there is no peer to receive from yet",
                "disk: the state cannot be saved: disk full",
            ]
        );
        assert_eq!(missing.conditions(), [("join", false), ("snapshots", false), ("disk", false)]);

        let peer = NodeName::new("n2").unwrap();
        let structure = StructureSpec::from(Class::InboundCidr).name;
        let awaited = Awaited::Rows { structure: structure.clone(), node: peer.clone() };
        let more = vec![Awaited::Entries { cache: structure, peer: peer.clone() }; NAMED];
        let awaited = [vec![awaited, Awaited::Digest { peer }], more].concat();
        let start = Start { has_joined: true, has_caught_up: false, awaited };
        let lines = Missing::of(&start, &seeds, None).lines();
        assert_eq!(lines.len(), 1);
        assert!(lines[0].starts_with(
            "snapshots: this node waits for rows of n2 in inbound_cidr, the list of what n2 holds, entries of inbound_cidr from n2"
        ));
        assert!(lines[0].ends_with(" and 2 more"), "{}", lines[0]);

        let ready = Missing::of(&Start { has_joined: true, has_caught_up: true, awaited: Vec::new() }, &seeds, None);
        assert!(ready.lines().is_empty() && ready.conditions().iter().all(|(_, holds)| *holds));
    }
}
