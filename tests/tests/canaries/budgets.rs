//! The case of budgets.

use std::num::NonZeroU64;
use std::time::Duration;

use tallymesh_engine::canary::{Canary, set_broken};
use tallymesh_harness::{Builder, Failure, address};

/// A node whose budget is smaller than what the others count.
pub(crate) fn a_small_node() -> Option<String> {
    let mut cluster = Builder::new(1).max_keys("c", NonZeroU64::new(20)?).start();
    let result: Result<(), Failure> = (|| {
        cluster.run_for(Duration::from_secs(1))?;
        cluster.with("a", |node| (0..30).for_each(|key| node.add("inbound_cidr", &address(key), 1)));
        cluster.run_for(Duration::from_secs(5))?;
        cluster.with("a", |node| (10..30).for_each(|key| node.add("inbound_cidr", &address(key), -1)));
        cluster.run_for(Duration::from_secs(70))?;
        cluster.settle().map(drop)
    })();
    result.err().map(|failure| failure.to_string())
}

#[test]
fn the_rule_of_budgets_is_noticed_by_its_own_case() {
    set_broken(Some(Canary::BudgetIgnored));
    let found = a_small_node();
    set_broken(None);
    assert!(found.is_some_and(|what| what.contains("more than the budget")));
}
