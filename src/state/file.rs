//! The state file. It is created completely or not at all. One process at a time can open it, and only if it is this node's.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use redb::{Database, DatabaseError, ReadableDatabase, StorageError, TableError, WriteTransaction};
use tallymesh_schemas::saved::Facts;
use tallymesh_schemas::{NodeName, bounds};

use crate::seed::random_seed;
use crate::state::error::StateError;
use crate::state::seal::Seal;
use crate::state::tables::{CACHE_BYTES, FORMAT, META};
use crate::state::write;

/// The file's name in the folder.
const NAME: &str = "state.redb";

/// The path of the state file in a folder.
pub(super) fn path_in(dir: &Path) -> PathBuf {
    dir.join(NAME)
}

/// The text by which the file identifies itself.
const KIND: &[u8] = b"tallymesh state";

/// The header of a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The node that the state belongs to.
    pub node: NodeName,
    /// The format of the file.
    pub format: u32,
    /// The protocol version of the content.
    pub protocol: u8,
    /// All changes up to this time are in it, in milliseconds since 1970.
    pub saved_ms: u64,
}

/// An open state.
pub(crate) struct StateFile {
    pub(super) db: Database,
    pub(super) path: PathBuf,
}

impl StateFile {
    /// Creates an empty state for a node.
    pub(super) fn create(dir: &Path, node: &NodeName) -> Result<(), StateError> {
        create(dir, node, |_| Ok(()))
    }

    /// Opens the state of any node.
    pub(crate) fn open(dir: &Path) -> Result<Self, StateError> {
        let path = dir.join(NAME);
        if !path.try_exists().map_err(|error| StateError::Io { what: "look for", path: path.clone(), source: error })? {
            return Err(StateError::Missing(path));
        }
        let db = open(&path)?;
        let file = Self { db, path };
        file.header()?;
        Ok(file)
    }

    /// Closes the database and opens it again. After an I/O error the database accepts no more writes.
    pub(super) fn reopen(self) -> Result<Self, StateError> {
        let Self { db, path } = self;
        drop(db);
        Self::open_at(path)
    }

    pub(super) fn open_at(path: PathBuf) -> Result<Self, StateError> {
        open(&path).map(|db| Self { db, path })
    }

    /// The path of the file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The file's header, checked.
    pub(crate) fn header(&self) -> Result<Header, StateError> {
        let foreign = |what: &str| StateError::Foreign { path: self.path.clone(), what: what.to_owned() };
        let read = self.db.begin_read().map_err(|error| self.damaged(error))?;
        let meta = match read.open_table(META) {
            Ok(meta) => meta,
            Err(TableError::Storage(error)) => return Err(self.damaged(error)),
            Err(_) => return Err(foreign("another program's database")),
        };
        let value = |key: &str| -> Result<Vec<u8>, StateError> {
            let found = meta.get(key).map_err(|error| self.damaged(error))?;
            Ok(found.map(|found| found.value().to_vec()).unwrap_or_default())
        };
        if value("kind")? != KIND {
            return Err(foreign("another program's database"));
        }
        let number = |bytes: Vec<u8>| bytes.try_into().map(u32::from_le_bytes).ok();
        let format = number(value("format")?).ok_or_else(|| self.damaged("it does not say its format"))?;
        let protocol = value("protocol")?.first().copied().unwrap_or_default();
        if format > FORMAT || protocol > bounds::PROTOCOL_VERSION {
            return Err(StateError::Newer { path: self.path.clone(), format, known: FORMAT });
        }
        let node = String::from_utf8(value("node")?).ok().and_then(|node| NodeName::new(&node).ok());
        let node = node.ok_or_else(|| self.damaged("it does not say whose it is"))?;
        let saved_ms = value("saved")?.try_into().map(u64::from_le_bytes).unwrap_or_default();
        Ok(Header { node, format, protocol, saved_ms })
    }

