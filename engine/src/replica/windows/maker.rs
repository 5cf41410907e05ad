//! Making the windows of a ring.

use std::collections::VecDeque;
use std::sync::Arc;

use tallymesh_schemas::{Actor, SeriesSpec, Window};

use crate::budget::{Budget, NodeBudget};
use crate::counter::published::Changed;
use crate::counter::series::Ring;
use crate::counter::structure::Structure;
use crate::keyspace::quota::Quota;
use crate::random::Random;
use crate::replica::held::{Held, Structures};
use crate::wake::Wake;

/// What a new window needs.
pub(crate) struct Maker<'a> {
    /// The structures, to which it adds the new windows.
    pub(crate) structures: &'a mut Structures,
    pub(crate) actor: &'a Actor,
    pub(crate) random: &'a mut Random,
    pub(crate) budget: &'a Arc<NodeBudget>,
    /// Where the windows list themselves when they have changed.
    pub(crate) changed: &'a Arc<Changed>,
    pub(crate) leaving: bool,
}

/// The ring to make.
pub(crate) struct NewRing<'a> {
    pub(crate) spec: &'a SeriesSpec,
    /// How many windows it keeps.
    pub(crate) kept: u32,
    /// What all windows may hold together.
    pub(crate) budget: &'a Arc<Budget>,
    pub(crate) wake: &'a Wake,
    /// The windows that exist. The ring takes those that it needs.
    pub(crate) known: &'a [Arc<Structure>],
    /// The windows that come a second time: they are not shared.
    pub(crate) spent: &'a VecDeque<Window>,
}

impl Maker<'_> {
    /// The windows around `current`.
    pub(crate) fn ring(&mut self, current: Window, new: &NewRing<'_>) -> Ring {
        let oldest = current.saturating_sub(u64::from(new.kept.saturating_sub(1)));
        let windows = (oldest..=current.saturating_add(1)).rev().map(|window| self.window(window, new));
        Ring { current, windows: windows.collect() }
    }

    fn window(&mut self, window: Window, new: &NewRing<'_>) -> Arc<Structure> {
        let spec = new.spec.structure(window);
        if let Some(known) = new.known.iter().find(|known| known.spec().name == spec.name) {
            return Arc::clone(known);
        }
        let quota = Quota::new(Arc::clone(new.budget), Arc::clone(self.budget));
        let (actor, seed) = (self.actor.clone(), self.random.next());
        let made = Arc::new(Structure::new(spec, actor, seed, Arc::clone(new.wake), self.changed, quota));
        if self.leaving {
            made.close();
        }
        let held = Held {
            shared: new.spec.replicate && !new.spent.contains(&window),
            persists: new.spec.persist,
            ..Held::new(Arc::clone(&made))
        };
        // The chance that the id is taken is 1 in 2^64. The window then counts, and is not shared.
        self.structures.entry(made.id()).or_insert(held);
        made
    }
}
