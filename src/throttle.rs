//! The handles of throttles and permits.
#![allow(clippy::cast_possible_truncation, reason = "milliseconds of a process's life fit in 64 bits")]

use std::sync::Arc;
use std::time::Duration;

use tallymesh_engine::limiter::{
    Begins, Decision as Decided, LimitError, Limiter, Permit, Pool, PoolStanding, Standing, Throttle as Inner, UNITS,
};
use tallymesh_schemas::{OnPartition, Rate, Strength};

use crate::clock::Clock;
use crate::decision::{Decision, Reason, explained, no_permit};
use crate::object_error::ObjectError;

/// The longest pause before a refused request is tried again: this node may have received a share meanwhile.
const PAUSE: Duration = Duration::from_millis(100);

/// A throttle that the cluster shares.
///
/// This node decides locally and sends no request to other nodes. Cheap to clone; usable from any thread.
///
/// ```no_run
/// # async fn example(node: &tallymesh::Node) -> Result<(), Box<dyn std::error::Error>> {
/// let campaign = node.throttle("campaign")?;
/// if campaign.take(1).admitted() {
///     // send one now
/// }
/// campaign.until_ready(1).await?; // or wait until one fits
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Throttle {
    inner: Arc<Inner>,
    limiter: Arc<Limiter>,
    clock: Clock,
}

/// Why a request can never be admitted.
///
/// ```
/// use tallymesh::NeverReady;
///
/// let error = NeverReady { wanted: 5, burst: 3 };
/// assert!(error.to_string().starts_with("5 at once never fit into a burst of 3"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{wanted} at once never fit into a burst of {burst}: ask for fewer, or give the throttle a larger burst")]
pub struct NeverReady {
    /// The requested number of tokens.
    pub wanted: u64,
    /// The burst: the most tokens that can be taken at once.
    pub burst: u64,
}

impl Throttle {
    pub(crate) fn new(inner: Arc<Inner>, limiter: Arc<Limiter>, clock: Clock) -> Self {
        Self { inner, limiter, clock }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.inner.name()
    }

    /// Takes `n` tokens if they are available. Otherwise returns the time after which they would fit, and the reason. O(1), no
    /// allocation.
    #[inline]
    pub fn take(&self, n: u64) -> Decision {
        let now = self.clock.time();
        explained(self.inner.take(now, n), &self.inner, &self.limiter, now, n)
    }

    /// Tests whether `n` tokens could be taken now. Takes none.
    pub fn check(&self, n: u64) -> Decision {
        let now = self.clock.time();
        explained(self.inner.check(now, n), &self.inner, &self.limiter, now, n)
    }

    /// Counts `n` tokens that the service has used without asking. Returns whether they were within the limit. A soft throttle
    /// carries the excess as a debt. With a hard throttle, the excess exceeds the limit that the cluster guarantees.
    pub fn inc(&self, n: u64) -> bool {
        self.inner.inc(self.clock.time(), n)
    }

    /// Waits until `n` tokens are available, and takes them.
    ///
    /// # Errors
    /// [`NeverReady`] when `n` is greater than the burst.
    pub async fn until_ready(&self, n: u64) -> Result<(), NeverReady> {
        loop {
            let burst = self.inner.spec().rate.burst();
            if n > burst {
                return Err(NeverReady { wanted: n, burst });
            }
            match self.inner.take(self.clock.time(), n) {
                Decided::Admitted => return Ok(()),
                Decided::Refused { after } => {
                    tokio::time::sleep(after.unwrap_or(PAUSE).clamp(Duration::from_millis(1), PAUSE)).await;
                }
            }
        }
    }

    /// The throttle's status on this node.
    pub fn state(&self) -> Standing {
        self.inner.standing(self.clock.time())
    }

    /// Describes in words what the throttle is, what this node and the others hold of it, and how large the error can be.
    pub fn explain(&self) -> Vec<String> {
        let state = self.state();
        let mut lines = vec![self.headline(&state)];
        let part = |units: u64| format!("{}.{:02} %", units * 100 / UNITS, units * 10_000 / UNITS % 100);
        match state.spec.strength {
            Strength::Soft => {
                let earlier_run = self.limiter.earlier_run(&state.spec, self.clock.time());
                soft(&state, earlier_run, &mut lines);
            }
            Strength::Hard => {
                lines.push(format!(
                    "this node's share is {}, it could use {}; {} tokens are there",
                    part(state.share),
                    part(state.demand),
                    state.tokens
                ));
                self.holding(&part, &mut lines);
                lines.push(
                    "bound: all nodes together admit at most the burst and the rate, in every window; 0 beyond"
                        .to_owned(),
                );
                lines.push(in_a_partition(&state));
            }
        }
        lines
    }

