//! Display text of counts and findings.

use std::fmt;

use tallymesh_schemas::NodeName;

use crate::counter::structure::Count;
use crate::replica::runs::life::Life;
use crate::replica::verify::found::{Fault, Finding, Outcome, Unheld as NotHeld, Verification};

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { total, local, actors, stalest } = self;
        write!(f, "{total} ({local} here, {actors} actors, stalest {:.1} s)", stalest.as_secs_f64())
    }
}

impl Life {
    /// The state in one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Dead => "dead",
            Self::Left => "left",
        }
    }
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { structure, actor, member, applied, head, fault } = self;
        match fault {
            Fault::Differs => write!(f, "{structure}: {member} differs from {actor} at version {applied}"),
            Fault::Lags => write!(f, "{structure}: {member} lags behind {actor}: it has version {applied} of {head}"),
            Fault::Changes => {
                write!(f, "{structure}: {actor} changes too fast to be compared on {member}: {applied} of {head}")
            }
        }
    }
}

impl fmt::Display for NotHeld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run { structure, actor } => write!(f, "{structure}: no place for the rows of {actor}"),
            Self::Node { node } => write!(f, "no place for {node}"),
            Self::Unsent { structure } => write!(f, "{structure}: the others do not get all that this node counts"),
            Self::NoRoom { structure } => write!(f, "{structure}: this node's budget has no room for all keys"),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Converged => "converged",
            Self::NotConverged => "not converged",
            Self::NotCompared => "not compared in time",
        })
    }
}

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = self.outcome();
        let Self { members, structures, actors, copies, .. } = self;
        write!(f, "{verdict}: objects {structures}, actors {actors}, copies {copies}, on {}", list(members))?;
        if !self.beyond.is_empty() {
            write!(f, "; not asked, no link: {}", list(&self.beyond))?;
        }
        let away =
            [("no answer", &self.silent), ("late", &self.late), ("dead", &self.dead), ("no link", &self.unlinked)];
        for (word, members) in away.into_iter().filter(|(_, members)| !members.is_empty()) {
            write!(f, "; {word}: {}", list(members))?;
        }
        for (member, structure) in &self.mismatched {
            write!(f, "; {structure}: {member} has another kind, or too old a build")?;
        }
        self.unheld.iter().try_for_each(|unheld| write!(f, "; {unheld}"))?;
        self.findings.iter().try_for_each(|finding| write!(f, "; {finding}"))
    }
}

fn list(names: &[NodeName]) -> String {
    names.iter().map(NodeName::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tallymesh_schemas::{Actor, Incarnation, StructureName, Version};

    use super::*;

    #[test]
    fn results_read_as_sentences() {
        let count = Count { total: 31, local: 5, actors: 3, stalest: Duration::from_millis(840) };
        assert_eq!(count.to_string(), "31 (5 here, 3 actors, stalest 0.8 s)");
        let node = |name| NodeName::new(name).unwrap();
        let structure = StructureName::new("inbound_cidr").unwrap();
        let finding = Finding {
            structure,
            actor: Actor::new(node("a"), Incarnation(3)),
            member: node("b"),
            applied: Version(2),
            head: Version(7),
            fault: Fault::Lags,
        };
        let found = finding.to_string();
        assert!(found.starts_with("inbound_cidr: b lags behind a"), "{found}");
        assert!(found.ends_with("it has version 2 of 7"), "{found}");
        assert_eq!(format!("{:>8}", Life::Dead), "    dead");
    }
}
