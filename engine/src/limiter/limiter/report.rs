//! What a limiter reports: how limits are divided, differences of configuration, and bounds.

use std::collections::BTreeMap;
use std::time::Duration;

use tallymesh_schemas::{NodeName, Strength, ThrottleSpec, bound};

use crate::difference::Difference;
use crate::limiter::agreement::Agreement;
use crate::limiter::escrow::claim::Begins;
use crate::limiter::escrow::state::Escrow;
use crate::limiter::limiter::Limiter;
use crate::limiter::limiter::sharing::Sharing;
use crate::time::Time;

/// Time between two comparisons with the configurations of other nodes.
const COMPARE: Duration = Duration::from_secs(1);

/// The most differences that the limiter remembers as reported.
const REPORTED: usize = 1024;

/// The state of a limit in escrow, for display.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Holding {
    /// The founders whose share this node holds, and for how long if it receives no further answer.
    pub holds: Vec<(NodeName, Duration)>,
    /// What this node waits for, if it is a founder and does not have its own share yet.
    pub begins: Option<Begins>,
    /// Units that this node has lent.
    pub lent: BTreeMap<NodeName, u64>,
    /// Units that this node has borrowed.
    pub borrowed: BTreeMap<NodeName, u64>,
    /// All founders.
    pub founders: Vec<NodeName>,
    /// How long a founder keeps its share without news from another founder.
    pub reclaim_after: Duration,
    /// Rows received from nodes with other founders or another `reclaim_after`.
    pub strangers: u64,
}

impl Limiter {
    /// The bounds reached since the start.
    pub fn bounds(&self) -> Vec<bound::Report> {
        let place = Some(self.structure.spec().name.to_string());
        let sharing = self.sharing.lock();
        let reports = sharing.escrow.as_ref().map(|escrow| escrow.bounds()).unwrap_or_default();
        reports.into_iter().map(|report| bound::Report { place: place.clone(), ..report }).collect()
    }

    /// The state of a limit in escrow.
    pub fn holding(&self, name: &str, now: Time) -> Option<Holding> {
        let sharing = self.sharing.lock();
        let escrow = sharing.escrow.as_ref()?;
        let holds = escrow.holdings().into_iter().map(|(node, until)| (node.clone(), until.since(now)));
        Some(Holding {
            holds: holds.collect(),
            begins: escrow.begins(),
            lent: escrow.lent(name),
            borrowed: escrow.borrowed(name),
            founders: escrow.founding().founders().to_vec(),
            reclaim_after: escrow.founding().reclaim_after(),
            strangers: escrow.strangers(),
        })
    }

    /// Whether this node is a founder that does not have its own share yet.
    pub fn is_founding(&self) -> bool {
        self.sharing.lock().escrow.as_ref().is_some_and(|escrow| escrow.begins().is_some())
    }

    /// This node's units of a limit now, for the checkers of the simulator; zero when it holds none.
    pub fn units(&self, name: &str, now: Time) -> u64 {
        let sharing = self.sharing.lock();
        let Some(escrow) = sharing.escrow.as_ref() else { return 0 };
        if sharing.hard.contains_key(name) || sharing.pools.contains_key(name) {
            let share = escrow.share(name);
            return if now < share.until { share.units } else { 0 };
        }
        let base = escrow.base();
        if now < base.until { base.units } else { 0 }
    }

    /// Completes the configuration. Other nodes must have the same hard limits as this node has now: declared throttles,
    /// permits, and the patterns in `scopes`. Must be called before time passes. Limits that a program creates later are
    /// compared by the nodes that use them.
    pub fn seal(&self, scopes: &[(String, ThrottleSpec)]) {
        let mut sharing = self.sharing.lock();
        let declared = self.declared.read();
        let Sharing { escrow: Some(escrow), pools, .. } = &mut *sharing else { return };
        let mut agreement = Agreement::new(escrow.founding());
        let scopes = scopes.iter().map(|(name, spec)| (name.as_str(), spec));
        let all = declared.iter().map(|(name, spec)| (&**name, spec)).chain(scopes);
        for (name, spec) in all.filter(|(_, spec)| spec.strength == Strength::Hard) {
            agreement.throttle(name, spec);
        }
        for (name, pool) in pools.iter() {
            agreement.permits(name, pool.quota().whole);
        }
        escrow.agree(agreement);
    }

    /// The differences between the hard limits of other nodes and this node's.
    pub fn differences(&self) -> Vec<Difference> {
        self.sharing.lock().escrow.as_ref().map(Escrow::differences).unwrap_or_default()
    }

    /// Whether the share of a hard limit is out of use because another node has another configuration. O(processes).
    pub fn differs(&self, name: &str) -> bool {
        self.sharing.lock().escrow.as_ref().is_some_and(|escrow| escrow.is_in_conflict(name))
    }

    /// The [`Limiter::differences`] that were not returned before: each is reported once. Compares once a second.
    pub fn take_differences(&self, now: Time) -> Vec<Difference> {
        let mut sharing = self.sharing.lock();
        if now < sharing.compare_at {
            return Vec::new();
        }
        sharing.compare_at = now.after(COMPARE);
        let all = sharing.escrow.as_ref().map(Escrow::differences).unwrap_or_default();
        let new: Vec<_> = all.into_iter().filter(|difference| !sharing.reported.contains(difference)).collect();
        if sharing.reported.len() + new.len() > REPORTED {
            sharing.reported.clear();
        }
        sharing.reported.extend(new.iter().cloned());
        new
    }
}
