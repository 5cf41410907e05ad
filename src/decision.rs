//! The result of a request for tokens, with the reason of a refusal.

use std::time::Duration;

use serde::Serialize;
use tallymesh_engine::Time;
use tallymesh_engine::limiter::{Decision as Inner, Limiter, Pool, Reach, Throttle, UNITS};
use tallymesh_schemas::{OnPartition, Strength};

/// The result of a request for tokens.
///
/// ```no_run
/// # fn example(node: &tallymesh::Node) -> Result<(), Box<dyn std::error::Error>> {
/// use tallymesh::Decision;
///
/// match node.throttle("campaign")?.take(1) {
///     Decision::Admitted => println!("send it"),
///     Decision::Refused { after: Some(after), reason } => println!("{reason}: try again in {after:?}"),
///     Decision::Refused { after: None, reason } => println!("{reason}"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// The tokens were taken.
    Admitted,
    /// The tokens were not taken.
    Refused {
        /// The time after which the tokens would fit if no other request took any and no share moved; `None` when the node
        /// cannot compute it.
        after: Option<Duration>,
        /// The reason of the refusal.
        reason: Reason,
    },
}

impl Decision {
    /// Whether the tokens were taken.
    pub fn admitted(self) -> bool {
        self == Self::Admitted
    }
}

/// Why a limit refuses.
///
/// ```no_run
/// # fn example(node: &tallymesh::Node) -> Result<(), Box<dyn std::error::Error>> {
/// use tallymesh::Reason;
///
/// match node.permits("uploads")?.open() {
///     Ok(permit) => drop(permit), // dropping it returns it
///     Err(Reason::Empty) => println!("the cluster uses all of them"),
///     Err(reason) => println!("{reason}"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// The tokens are used up, or all permits are in use.
    #[error("it is used up")]
    Empty,
    /// The request exceeds the burst, so it never fits.
    #[error("so many do not fit into the burst, ever")]
    Burst,
    /// A hard limit: other nodes hold the shares that are needed. The refusal asks them for more.
    #[error("this node's share is too small; it has asked for more")]
    Share,
    /// A hard limit: this node has started and does not have its initial share yet. It borrows meanwhile.
    #[error("the limit is being founded: this node does not have its share yet")]
    Founding,
    /// This node receives no news from nodes that the limit needs.
    #[error("nodes that it needs are not heard")]
    Partition,
    /// A hard limit: another node has a different configuration of it, so the two do not share it.
    #[error("another node has another configuration of hard limits: make all nodes alike")]
    Differs,
}

/// Adds the reason of a refusal to a decision of the engine.
pub(crate) fn explained(decision: Inner, throttle: &Throttle, limiter: &Limiter, now: Time, n: u64) -> Decision {
    match decision {
        Inner::Admitted => Decision::Admitted,
        Inner::Refused { after } => Decision::Refused { after, reason: refused(throttle, limiter, now, n) },
    }
}

/// Why a throttle has just refused `n` tokens.
pub(crate) fn refused(throttle: &Throttle, limiter: &Limiter, now: Time, n: u64) -> Reason {
    let standing = throttle.standing(now);
    let (spec, reach) = (standing.spec, standing.reach);
    let burst = spec.rate.burst();
    if n > burst {
        return Reason::Burst;
    }
    let beyond_share = u128::from(n) * u128::from(UNITS) > u128::from(burst) * u128::from(standing.share);
    let (missing, no_founder) = (reach.alive < reach.known, !reach.founders);
    match (spec.strength, spec.on_partition) {
        (Strength::Soft, OnPartition::FailClosed) if missing => Reason::Partition,
        (Strength::Soft, OnPartition::FairShare) if missing && beyond_share => Reason::Partition,
        (Strength::Hard, OnPartition::FailClosed) if no_founder => Reason::Partition,
        (Strength::Hard, OnPartition::FailOpen) if no_founder => Reason::Empty,
        (Strength::Hard, _) if standing.share == 0 => no_share(limiter, throttle.name(), reach),
        (Strength::Hard, _) if beyond_share => Reason::Share,
        _ => Reason::Empty,
    }
}

fn no_share(limiter: &Limiter, name: &str, reach: Reach) -> Reason {
    match limiter.is_founding() {
        _ if limiter.differs(name) => Reason::Differs,
        true => Reason::Founding,
        false if !reach.founders => Reason::Partition,
        false => Reason::Share,
    }
}

/// Why this node has no free permit.
pub(crate) fn no_permit(pool: &Pool, limiter: &Limiter, now: Time) -> Reason {
    let standing = pool.standing(now);
    if u64::try_from(standing.open).unwrap_or(0) >= standing.maximum {
        Reason::Empty
    } else if standing.permits == 0 && limiter.differs(pool.name()) {
        Reason::Differs
    } else if standing.permits == 0 && limiter.is_founding() {
        Reason::Founding
    } else {
        Reason::Share
    }
}
