//! Work on nodes: of their services, and of a test.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::{Cluster, Event};
use crate::network::Messages;
use crate::panics::text_of;
use crate::service::{Context, Service};

/// Why a test did not reach the service of a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoService {
    /// No process runs there.
    #[error("{0} does not run")]
    NotRunning(String),
    /// Its process is stopped.
    #[error("{0} is stopped")]
    Stopped(String),
    /// Its process is leaving and has ended its service.
    #[error("{0} is leaving")]
    Leaving(String),
    /// [`Builder::service`](crate::Builder::service) was not called, or [`Cluster::settle`] has failed while the services rested.
    #[error("{0} has no service: call Builder::service")]
    None(String),
    /// [`Service::as_any`] returns another type.
    #[error("the service of {node} is not a {wanted}")]
    Other {
        /// The node.
        node: String,
        /// The type that the test asked for.
        wanted: &'static str,
    },
}

impl Cluster {
    /// Runs `work` on a node, as its service would; `None` when the node does not run or is stopped.
    ///
    /// # Panics
    /// When there is no such node.
    pub fn with<R>(&mut self, label: &str, work: impl FnOnce(&mut Context<'_>) -> R) -> Option<R> {
        let n = self.find(label);
        self.with_node(n, work)
    }

    pub(crate) fn with_node<R>(&mut self, n: usize, work: impl FnOnce(&mut Context<'_>) -> R) -> Option<R> {
        let now = self.nodes[n].read_clock(self.now);
        let node = &self.nodes[n];
        let process = node.process.as_ref().filter(|_| !node.stopped)?;
        let (mut failures, mut took) = (Vec::new(), BTreeSet::new());
        let result = work(&mut Context {
            now,
            name: &node.name,
            structures: &process.structures,
            replica: &process.replica,
            limiters: &process.limiters,
            references: &process.references,
            limits: self.limits.as_ref(),
            took: &mut took,
            caches: &process.caches,
            gauges: &process.gauges,
            unsettled: self.messages == Messages::Spoilt
                || process.leaving.is_some()
                || self.truth.borrow().contested(&process.actor),
            admissions: &self.admissions,
            failures: &mut failures,
            at: self.now,
            truth: &self.truth,
            run: process.run,
            random: &mut self.work_random,
        });
        self.meet_throttles();
        failures.extend(took.iter().filter_map(|(table, name)| self.check_bound(n, table, name).err()));
        for what in failures {
            let label = self.nodes[n].label.clone();
            self.fail(format!("{label}: {what}"));
        }
        self.pump(n);
        Some(result)
    }

    /// Runs `work` with the service of a node.
    ///
    /// # Errors
    /// [`NoService`] says why `work` did not run.
    ///
    /// # Panics
    /// When there is no such node.
    pub fn with_service<S: Service + 'static, R>(
        &mut self,
        label: &str,
        work: impl FnOnce(&mut S, &mut Context<'_>) -> R,
    ) -> Result<R, NoService> {
        let n = self.find(label);
        let stopped = self.nodes[n].stopped;
        let node = || label.to_owned();
        let process = self.nodes[n].process.as_mut().ok_or_else(|| NoService::NotRunning(node()))?;
        if stopped {
            return Err(NoService::Stopped(node()));
        }
        if process.leaving.is_some() {
            return Err(NoService::Leaving(node()));
        }
        let mut service = process.service.take().ok_or_else(|| NoService::None(node()))?;
        let other = || NoService::Other { node: node(), wanted: std::any::type_name::<S>() };
        let result = match service.as_any().downcast_mut::<S>() {
            Some(own) => self.with_node(n, |context| work(own, context)).ok_or_else(|| NoService::NotRunning(node())),
            None => Err(other()),
        };
        if let Some(process) = &mut self.nodes[n].process {
            process.service = Some(service);
        }
        result
    }

    pub(super) fn serve(&mut self, n: usize, start: u64) {
        let node = &mut self.nodes[n];
        if node.starts != start {
            return;
        }
        let Some(mut service) = node.process.as_mut().and_then(|process| process.service.take()) else { return };
        if !self.rests {
            let ticked = catch_unwind(AssertUnwindSafe(|| self.with_node(n, |context| service.tick(context))));
            if let Err(panic) = ticked {
                let label = self.nodes[n].label.clone();
                self.fail(format!("{label}: the service panicked: {}", text_of(&*panic)));
            }
        }
        let interval = service.interval().max(Duration::from_millis(1));
        let node = &mut self.nodes[n];
        let at = node.clock.when(self.now, node.clock.read(self.now).mono.after(interval));
        if let Some(process) = &mut node.process {
            process.service = Some(service);
        }
        self.schedule(at, Event::Service { node: n, start });
    }

    /// Lets limits and services rest until [`Cluster::wake`]: they never stop counting by themselves.
    pub(crate) fn rest(&mut self) {
        self.rests = self.limits.is_some();
    }

    /// Ends the rest.
    pub(crate) fn wake(&mut self) {
        self.rests = false;
        (0..self.nodes.len()).for_each(|n| self.pump(n));
    }
}
