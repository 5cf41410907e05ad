//! Live members that should have a link to this node and have none: the network between the two is cut.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tallymesh_engine::Time;
use tallymesh_schemas::NodeName;

/// How long a member may be without a link before the node reports it. A link that was only interrupted comes back sooner.
const PATIENCE: Duration = Duration::from_secs(10);

/// The members without a link, and since when.
#[derive(Debug, Default)]
pub(super) struct Cuts(BTreeMap<NodeName, Cut>);

#[derive(Debug, Clone, Copy)]
struct Cut {
    since: Time,
    reported: bool,
}

/// A report about a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum News {
    /// It has had no link for this time.
    Cut(NodeName, Duration),
    /// It has a link again, or the node knows that it is not alive.
    Over(NodeName),
}

impl Cuts {
    /// Records which live members have no link now.
    pub(super) fn update(&mut self, now: Time, unlinked: &BTreeSet<NodeName>) -> Vec<News> {
        let over = self.0.iter().filter(|(node, cut)| cut.reported && !unlinked.contains(*node));
        let mut news: Vec<_> = over.map(|(node, _)| News::Over(node.clone())).collect();
        self.0.retain(|node, _| unlinked.contains(node));
        for node in unlinked {
            let cut = self.0.entry(node.clone()).or_insert(Cut { since: now, reported: false });
            let lasts = now.since(cut.since);
            if lasts >= PATIENCE && !std::mem::replace(&mut cut.reported, lasts >= PATIENCE) {
                news.push(News::Cut(node.clone(), lasts));
            }
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_without_a_link_is_reported_once_and_when_that_is_over() {
        let second = |n: u64| Time(n * 1_000_000);
        let node = NodeName::new("n2").unwrap();
        let (cut, whole) = (BTreeSet::from([node.clone()]), BTreeSet::new());
        let mut cuts = Cuts::default();
        assert_eq!(cuts.update(second(1), &cut), []);
        assert_eq!(cuts.update(second(5), &whole), [], "a link that comes back soon is no news");
        assert_eq!(cuts.update(second(6), &cut), []);
        assert_eq!(cuts.update(second(15), &cut), []);
        assert_eq!(cuts.update(second(16), &cut), [News::Cut(node.clone(), Duration::from_secs(10))]);
        assert_eq!(cuts.update(second(17), &cut), [], "once");
        assert_eq!(cuts.update(second(18), &whole), [News::Over(node)]);
        assert_eq!(cuts.update(second(19), &whole), []);
    }
}