    fn headline(&self, state: &Standing) -> String {
        let (rate, spec) = (state.spec.rate, state.spec);
        format!(
            "{}: {rate}, burst {}, {}, in a partition {}",
            self.name(),
            rate.burst(),
            spec.strength.name(),
            spec.on_partition.name()
        )
    }

    fn holding(&self, part: &dyn Fn(u64) -> String, lines: &mut Vec<String>) {
        let Some(holding) = self.limiter.holding(self.name(), self.clock.time()) else { return };
        let names: Vec<_> = holding.founders.iter().map(|node| node.as_str()).collect();
        lines.push(format!("founders: {}; a share lasts {:?} unheard", names.join(", "), holding.reclaim_after));
        for (founder, left) in &holding.holds {
            let lasts = if *left > Duration::from_secs(1 << 32) {
                "for good".to_owned()
            } else {
                format!("for {left:.1?} more")
            };
            lines.push(format!("holds the share of {founder}, {lasts} if nobody is heard"));
        }
        if let Some(begins) = &holding.begins {
            lines.push(founding(begins));
        }
        for (node, units) in &holding.lent {
            lines.push(format!("has lent {} to {node}", part(*units)));
        }
        for (node, units) in &holding.borrowed {
            lines.push(format!("was lent {} by {node}", part(*units)));
        }
        for difference in self.limiter.differences() {
            lines.push(format!("differs: {difference}; what has another configuration is not shared with"));
        }
        if holding.strangers > 0 {
            lines.push(
                "some nodes have other founders or another reclaim_after: make the limits of all nodes alike"
                    .to_owned(),
            );
        }
    }
}

fn founding(begins: &Begins) -> String {
    let missing: Vec<_> = begins.missing.iter().map(|node| node.as_str()).collect();
    if !missing.is_empty() {
        let missing = missing.join(", ");
        return format!(
            "founding: admits from its own share when {missing} is heard, or forgotten (tally cluster forget); until then it \
             borrows"
        );
    }
    if begins.after.is_zero() {
        return "founding: admits from its own share as soon as the others have let go of its predecessor; until then it \
                borrows"
            .to_owned();
    }
    format!(
        "founding: admits from its own share in about {:.1?}, when all founders have run for 9/8 of reclaim_after; until then \
         it borrows",
        begins.after
    )
}

fn soft(state: &Standing, earlier_run: u64, lines: &mut Vec<String>) {
    let (rate, others) = (state.spec.rate, state.others());
    lines.push(format!(
        "{} tokens are there; {} were admitted since it was idle, {} of them here",
        state.tokens, state.admitted, state.local
    ));
    if state.assumed > 0 {
        lines.push(format!(
            "others have admitted {} tokens at a time that this node does not know; they count as admitted {:.1?} ago, the last \
             moment at which it can have been: this node admits too little until the bucket is full, and not too much",
            state.assumed, state.assumed_ago
        ));
    }
    let unheard = state.heard_rate.saturating_mul(state.stalest.as_millis() as u64).div_ceil(1000);
    lines.push(format!(
        "bound now: {unheard} tokens, what {others} others admit ({} a second) in the {:?} since the stalest was heard",
        state.heard_rate, state.stalest
    ));
    let worst = state.unheard_at_worst().saturating_add(earlier_run);
    lines.push(format!(
        "bound at worst: {worst} tokens, if each of the others begins to use a full burst at this moment"
    ));
    if earlier_run > 0 {
        lines.push(format!(
            "of these, {earlier_run} are what an earlier run of this node may have admitted without this run knowing it, until {} \
             have passed since the start",
            Seconds(rate)
        ));
    }
    lines.push(in_a_partition(state));
}

/// The time in which an empty bucket fills.
struct Seconds(Rate);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rate = self.0;
        let micros = u128::from(rate.burst()) * u128::from(rate.period_us()) / u128::from(rate.tokens().max(1));
        write!(f, "{:.1?}", Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX)))
    }
}

