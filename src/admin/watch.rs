//! The request that watches the changes of an object.

use tallymesh_schemas::Bound;
use tallymesh_schemas::admin::Answer;

use crate::admin::session::{Served, Session, text};
use crate::admin::wire::{self, From, To};

impl Session {
    /// Sends every changed key until the client closes its end.
    pub(super) async fn watch(&self, object: &str, from: &mut From, to: &mut To) -> Served {
        let object = match self.object(object) {
            Ok(object) => object,
            Err(refused) => return Ok(Err(refused)),
        };
        let feed = self.feeds().of(&object);
        let mut cursor = feed.begin();
        let end = from.closed();
        tokio::pin!(end);
        loop {
            let changed = feed.changed.notified();
            tokio::pin!(changed);
            // From here on the watcher misses no change, including one before it begins to wait.
            changed.as_mut().enable();
            let (keys, lost) = feed.next(&mut cursor);
            if keys.is_empty() && lost == 0 {
                tokio::select! {
                    () = &mut end => return Ok(Ok(())),
                    () = changed => continue,
                }
            }
            self.shared().tally.reached_times(Bound::WatchedChanges, lost);
            let time = self.shared().clock.time();
            let kind = object.spec().class.kind();
            let counts = keys.iter().map(|key| (text(kind, key), object.total(key, time)));
            let told = Answer::Changed { keys: counts.collect(), lost };
            tokio::select! {
                () = &mut end => return Ok(Ok(())),
                written = wire::write(to, &told) => written?,
            }
        }
    }
}
