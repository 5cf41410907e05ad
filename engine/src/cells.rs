//! The ledger's numbering of the cells that have rows.

use crate::cell::Cell;
use crate::primitive::Arc;
use crate::radix::KeyOf;
use crate::slots::{CellId, EMPTY};

/// A cell with at least one row, or about to get one.
#[derive(Debug)]
pub(crate) struct Counted {
    pub(crate) cell: Arc<Cell>,
    /// The slot of our own row, [`EMPTY`] when there is none.
    pub(crate) own_slot: u32,
    /// Rows of all actors, ours included.
    pub(crate) rows: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Cells {
    list: Vec<Option<Counted>>,
    free: Vec<CellId>,
}

impl Cells {
    /// The number of a cell, and whether it is new.
    pub(crate) fn number(&mut self, cell: &Arc<Cell>) -> (CellId, bool) {
        if let Some(id) = cell.id() {
            return (id, false);
        }
        let counted = Counted { cell: Arc::clone(cell), own_slot: EMPTY, rows: 0 };
        let id = match self.free.pop() {
            Some(id) => {
                self.list[id as usize] = Some(counted);
                id
            }
            None => {
                self.list.push(Some(counted));
                self.list.len() as CellId - 1
            }
        };
        cell.set_id(id);
        (id, true)
    }

    /// The cell of a number. A number is given back only when no row holds it any more.
    pub(crate) fn get(&self, id: CellId) -> &Counted {
        self.list[id as usize].as_ref().expect("a row holds the number")
    }

    pub(crate) fn get_mut(&mut self, id: CellId) -> &mut Counted {
        self.list[id as usize].as_mut().expect("a row holds the number")
    }

    /// Gives back the number of a cell without rows.
    pub(crate) fn free(&mut self, id: CellId) -> Arc<Cell> {
        let counted = self.list[id as usize].take().expect("a number is given back once");
        debug_assert_eq!(counted.rows, 0, "a cell with rows keeps its number");
        counted.cell.set_id(EMPTY);
        self.free.push(id);
        counted.cell
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (CellId, &Counted)> {
        self.list.iter().enumerate().filter_map(|(id, counted)| Some((id as CellId, counted.as_ref()?)))
    }

    /// Bytes of the numbering itself.
    pub(crate) fn bytes(&self) -> usize {
        self.list.capacity() * size_of::<Option<Counted>>() + self.free.capacity() * size_of::<CellId>()
    }
}

impl KeyOf for Cells {
    fn key_of(&self, id: CellId) -> &[u8] {
        self.get(id).cell.key()
    }
}
