//! What must hold of limits at every moment: shares of hard limits, and the bounds that soft throttles state.

use std::time::Duration;

use tallymesh_engine::{Life, Replica, Structure, Time};
use tallymesh_schemas::{Strength, StructureName};

use crate::cluster::Cluster;
use crate::limits::Limits;
use crate::node::{Node, Process};

/// How much later than assumed a row may arrive on the networks of the swarm.
const ON_ITS_WAY: Duration = Duration::from_secs(2);

impl Cluster {
    /// I9: no two processes use the same share.
    ///
    /// The share that a process may use grows only through events, and shrinks by itself. So a node without events since the
    /// last check is assumed to have the same share, and is read again only if the sum would be too high.
    pub(crate) fn check_shares(&mut self) -> Result<(), String> {
        let Some(limits) = self.limits.take() else { return Ok(()) };
        self.read_shares(&limits);
        let looked = self.sum_of_shares(&limits).or_else(|_| {
            self.nodes.iter_mut().for_each(|node| node.units = None);
            self.read_shares(&limits);
            self.sum_of_shares(&limits)
        });
        self.limits = Some(limits);
        looked
    }

    /// Reads the shares of the nodes whose shares are not known.
    fn read_shares(&mut self, limits: &Limits) {
        let now = self.now();
        for node in self.nodes.iter_mut().filter(|node| node.units.is_none()) {
            let limiters = node.process.as_ref().map(|process| &process.limiters);
            let units = |(structure, name, _): (&str, &str, u64)| {
                let limiter = limiters.and_then(|all| all.iter().find(|(of, _)| of.as_str() == structure));
                limiter.map_or(0, |(_, limiter)| limiter.units(name, node.clock.read(now).mono))
            };
            node.units = Some(limits.shared().map(units).collect());
        }
    }

    fn sum_of_shares(&self, limits: &Limits) -> Result<(), String> {
        for (at, (_, name, whole)) in limits.shared().enumerate() {
            let sum: u64 = self.nodes.iter().filter_map(|node| node.units.as_ref()?.get(at)).sum();
            if sum > whole {
                return Err(format!("I9: {name}: the shares of all nodes are {sum} of {whole}"));
            }
        }
        Ok(())
    }

    /// Starts to check the throttles that a node has used first. No other node has admitted anything of them yet.
    pub(crate) fn meet_throttles(&mut self) {
        let met = self.admissions.borrow_mut().take_met();
        for (table, name, spec) in met {
            for node in &mut self.nodes {
                node.units = None;
                let now = node.clock.read(self.now).mono;
                if let Some(process) = &node.process {
                    process.references.begin((table.as_str(), &name, spec), &process.structures, now);
                }
            }
            if let Some(limits) = &mut self.limits {
                limits.meet(&table, name, spec);
            }
        }
    }

    /// No throttle of a process has admitted a request that the checker has not seen.
    pub(crate) fn check_seen(&self, process: &Process) -> Result<(), String> {
        let admissions = self.admissions.borrow();
        let mut throttles = process.limiters.values().flat_map(|limiter| limiter.throttles());
        throttles.try_for_each(|throttle| admissions.check_seen(process.run, &throttle))
    }

    /// Checks the bound that a node states for a soft throttle: no other node has admitted more that this node has not received,
    /// and this node has received what the other node had admitted at the moment up to which it counts as heard.
    pub(crate) fn check_bound(&self, at: usize, table: &StructureName, name: &str) -> Result<(), String> {
        let node = &self.nodes[at];
        let Some(node_process) = &node.process else { return Ok(()) };
        let (limiter, structure) = (node_process.limiters.get(table), node_process.structures.get(table));
        let (Some(limiter), Some(structure)) = (limiter, structure) else { return Ok(()) };
        let now = node.clock.read(self.now()).mono;
        let Some(throttle) = limiter.find(name) else { return Ok(()) };
        let standing = throttle.standing(now);
        if standing.spec.strength == Strength::Hard {
            return Ok(());
        }
        for other in self.nodes.iter().filter(|other| other.name != node.name) {
            // A leaving node takes its counts back, and other nodes have subtracted its admissions already.
            let Some(process) = other.process.as_ref().filter(|process| process.leaving.is_none()) else { continue };
            let Some(theirs) = process.structures.get(table) else { continue };
            let Some(known) = heard_of(self, (&node_process.replica, structure), other, name) else { continue };
            let own = theirs.count(name.as_bytes(), now).local;
            let unheard = u64::try_from(own.saturating_sub(known)).unwrap_or(0);
            let bound = standing.unheard_at_worst().saturating_add(standing.spec.rate.within(ON_ITS_WAY));
            if unheard > bound {
                return Err(format!(
                    "{name}: {} has admitted {unheard} unheard, and the bound says {bound}",
                    other.label
                ));
            }
            let age = (standing.stalest + ON_ITS_WAY).as_micros() as u64;
            let Some(heard_at) = self.now().0.checked_sub(age).map(Time) else { continue };
            let before = self.counted_alone(process, name, heard_at, own);
            if before > known {
                return Err(format!(
                    "{name}: {} had admitted {before} by {heard_at:?}, and counts as heard then with {known}",
                    other.label
                ));
            }
        }
        Ok(())
    }
}

impl Cluster {
    /// What a process had counted of a throttle at a moment; zero if the process was several runs, or shares its run.
    fn counted_alone(&self, process: &Process, name: &str, at: Time, own: i64) -> i64 {
        let truth = self.truth.borrow();
        let actors = truth.actors_of(process.run);
        if actors.len() > 1 || actors.iter().any(|actor| truth.contested(actor)) {
            return 0;
        }
        self.admissions.borrow().of(name).map_or(0, |tally| tally.counted_at(process.run, at, own))
    }
}

/// How much of a node's admissions is in another node's copy of a structure; `None` if the other node does not count that node
/// among the others, because it has received nothing of it, or nothing since it left.
///
/// If two machines have one name, a copy is current for the one with the latest run; the other one is not received.
fn heard_of(cluster: &Cluster, (replica, structure): (&Replica, &Structure), node: &Node, name: &str) -> Option<i64> {
    let latest = structure.latest(&node.name)?;
    let truth = cluster.truth.borrow();
    let actors = truth.actors_of(node.process.as_ref()?.run);
    let alone = cluster.nodes.iter().filter(|other| other.name == node.name).count() == 1;
    let left = || replica.nodes().any(|(name, _, life)| *name == node.name && life == Life::Left);
    if !actors.contains(&latest) && (!alone || left()) {
        return None;
    }
    // A process that renews states its counts again, so they include what was received of its earlier run.
    let rows = actors.iter().filter_map(|actor| structure.row_of(actor, name.as_bytes()));
    Some(rows.map(|row| row.value()).max().unwrap_or(0))
}
