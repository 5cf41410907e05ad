//! Holds that the ground truth tracks.

use std::cell::RefCell;
use std::rc::Rc;

use tallymesh_engine::Hold;
use tallymesh_schemas::StructureName;

use crate::truth::{RunId, Truth};

/// A [`Hold`] that the ground truth tracks.
#[derive(Debug)]
pub struct SimHold {
    pub(crate) hold: Option<Hold>,
    pub(crate) truth: Rc<RefCell<Truth>>,
    pub(crate) run: RunId,
    pub(crate) structure: StructureName,
    pub(crate) key: Vec<u8>,
}

impl Drop for SimHold {
    fn drop(&mut self) {
        drop(self.hold.take());
        self.truth.borrow_mut().record(self.run, &self.structure, &self.key, -1);
    }
}
