//! Reads the content of the file.

use redb::{Key, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, TableError, Value};
use serde::de::DeserializeOwned;
use tallymesh_engine::replica::{RestoreError, SavedRows};
use tallymesh_schemas::saved::{CacheContexts, Facts, Head, Part, Row, SavedEntry, Shape};
use tallymesh_schemas::{Actor, Incarnation, NodeName, Version};

use crate::state::error::StateError;
use crate::state::file::StateFile;
use crate::state::tables::{CONTEXTS, ENTRIES, META, PARTS, ROWS, SHAPES, SavedPart, entries_of};

fn decoded<T: DeserializeOwned>(file: &StateFile, bytes: &[u8], what: &str) -> Result<T, StateError> {
    postcard::from_bytes(bytes).map_err(|error| file.damaged(format!("{what} cannot be read: {error}")))
}

impl StateFile {
    fn read(&self) -> Result<ReadTransaction, StateError> {
        self.db.begin_read().map_err(|error| self.damaged(error))
    }

    /// The saved facts other than rows.
    pub(crate) fn facts(&self) -> Result<Facts, StateError> {
        let read = || -> Result<Option<Vec<u8>>, redb::Error> {
            let meta = self.db.begin_read()?.open_table(META)?;
            Ok(meta.get("facts")?.map(|found| found.value().to_vec()))
        };
        let bytes = read().map_err(|error| self.damaged(error))?;
        decoded(self, &bytes.unwrap_or_default(), "what it says of the node")
    }

    /// Calls `each` with every part and its rows, in order of structure and actor. Only one part at a time is in memory.
    pub(crate) fn each_part(&self, mut each: impl FnMut(Part) -> Result<(), StateError>) -> Result<(), StateError> {
        self.each_head(|Head { shape, actor, extent }, stored| {
            let mut rows = Vec::new();
            stored.each(&mut |slot, version, bytes| rows.push(Row { slot, version, bytes: bytes.to_vec() }))?;
            each(Part { shape, actor, extent, rows })
        })
    }

