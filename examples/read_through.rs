//! A cache in front of a database: the first node that needs a value loads it, and then all nodes have it.
//!
//! Run it with `cargo run --example read_through`. It makes its own certificates, and a database in a temporary folder.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use redb::{Database, ReadableDatabase, TableDefinition};
use tallymesh::StructureName;

mod common;

const USERS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("users");

/// The database. A node reads a user from it at most once a minute.
struct Users {
    database: Database,
    reads: AtomicU32,
}

impl Users {
    fn read(&self, user: &str) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let table = self.database.begin_read()?.open_table(USERS)?;
        let name = table.get(user)?.ok_or_else(|| format!("there is no user {user}"))?;
        Ok(name.value().to_vec())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let database = Database::create(folder.path().join("users.redb"))?;
    let write = database.begin_write()?;
    write.open_table(USERS)?.insert("user:7", b"Ada".as_slice())?;
    write.commit()?;
    let users = Arc::new(Users { database, reads: AtomicU32::new(0) });

    let sessions = StructureName::new("sessions")?;
    let nodes = common::cluster(&["relay-0-1", "relay-0-2"], |builder| builder.cache(sessions.clone())).await?;
    let [first, second] = [&nodes[0], &nodes[1]].map(|node| node.cache("sessions"));
    let (first, second) = (first?, second?);

    // The read blocks, so it runs outside the node's tasks.
    let load = |user: &'static str| {
        let users = Arc::clone(&users);
        move || async move {
            tokio::task::spawn_blocking(move || users.read(user))
                .await
                .map_err(|e| e.to_string())?
                .map_err(|e| e.to_string())
        }
    };
    let minute = Duration::from_secs(60);
    let loaded = first.get_or_load("user:7", minute, load("user:7")).await?;
    println!("on the first node: {}", String::from_utf8_lossy(&loaded.value));
    while second.get("user:7").is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let read = second.get_or_load("user:7", minute, load("user:7")).await?;
    println!("on the second one: {}, loaded: {}", String::from_utf8_lossy(&read.value), read.loaded);
    if let Err(error) = second.get_or_load("user:8", minute, load("user:8")).await {
        println!("of another one: {error}");
    }
    println!("read from the database {} times", users.reads.load(Ordering::Relaxed));
    for node in &nodes {
        node.shutdown().await;
    }
    Ok(())
}