    /// The file's record of its last commit.
    pub(super) fn seal(&self) -> Result<Seal, StateError> {
        let read = || -> Result<Seal, redb::Error> {
            let meta = self.db.begin_read()?.open_table(META)?;
            let number = |key: &str| -> Result<u64, redb::Error> {
                let found = meta.get(key)?;
                Ok(found.and_then(|found| found.value().try_into().map(u64::from_le_bytes).ok()).unwrap_or_default())
            };
            Ok(Seal {
                lineage: number("lineage")?,
                commit: number("commit")?,
                at_ms: number("committed")?,
                incarnation: 0,
            })
        };
        let seal = read().map_err(|error| self.damaged(error))?;
        Ok(Seal { incarnation: self.facts()?.incarnation.0, ..seal })
    }

    pub(super) fn damaged(&self, what: impl ToString) -> StateError {
        StateError::Damaged { path: self.path.clone(), what: what.to_string() }
    }
}

fn open(path: &Path) -> Result<Database, StateError> {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    builder.open(path).map_err(|error| refused(path, error))
}

fn refused(path: &Path, error: DatabaseError) -> StateError {
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen => StateError::InUse(path),
        DatabaseError::UpgradeRequired(version) => {
            StateError::Foreign { path, what: format!("a database of layout {version}") }
        }
        DatabaseError::Storage(StorageError::Io(error)) => match error.kind() {
            io::ErrorKind::InvalidData => StateError::Foreign { path, what: "not a database".to_owned() },
            io::ErrorKind::UnexpectedEof => StateError::Damaged { path, what: "it ends early".to_owned() },
            _ => StateError::Io { what: "open", path, source: error },
        },
        error => StateError::Damaged { path, what: error.to_string() },
    }
}

/// Creates a state under a temporary name, fills it, and moves it into place if no state is there. A process that ends before
/// the move leaves nothing that could be mistaken for a state.
pub(super) fn create(
    dir: &Path,
    node: &NodeName,
    fill: impl FnOnce(&WriteTransaction) -> Result<(), StateError>,
) -> Result<(), StateError> {
    let path = dir.join(NAME);
    let draft = dir.join(format!("{NAME}.{}.new", std::process::id()));
    let io = |what: &'static str, path: &Path, error| StateError::Io { what, path: path.to_owned(), source: error };
    fs::create_dir_all(dir).map_err(|error| io("make", dir, error))?;
    let made = make(&draft, node, fill).and_then(|()| match fs::hard_link(&draft, &path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(StateError::Exists(path.clone())),
        Err(error) => Err(io("make", &path, error)),
    });
    let removed = fs::remove_file(&draft);
    made?;
    removed.map_err(|error| io("remove", &draft, error))?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| io("write", dir, error))
}

fn make(
    draft: &Path,
    node: &NodeName,
    fill: impl FnOnce(&WriteTransaction) -> Result<(), StateError>,
) -> Result<(), StateError> {
    let wrong = |error: redb::Error| StateError::Io {
        what: "write",
        path: draft.to_owned(),
        source: match error {
            redb::Error::Io(error) => error,
            error => io::Error::other(error),
        },
    };
    // Only the owner may read the content of caches.
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(draft);
    file.map_err(|error| wrong(redb::Error::Io(error)))?;
    let db = Database::builder().set_cache_size(CACHE_BYTES).create(draft).map_err(|error| wrong(error.into()))?;
    let write = db.begin_write().map_err(|error| wrong(error.into()))?;
    begin(&write, node).map_err(wrong)?;
    fill(&write)?;
    write.commit().map_err(|error| wrong(error.into()))?;
    db.close().map_err(|error| wrong(error.into()))
}

fn begin(write: &WriteTransaction, node: &NodeName) -> Result<(), redb::Error> {
    let mut meta = write.open_table(META)?;
    meta.insert("kind", KIND)?;
    meta.insert("node", node.as_str().as_bytes())?;
    meta.insert("lineage", &random_seed().max(1).to_le_bytes()[..])?;
    drop(meta);
    write::form(write)?;
    write::facts(write, &Facts::default())
}
