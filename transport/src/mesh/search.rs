//! Whether this node has found its cluster, and the warnings while it has not.

use std::time::Duration;

use crate::bounds::SEEDS_NAMED;
use crate::member::Joining;
use crate::mesh::plan::{Plan, Time};

/// Time between two warnings that no seed answers.
const REMINDER: Duration = Duration::from_secs(60);

/// The search for other nodes.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// No warning before this time.
    quiet_until: Option<Time>,
    /// When this node was last linked; zero before its first link.
    linked_at: Time,
}

/// A warning that is due.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Warning {
    /// Every seed and member that does not lead to a link, with the reason.
    pub(super) tried: String,
    /// How long this node has been without a link.
    pub(super) alone: Duration,
}

impl Search {
    /// Records that this node has a link now.
    pub(super) fn linked(&mut self, now: Time) {
        (self.linked_at, self.quiet_until) = (now, Some(now + REMINDER));
    }

    /// The state of the search of a node without a link, and the warning that is due.
    pub(super) fn without_links(&mut self, now: Time, plan: &Plan) -> (Joining, Option<Warning>) {
        if !plan.has_tried_all() {
            return (Joining::Trying, None);
        }
        let Some(tried) = tried(plan) else { return (Joining::Nobody, None) };
        let due = self.quiet_until.is_none_or(|until| until <= now);
        if !due {
            return (Joining::Unreachable, None);
        }
        self.quiet_until = Some(now + REMINDER);
        (Joining::Unreachable, Some(Warning { tried, alone: now.saturating_sub(self.linked_at) }))
    }

    /// When the next warning may be due.
    pub(super) fn timeout(&self) -> Option<Time> {
        self.quiet_until
    }
}

/// The targets that this node could not reach; `None` when there are none.
fn tried(plan: &Plan) -> Option<String> {
    let mut troubles = plan.troubles();
    let named: Vec<_> = troubles.by_ref().take(SEEDS_NAMED).map(|(whom, why)| format!("{whom} ({why})")).collect();
    let more = troubles.count();
    match (named.is_empty(), more) {
        (true, _) => None,
        (false, 0) => Some(named.join(", ")),
        (false, more) => Some(format!("{} and {more} more", named.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use tallymesh_schemas::actor::NodeName;

    use super::*;
    use crate::config::Timings;
    use crate::mesh::plan::{Origin, Task};

    const SECOND: Duration = Duration::from_secs(1);

    fn plan(seeds: &[&str]) -> Plan {
        let seeds = seeds.iter().map(|seed| (*seed).to_owned()).collect();
        Plan::new(NodeName::new("n1").unwrap(), seeds, Timings::default(), 1)
    }

    /// Makes every due dial fail.
    fn fail(plan: &mut Plan, now: Time) {
        dial(plan, now, |plan, origin| {
            plan.trouble(origin, "no answer in time");
            plan.ended(now, origin, None);
        });
    }

    /// Makes every due dial lead to this node itself.
    fn meet_ourselves(plan: &mut Plan, now: Time) {
        let us = NodeName::new("n1").unwrap();
        dial(plan, now, |plan, origin| plan.ended(now, origin, Some(&us)));
    }

    fn dial(plan: &mut Plan, now: Time, end: impl Fn(&mut Plan, &Origin)) {
        while let Some(task) = plan.poll(now) {
            match task {
                Task::Resolve { seed, .. } => plan.resolved(now, seed, vec!["127.0.0.1:1".parse().unwrap()]),
                Task::Seed { seed, addr } => end(plan, &Origin::Seed { seed, addr }),
                Task::Member { .. } => {}
            }
        }
    }

    #[test]
    fn a_node_that_cannot_join_warns_every_minute_with_what_it_tried() {
        let (mut search, mut plan) = (Search::default(), plan(&["a:1", "b:1"]));
        assert_eq!(search.without_links(Time::ZERO, &plan), (Joining::Trying, None));
        let mut warned = Vec::new();
        for second in 1..=180 {
            let now = SECOND * second;
            fail(&mut plan, now);
            let (joining, warning) = search.without_links(now, &plan);
            assert_eq!(joining, Joining::Unreachable);
            warned.extend(warning.map(|warning| (second, warning)));
        }
        assert_eq!(warned.iter().map(|(second, _)| *second).collect::<Vec<_>>(), [1, 61, 121]);
        assert_eq!(warned[1].1.tried, "a:1 (no answer in time), b:1 (no answer in time)");
        assert_eq!(warned[1].1.alone, SECOND * 61);
    }

    #[test]
    fn a_node_that_lost_its_links_warns_after_a_minute() {
        let (mut search, mut plan) = (Search::default(), plan(&["a:1"]));
        fail(&mut plan, SECOND);
        search.linked(SECOND * 10);
        assert_eq!(search.without_links(SECOND * 69, &plan).1, None);
        assert_eq!(search.without_links(SECOND * 70, &plan).1.unwrap().alone, SECOND * 60);
    }

    #[test]
    fn a_node_without_other_seeds_has_no_node_to_join() {
        assert_eq!(Search::default().without_links(SECOND, &plan(&[])), (Joining::Nobody, None));
        let mut itself = plan(&["n1:1"]);
        meet_ourselves(&mut itself, SECOND);
        assert_eq!(Search::default().without_links(SECOND * 99, &itself), (Joining::Nobody, None));
    }
}