fn in_a_partition(state: &Standing) -> String {
    let what = match (state.spec.strength, state.spec.on_partition) {
        (_, OnPartition::FailClosed) => "nothing is admitted where somebody is missing; 0 beyond".to_owned(),
        (Strength::Hard, OnPartition::FairShare) => {
            "each node goes on with what it holds, and without any other founder it stops in time; 0 beyond".to_owned()
        }
        (Strength::Soft, OnPartition::FairShare) => {
            "each part admits as much of the rate as it has of the nodes; at most one burst a part beyond".to_owned()
        }
        (_, OnPartition::FailOpen) => {
            "each part admits the whole rate by itself: with p parts, p times the rate and burst".to_owned()
        }
    };
    let Standing { reach, .. } = state;
    format!("in a partition: {what} (now {} of {} nodes are heard)", reach.alive, reach.known)
}

/// Why a throttle or pool cannot be created.
///
/// ```no_run
/// # fn example(node: &tallymesh::Node) -> Result<(), Box<dyn std::error::Error>> {
/// use tallymesh::{Rate, Strength, ThrottleError, ThrottleSpec};
///
/// let rate: Rate = "300/5m".parse()?;
/// match node.create_throttle("campaign", ThrottleSpec::new(rate, Strength::Hard)) {
///     Ok(throttle) => println!("{} is there", throttle.name()),
///     Err(ThrottleError::Limit(error)) => println!("not enforceable: {error}"),
///     Err(error) => println!("not counted: {error}"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ThrottleError {
    /// This node does not replicate `shared_named_throttles`.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// The limit cannot be enforced.
    #[error(transparent)]
    Limit(#[from] LimitError),
}

/// Permits: a limit on how many things may be open at one time. Cheap to clone; usable from any thread.
///
/// ```no_run
/// # fn example(node: &tallymesh::Node) -> Result<(), Box<dyn std::error::Error>> {
/// let sessions = node.permits("sessions")?;
/// if let Some(permit) = sessions.try_open() {
///     // serve one; close it if `permit.is_overdue()`
///     drop(permit);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Permits {
    pool: Arc<Pool>,
    limiter: Arc<Limiter>,
    clock: Clock,
}

/// A permit. Dropping it returns it.
///
/// ```no_run
/// # fn example(node: &tallymesh::Node) -> Result<(), Box<dyn std::error::Error>> {
/// let uploads = node.permits("uploads")?;
/// let open: Vec<_> = std::iter::from_fn(|| uploads.try_open()).take(3).collect();
/// // From time to time:
/// let kept: Vec<_> = open.into_iter().filter(|permit| !permit.is_overdue()).collect();
/// println!("{} are still open", kept.len());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct OpenPermit {
    permit: Permit,
    clock: Clock,
}

impl OpenPermit {
    /// Whether this node uses more permits than it has. That happens when it was cut off for so long that other nodes may have
    /// taken the permits over. To keep the limit, a service checks at least once in 1/24 of `reclaim_after` and closes overdue
    /// permits.
    pub fn is_overdue(&self) -> bool {
        self.permit.is_overdue(self.clock.time())
    }
}

impl Permits {
    pub(crate) fn new(pool: Arc<Pool>, limiter: Arc<Limiter>, clock: Clock) -> Self {
        Self { pool, limiter, clock }
    }

    /// The name of the permits.
    pub fn name(&self) -> &str {
        self.pool.name()
    }

    /// Opens a permit if this node has a free one. O(1). A refusal signals the other nodes that this node needs more permits.
    #[must_use]
    pub fn try_open(&self) -> Option<OpenPermit> {
        let permit = self.pool.try_open(self.clock.time())?;
        Some(OpenPermit { permit, clock: self.clock })
    }

    /// As [`Permits::try_open`], with the reason of a refusal.
    ///
    /// # Errors
    /// [`Reason`] states why there is no permit.
    pub fn open(&self) -> Result<OpenPermit, Reason> {
        self.try_open().ok_or_else(|| no_permit(&self.pool, &self.limiter, self.clock.time()))
    }

    /// The status of the permits on this node.
    pub fn state(&self) -> PoolStanding {
        self.pool.standing(self.clock.time())
    }
}
