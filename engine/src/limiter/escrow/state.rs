//! The state of escrow on one process, and what a service tells it.

use std::collections::BTreeMap;
use std::sync::Arc;

use tallymesh_schemas::{Bound, NodeName, Rate, bound};

use crate::limiter::agreement::{Agreement, Configurations};
use crate::limiter::board::Board;
use crate::limiter::escrow::claim::{Claim, Epoch, Vote};
use crate::limiter::escrow::founding::{Founding, Times};
use crate::limiter::escrow::loan_lease::LoanLease;
use crate::limiter::escrow::rows::Rows;
use crate::limiter::escrow::slice::Slice;
use crate::limiter::fact::{Fact, Process};
use crate::limiter::target::Quota;
use crate::time::Time;

/// A limit that is shared out.
#[derive(Clone, Debug)]
pub(super) struct Named {
    pub(super) quota: Quota,
    /// The rate of the whole limit; `None` for permits.
    pub(super) rate: Option<Rate>,
    pub(super) demand: u64,
    pub(super) published: u64,
    pub(super) round: u64,
}

/// The escrow of one structure: all hard limits in it.
#[derive(Debug)]
pub struct Escrow {
    pub(super) founding: Founding,
    pub(super) config_fingerprint: u64,
    pub(super) times: Times,
    pub(super) process: Process,
    /// This node's index among the founders; `None` if it is not a founder.
    pub(super) own_seat: Option<usize>,
    pub(super) started: Time,
    pub(super) now: Time,
    /// The last published reading of this process's clock.
    pub(super) heartbeat: u64,
    pub(super) heartbeat_at: Time,
    pub(super) board: Board,
    /// The claim that this process supports for each founder's share, except its own share.
    pub(super) votes: BTreeMap<usize, Vote>,
    /// The claims of this process.
    pub(super) claims: BTreeMap<usize, Claim>,
    /// The last number given to a claim or a vote of this process.
    pub(super) next_number: u64,
    /// The earliest time of the next claim to each founder's share.
    pub(super) again: BTreeMap<usize, Time>,
    pub(super) lent: BTreeMap<Process, Vec<LoanLease>>,
    pub(super) next_loan_lease: u64,
    /// The last lease of each lender that is over for this process, whatever it receives later.
    pub(super) ended: BTreeMap<Process, u64>,
    pub(super) names: BTreeMap<Arc<str>, Named>,
    /// Limits that others ask this founder for and that it does not know.
    pub(super) asked: BTreeMap<Arc<str>, Rate>,
    pub(super) epoch: Epoch,
    /// The names of this turn.
    pub(super) slice: Slice,
    /// Founders that an operator has forgotten.
    pub(super) forgotten: Vec<NodeName>,
    pub(super) rows: Rows,
    pub(super) strangers: u64,
    pub(super) agreement: Agreement,
    pub(super) fingerprint: u64,
    pub(super) configurations: Configurations,
    /// Another process has a different configuration, so this process publishes its own, limit by limit.
    pub(super) tells: bool,
    pub(super) leaving: bool,
}

impl Escrow {
    /// A process that holds nothing yet. `nonce` is a number that no other process of the node draws; `now` is a reading of
    /// its monotonic clock.
    pub fn new(founding: Founding, node: NodeName, nonce: u64, now: Time) -> Self {
        let agreement = Agreement::new(&founding);
        let (config_fingerprint, times, own_seat) =
            (founding.config_fingerprint(), Times::of(&founding), founding.index(&node));
        Self {
            founding,
            config_fingerprint,
            times,
            process: Process { node, nonce },
            own_seat,
            started: now,
            now,
            heartbeat: 0,
            heartbeat_at: now,
            board: Board::default(),
            votes: BTreeMap::new(),
            claims: BTreeMap::new(),
            next_number: 1,
            again: BTreeMap::new(),
            lent: BTreeMap::new(),
            next_loan_lease: 1,
            ended: BTreeMap::new(),
            names: BTreeMap::new(),
            asked: BTreeMap::new(),
            epoch: Epoch::default(),
            slice: Slice::all(),
            forgotten: Vec::new(),
            rows: Rows::new(config_fingerprint, nonce),
            strangers: 0,
            fingerprint: agreement.fingerprint(),
            agreement,
            configurations: Configurations::default(),
            tells: false,
            leaving: false,
        }
    }

