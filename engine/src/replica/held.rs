//! A structure as the replica holds it.

use std::collections::BTreeMap;
use std::sync::Arc;

use tallymesh_schemas::saved::Shape;
use tallymesh_schemas::{Class, StructureId, Version};

use crate::counter::structure::Structure;
use crate::time::Time;

/// The structures by their id on the wire.
pub(crate) type Structures = BTreeMap<StructureId, Held>;

/// A structure and the replica's state for it.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) structure: Arc<Structure>,
    /// The head up to which changes may be sent.
    pub(crate) flushed: Version,
    /// When changes were last released to be sent.
    pub(crate) flushed_at: Option<Time>,
    /// No peer has yet reported what existed before this run: for structures without snapshot.
    pub(crate) joining: bool,
    /// Whether the node exchanges it with peers.
    pub(crate) shared: bool,
    /// For a window: whether it remains after the run.
    pub(crate) persists: bool,
}

impl Held {
    /// A structure that is exchanged with peers.
    pub(crate) fn new(structure: Arc<Structure>) -> Self {
        let joining = !structure.spec().snapshot;
        Self { structure, flushed: Version::ZERO, flushed_at: None, joining, shared: true, persists: false }
    }

    /// Whether a verification compares its copies. The settings of nodes are not data of a service.
    pub(crate) fn is_compared(&self) -> bool {
        self.shared && self.structure.spec().class != Class::Settings
    }

    pub(crate) fn waits(&self) -> bool {
        self.structure.pending() > 0 || self.structure.head() > self.flushed
    }

    pub(crate) fn due(&self) -> Time {
        self.flushed_at.map_or(Time(0), |at| at.after(self.structure.spec().max_delay))
    }

    /// Whether that released anything new.
    pub(crate) fn flush(&mut self, now: Time) -> bool {
        self.structure.commit();
        self.flushed_at = Some(now);
        let head = self.structure.head();
        std::mem::replace(&mut self.flushed, head) != head
    }

    /// Whether its rows are saved and so remain after the run.
    pub(crate) fn is_saved(&self) -> bool {
        self.structure.keeps_runs() && (!self.structure.is_window() || self.persists)
    }

    pub(crate) fn shape(&self) -> Shape {
        let spec = self.structure.spec();
        Shape { name: spec.name.as_str().to_owned(), class: spec.class }
    }
}