    /// Calls `each` with the header of every part and the place of its rows, in order of structure and actor.
    pub(crate) fn each_head<E: From<StateError>>(
        &self,
        mut each: impl FnMut(Head, StoredRows<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let read = self.read()?;
        let wrong = |error: redb::Error| self.damaged(error);
        let parts = read.open_table(PARTS).map_err(|error| wrong(error.into()))?;
        for found in parts.iter().map_err(|error| wrong(error.into()))? {
            let (key, value) = found.map_err(|error| wrong(error.into()))?;
            let (id, node, run) = key.value();
            let node = NodeName::new(node).map_err(|error| self.damaged(format!("a part of \"{node}\": {error}")))?;
            let part: SavedPart = decoded(self, value.value(), "a part")?;
            let table = read.open_table(ROWS).map_err(|error| wrong(error.into()))?;
            let rows = StoredRows { file: self, table, number: part.number };
            let (shape, actor) = (self.shape(&read, id)?, Actor::new(node, Incarnation(run)));
            each(Head { shape, actor, extent: part.extent }, rows)?;
        }
        Ok(())
    }

    /// The saved caches, each with what its entries account for.
    pub(crate) fn caches(&self) -> Result<Vec<(Shape, CacheContexts)>, StateError> {
        let read = self.read()?;
        let wrong = |error: redb::Error| self.damaged(error);
        let Some(contexts) = table(&read, CONTEXTS).map_err(wrong)? else { return Ok(Vec::new()) };
        let mut all = Vec::new();
        for found in contexts.iter().map_err(|error| wrong(error.into()))? {
            let (id, contexts) = found.map_err(|error| wrong(error.into()))?;
            let contexts = decoded(self, contexts.value(), "what the entries of a cache account for")?;
            all.push((self.shape(&read, id.value())?, contexts));
        }
        Ok(all)
    }

    /// Calls `each` with every entry of a cache, in order of key. Only one entry at a time is in memory.
    pub(crate) fn each_entry<E: From<StateError>>(
        &self,
        cache: &Shape,
        mut each: impl FnMut(SavedEntry) -> Result<(), E>,
    ) -> Result<(), E> {
        let read = self.read()?;
        let wrong = |error: redb::Error| self.damaged(error);
        let Some(entries) = table(&read, ENTRIES).map_err(wrong)? else { return Ok(()) };
        for found in entries.range(entries_of(cache.id().0)).map_err(|error| wrong(error.into()))? {
            let (key, value) = found.map_err(|error| wrong(error.into()))?;
            let unfit = |what: &str| self.damaged(format!("an entry of \"{}\" {what}", cache.name));
            let entry =
                SavedEntry::decode(value.value()).map_err(|error| unfit(&format!("cannot be read: {error}")))?;
            if entry.read(|wire| wire.key == key.value().1) != Some(true) {
                return Err(unfit("stands under another key").into());
            }
            each(entry)?;
        }
        Ok(())
    }

    fn shape(&self, read: &ReadTransaction, id: u64) -> Result<Shape, StateError> {
        let found = || -> Result<Option<Vec<u8>>, redb::Error> {
            Ok(read.open_table(SHAPES)?.get(id)?.map(|found| found.value().to_vec()))
        };
        let bytes = found().map_err(|error| self.damaged(error))?;
        let shape: Shape = decoded(self, &bytes.unwrap_or_default(), "the name of a structure")?;
        if shape.id().0 != id {
            return Err(self.damaged(format!("rows of \"{}\" stand under another name", shape.name)));
        }
        Ok(shape)
    }
}

/// A table; `None` in a file of an earlier format that does not have it.
fn table<K: Key + 'static, V: Value + 'static>(
    read: &ReadTransaction,
    table: TableDefinition<'_, K, V>,
) -> Result<Option<ReadOnlyTable<K, V>>, redb::Error> {
    match read.open_table(table) {
        Ok(found) => Ok(Some(found)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The rows of a part in the file.
pub(crate) struct StoredRows<'a> {
    file: &'a StateFile,
    table: ReadOnlyTable<(u64, u32), (u64, &'static [u8])>,
    number: u64,
}

impl StoredRows<'_> {
    /// Calls `each` with every row: its slot, its version, and its bytes.
    pub(super) fn each(&self, each: &mut dyn FnMut(u32, Version, &[u8])) -> Result<(), StateError> {
        let mut read = || -> Result<(), redb::Error> {
            for found in self.table.range((self.number, 0)..=(self.number, u32::MAX))? {
                let (key, value) = found?;
                let (version, bytes) = value.value();
                each(key.value().1, Version(version), bytes);
            }
            Ok(())
        };
        read().map_err(|error| self.file.damaged(error))
    }
}

/// Why saved rows or entries cannot be restored.
#[derive(Debug)]
pub(crate) enum NotTaken {
    /// The file cannot be read.
    File(StateError),
    /// They do not fit.
    Content(RestoreError),
}

impl From<StateError> for NotTaken {
    fn from(error: StateError) -> Self {
        Self::File(error)
    }
}

impl From<RestoreError> for NotTaken {
    fn from(error: RestoreError) -> Self {
        Self::Content(error)
    }
}

impl SavedRows for StoredRows<'_> {
    type Error = NotTaken;

    fn each_row(&self, each: &mut dyn FnMut(u32, Version, &[u8])) -> Result<(), NotTaken> {
        Ok(self.each(each)?)
    }

    fn row(&self, slot: u32, take: &mut dyn FnMut(Version, &[u8])) -> Result<(), NotTaken> {
        let found = self.table.get((self.number, slot)).map_err(|error| self.file.damaged(error))?;
        if let Some(found) = found {
            let (version, bytes) = found.value();
            take(Version(version), bytes);
        }
        Ok(())
    }
}
