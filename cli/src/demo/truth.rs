//! The ground truth: a tally that is separate from the cluster, and its comparison with the view of every node.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tallymesh::NodeName;
use tallymesh_engine::Structure;
use tallymesh_schemas::key;

use crate::demo::member::Member;

/// Differences that are shown. Further ones are only counted.
const SHOWN: usize = 8;

/// Keys of a page of a listing.
const PAGE: usize = 512;

/// The pause between two comparisons.
const LOOK: Duration = Duration::from_millis(10);

/// Counts by key, without those that are zero.
type Counts = BTreeMap<String, i64>;

/// What is counted: connections from senders, or to domains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    /// Inbound, by address.
    Inbound,
    /// Outbound, by domain.
    Outbound,
}

/// The true counts of each node. Clones share one tally.
#[derive(Debug, Clone, Default)]
pub(super) struct Truth(Arc<Mutex<BTreeMap<(usize, What), Counts>>>);

impl Truth {
    /// Records that a node counted.
    pub(super) fn add(&self, node: usize, what: What, key: &str, n: i64) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = all.entry((node, what)).or_default();
        match counts.get_mut(key) {
            Some(count) => *count += n,
            None => drop(counts.insert(key.to_owned(), n)),
        }
        counts.retain(|_, count| *count != 0);
    }

    /// The true counts of one node.
    pub(super) fn of(&self, node: usize, what: What) -> Counts {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&(node, what)).cloned().unwrap_or_default()
    }

    /// The true counts of the cluster.
    pub(super) fn all(&self, what: What) -> Counts {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sum = Counts::new();
        for (_, counts) in all.iter().filter(|((_, counted), _)| *counted == what) {
            for (key, count) in counts {
                *sum.entry(key.clone()).or_default() += count;
            }
        }
        sum.retain(|_, count| *count != 0);
        sum
    }

    /// The true total.
    pub(super) fn total(&self, what: What) -> i64 {
        self.all(what).values().sum()
    }

    /// Every difference between a node's views and the truth: of the cluster's view, and of the view of each node.
    pub(super) fn differences(&self, members: &[Member]) -> Vec<String> {
        let mut found = Vec::new();
        for asked in members {
            for what in [What::Inbound, What::Outbound] {
                let structure = structure(asked, what);
                compare(&mut found, asked, what, "the cluster", &listed(structure, None), &self.all(what));
                for (number, other) in members.iter().enumerate() {
                    let said = listed(structure, Some(other.name()));
                    compare(&mut found, asked, what, other.name().as_str(), &said, &self.of(number, what));
                }
            }
        }
        found
    }

    /// Waits until every node agrees with the truth, and returns how long that took, or the remaining differences.
    pub(super) async fn agreed(&self, members: &[Member], patience: Duration) -> Result<Duration, Vec<String>> {
        let start = Instant::now();
        loop {
            let found = self.differences(members);
            if found.is_empty() {
                return Ok(start.elapsed());
            }
            if start.elapsed() > patience {
                return Err(cut_short(found));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn structure(member: &Member, what: What) -> &Arc<Structure> {
    match what {
        What::Inbound => member.inbound.structure(),
        What::Outbound => member.outbound.structure(),
    }
}

/// A node's view of the cluster or of one node.
pub(super) fn listed(structure: &Arc<Structure>, from: Option<&NodeName>) -> Counts {
    let mut counts = Counts::new();
    let Some(mut listing) = structure.list(from) else { return counts };
    loop {
        let page = listing.entries(PAGE);
        if page.is_empty() {
            return counts;
        }
        for entry in page {
            let key = key::display(structure.kind(), &entry.key).unwrap_or_else(|error| error.to_string());
            counts.insert(key, entry.count);
        }
    }
}

fn compare(found: &mut Vec<String>, asked: &Member, what: What, of: &str, said: &Counts, truth: &Counts) {
    let what = match what {
        What::Inbound => "inbound_cidr",
        What::Outbound => "outbound_domains",
    };
    let keys: std::collections::BTreeSet<_> = said.keys().chain(truth.keys()).collect();
    for key in keys {
        let (said, truth) = (said.get(key).unwrap_or(&0), truth.get(key).unwrap_or(&0));
        if said != truth {
            found.push(format!("{}, view of {of} in {what}: {key} is {said}, and was counted {truth}", asked.name()));
        }
    }
}

fn cut_short(mut found: Vec<String>) -> Vec<String> {
    let more = found.len().saturating_sub(SHOWN);
    found.truncate(SHOWN);
    if more > 0 {
        found.push(format!("… and {more} more"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_connection_no_longer_counts() {
        let truth = Truth::default();
        truth.add(0, What::Inbound, "192.0.2.7", 2);
        truth.add(1, What::Inbound, "192.0.2.7", 1);
        truth.add(1, What::Outbound, "example.com", 1);
        truth.add(0, What::Inbound, "192.0.2.7", -2);
        assert_eq!(truth.of(0, What::Inbound), Counts::new());
        assert_eq!(truth.all(What::Inbound), Counts::from([("192.0.2.7".to_owned(), 1)]));
        assert_eq!(truth.total(What::Outbound), 1);
    }
}
