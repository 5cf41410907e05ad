//! Faults of a test: one at once, or a script of them.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use tallymesh_engine::Time;

use super::{Cluster, Event, Failure};
use crate::fault::{Fault, Step};

impl Cluster {
    /// Applies a fault now.
    ///
    /// # Panics
    /// When the fault names an unknown node.
    pub fn fault(&mut self, fault: &Fault) {
        if let Some(unknown) = fault.names().into_iter().find(|name| !self.has_node(name)) {
            panic!("{fault}: {}", self.no_node(unknown));
        }
        self.strike(fault);
    }

    pub(crate) fn has_node(&self, label: &str) -> bool {
        self.nodes.iter().any(|node| node.label == label)
    }

    pub(crate) fn no_node(&self, label: &str) -> String {
        let labels: Vec<_> = self.nodes.iter().map(|node| node.label.as_str()).collect();
        format!("there is no node \"{label}\"; the nodes are {}", labels.join(", "))
    }

    /// Runs the steps of a script, at their times, counted from now.
    ///
    /// # Errors
    /// [`Failure`] when the script cannot be parsed, or names a node that does not exist at that time. Then no step runs.
    pub fn script(&mut self, text: &str) -> Result<(), Failure> {
        let steps = crate::fault::script(text).map_err(|error| self.failed(error.to_string()))?;
        self.check_names(&steps).map_err(|what| self.failed(what))?;
        for step in steps {
            self.schedule(Time(self.now.0 + step.at.0), Event::Fault(step.fault));
        }
        Ok(())
    }

    /// Every node that a script names exists, or is a twin that an earlier step starts.
    fn check_names(&self, steps: &[Step]) -> Result<(), String> {
        let scheduled = self.queue.iter().filter_map(|Reverse(next)| match &next.event {
            Event::Fault(fault) => Some(fault),
            _ => None,
        });
        let mut twins: BTreeSet<String> = scheduled.flat_map(Fault::twins).collect();
        for step in steps {
            if let Some(name) =
                step.fault.names().into_iter().find(|name| !self.has_node(name) && !twins.contains(*name))
            {
                return Err(format!("step \"{step}\": {}", self.no_node(name)));
            }
            twins.extend(step.fault.twins());
        }
        Ok(())
    }
}
