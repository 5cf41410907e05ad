//! What is in the file.

use redb::{ReadTransaction, ReadableDatabase, ReadableTable};
use serde::de::DeserializeOwned;
use tallymesh_schemas::saved::{Facts, Part, Row, Shape};
use tallymesh_schemas::{Actor, Incarnation, NodeName};

use super::StateError;
use super::file::{META, PARTS, ROWS, SHAPES, StateFile};
use super::write::SavedPart;

fn decoded<T: DeserializeOwned>(file: &StateFile, bytes: &[u8], what: &str) -> Result<T, StateError> {
    postcard::from_bytes(bytes).map_err(|error| file.damaged(format!("{what} cannot be read: {error}")))
}

impl StateFile {
    fn read(&self) -> Result<ReadTransaction, StateError> {
        self.db.begin_read().map_err(|error| self.damaged(error))
    }

    /// What the node knew beside rows.
    pub(crate) fn facts(&self) -> Result<Facts, StateError> {
        let read = || -> Result<Option<Vec<u8>>, redb::Error> {
            let meta = self.db.begin_read()?.open_table(META)?;
            Ok(meta.get("facts")?.map(|found| found.value().to_vec()))
        };
        let bytes = read().map_err(|error| self.damaged(error))?;
        decoded(self, &bytes.unwrap_or_default(), "what it says of the node")
    }

    /// Hands every part to `each`, with its rows, in order of structure and actor.
    pub(crate) fn each_part(&self, mut each: impl FnMut(Part) -> Result<(), StateError>) -> Result<(), StateError> {
        let read = self.read()?;
        let wrong = |error: redb::Error| self.damaged(error);
        let parts = read.open_table(PARTS).map_err(|error| wrong(error.into()))?;
        for found in parts.iter().map_err(|error| wrong(error.into()))? {
            let (key, value) = found.map_err(|error| wrong(error.into()))?;
            let (id, node, run) = key.value();
            let node = NodeName::new(node).map_err(|error| self.damaged(format!("a part of \"{node}\": {error}")))?;
            let part: SavedPart = decoded(self, value.value(), "a part")?;
            let shape = self.shape(&read, id)?;
            let rows = rows(&read, part.number).map_err(wrong)?;
            each(Part { shape, actor: Actor::new(node, Incarnation(run)), extent: part.extent, rows })?;
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

fn rows(read: &ReadTransaction, number: u64) -> Result<Vec<Row>, redb::Error> {
    let all = read.open_table(ROWS)?;
    let mut rows = Vec::new();
    for found in all.range((number, 0)..=(number, u32::MAX))? {
        let (key, value) = found?;
        let (version, bytes) = value.value();
        rows.push(Row { slot: key.value().1, version, bytes: bytes.to_vec() });
    }
    Ok(rows)
}
