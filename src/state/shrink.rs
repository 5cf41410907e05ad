//! Compacts the state file when a node starts, if most of the file is free.
//!
//! The database reuses free pages, and returns those at the end of its file to the disk. After many deletions, the remaining
//! rows are scattered over the file, few bytes in each page. Then the node copies them into a new file, which replaces the old
//! one.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use redb::{Database, Key, ReadableDatabase, ReadableTable, TableDefinition, TableError, Value};

use crate::state::error::StateError;
use crate::state::file::StateFile;
use crate::state::tables::{CACHE_BYTES, CONTEXTS, ENTRIES, META, PARTS, ROWS, SHAPES};

/// Smaller files are not compacted.
const LEAST_BYTES: u64 = 16 << 20;

/// The most stored bytes that are copied, so that the copy does not delay a start for long.
const COPIED_BYTES: u64 = 1 << 30;

/// A file is copied when less than one part in this number is stored bytes. A new file is about half full, so that a copy is
/// not copied again.
const MOSTLY_FREE: u64 = 4;

/// Bytes of rows in one commit of the copy.
const COMMIT_BYTES: usize = 8 << 20;

/// Compacts the file if most of it is free. If that fails, the file stays as it is.
pub(super) fn shrink(file: StateFile, dir: &Path) -> Result<StateFile, StateError> {
    let draft = dir.join("state.redb.smaller");
    let path = file.path.clone();
    let sizes = match shrunk(&file, &draft) {
        Ok(Some(sizes)) => sizes,
        Ok(None) => return Ok(file),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the state cannot be made smaller");
            let _ = fs::remove_file(&draft);
            return Ok(file);
        }
    };
    let error = |error| StateError::Io { what: "replace", path: path.clone(), source: error };
    // The old file stays open meanwhile, so no other process can open it.
    fs::rename(&draft, &path).map_err(error)?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(error)?;
    tracing::info!(path = %path.display(), before = sizes.0, after = sizes.1, "gave back what the state had free");
    file.reopen()
}

/// Copies the file if most of it is free and the copy is smaller. Returns the sizes of both.
fn shrunk(file: &StateFile, draft: &Path) -> Result<Option<(u64, u64)>, redb::Error> {
    let before = fs::metadata(&file.path)?.len();
    if before < LEAST_BYTES {
        return Ok(None);
    }
    let write = file.db.begin_write()?;
    let stats = write.stats()?;
    write.abort()?;
    let stored = stats.stored_bytes() + stats.metadata_bytes();
    if stored > before / MOSTLY_FREE || stored > COPIED_BYTES {
        return Ok(None);
    }
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(draft)?;
    let to = Database::builder().set_cache_size(CACHE_BYTES).create(draft)?;
    copy(META, file, &to)?;
    copy(SHAPES, file, &to)?;
    copy(PARTS, file, &to)?;
    copy(ROWS, file, &to)?;
    copy(ENTRIES, file, &to)?;
    copy(CONTEXTS, file, &to)?;
    to.close()?;
    let after = fs::metadata(draft)?.len();
    if after > before / 2 {
        fs::remove_file(draft)?;
        return Ok(None);
    }
    Ok(Some((before, after)))
}

fn copy<K: Key + 'static, V: Value + 'static>(
    table: TableDefinition<'_, K, V>,
    from: &StateFile,
    to: &Database,
) -> Result<(), redb::Error> {
    let read = match from.db.begin_read()?.open_table(table) {
        Ok(read) => read,
        // The file has an earlier format.
        Err(TableError::TableDoesNotExist(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let mut rows = read.iter()?.peekable();
    loop {
        let write = to.begin_write()?;
        let mut copied = write.open_table(table)?;
        let mut bytes = 0;
        while bytes < COMMIT_BYTES
            && let Some(row) = rows.next()
        {
            let (key, value) = row?;
            bytes += K::as_bytes(&key.value()).as_ref().len() + V::as_bytes(&value.value()).as_ref().len();
            copied.insert(key.value(), value.value())?;
        }
        drop(copied);
        write.commit()?;
        if rows.peek().is_none() {
            return Ok(());
        }
    }
}