    /// This process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The founding of this escrow.
    pub fn founding(&self) -> &Founding {
        &self.founding
    }

    /// The number of facts received from nodes with another list of founders or another `reclaim_after`. An operator should
    /// check their configuration.
    pub fn strangers(&self) -> u64 {
        self.strangers
    }

    /// The bounds reached, with their values.
    pub(crate) fn bounds(&self) -> Vec<bound::Report> {
        self.board.reports()
    }

    /// Notes that a name found no room among the shared ones.
    pub(crate) fn no_room_for_name(&self) {
        self.board.tally.reached(Bound::SharedNames);
    }

    /// The number of limits that are shared out.
    pub fn shared(&self) -> usize {
        self.names.len()
    }

    /// Sets the configuration. Must be called before time passes: all facts of this process depend on it.
    pub fn agree(&mut self, agreement: Agreement) {
        self.fingerprint = agreement.fingerprint();
        self.agreement = agreement;
    }

    /// Shares a limit out, or changes it: the whole of a rate, or permits. While nodes have different rates for it, only
    /// those with the smallest rate use it.
    pub fn share_out(&mut self, name: &str, quota: Quota, rate: Option<Rate>) {
        let Some(named) = self.names.get_mut(name) else {
            self.names.insert(name.into(), Named { quota, rate, demand: 0, published: 0, round: 0 });
            return;
        };
        named.quota = quota;
        let was = std::mem::replace(&mut named.rate, rate);
        if was != rate && std::mem::take(&mut named.published) > 0 {
            self.rows.write_gauge(&Fact::Demand { rate: was, name: name.into() }, 0);
        }
    }

    /// Whether no node asks for a limit, and nothing of it is lent or borrowed.
    pub fn rests(&self, name: &str) -> bool {
        let wanted = self.names.get(name).is_some_and(|named| named.demand > 0 || named.published > 0);
        !wanted && self.outstanding(name) == 0 && !self.is_asked_for(name) && !self.is_borrowed(name)
    }

    /// Stops sharing a limit that [rests](Escrow::rests): from then on, [`Escrow::base`] states what may be used. Returns
    /// whether it stopped.
    pub fn retire(&mut self, name: &str) -> bool {
        self.rests(name) && self.names.remove(name).is_some()
    }

    /// Removes and returns the names and rates that others asked this founder for and that it does not share out.
    pub fn take_asked(&mut self) -> BTreeMap<Arc<str>, Rate> {
        std::mem::take(&mut self.asked)
    }

    /// Sets the units that this node could use, and the total use of the limit by all nodes (any number that grows).
    pub fn demand(&mut self, name: &str, units: u64, round: u64) {
        if let Some(named) = self.names.get_mut(name) {
            (named.demand, named.round) = (units.min(named.quota.whole), round);
        }
    }

    /// Sets the founders that an operator has forgotten: no process waits for them.
    pub fn forget(&mut self, nodes: impl IntoIterator<Item = NodeName>) {
        self.forgotten = nodes.into_iter().collect();
    }

    /// Begins to leave. This node lends nothing more and returns its loans. When the borrowers have returned everything that
    /// this node has lent, its claims end. [`Escrow::has_left`] returns whether that is complete.
    pub fn leave(&mut self) {
        self.leaving = true;
        self.end_loan_leases();
    }

    /// Whether this node holds nothing any more.
    pub fn has_left(&self) -> bool {
        self.leaving && self.claims.is_empty() && self.lent.is_empty()
    }
}
