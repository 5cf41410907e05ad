//! The messages of the replication protocol: what is decoded lies within the bounds, and comes back when it is encoded.

use tallymesh_schemas::bounds;
use tallymesh_schemas::message::{Delta, Digest, Message};

/// Decodes one message.
pub fn run(bytes: &[u8]) {
    let Ok(message) = Message::decode(bytes) else { return };
    check_bounds(&message, bytes.len());
    let mut again = Vec::new();
    message.encode(&mut again).expect("what was decoded can be encoded");
    assert!(again.len() <= bytes.len(), "the encoding is the shortest form");
    assert_eq!(Message::decode(&again).as_ref(), Ok(&message));
    assert!(format!("{message:?}").len() < 64 + 64 * bytes.len(), "what is decoded is no larger than what came");
}

fn check_bounds(message: &Message<'_>, len: usize) {
    match message {
        Message::Digest(Digest { incarnation, structures, tombstones, .. }) => {
            assert!(incarnation.0 <= bounds::INCARNATION);
            assert!(structures.len() <= bounds::STRUCTURES.min(len));
            assert!(tombstones.len() <= bounds::TOMBSTONES.min(len));
            let entries: usize = structures.iter().map(|structure| structure.entries.len()).sum();
            assert!(entries <= bounds::DIGEST_ENTRIES.min(len));
            for entry in structures.iter().flat_map(|structure| &structure.entries) {
                assert!(
                    entry.since <= entry.applied
                        && entry.applied <= bounds::VERSION
                        && entry.low_water <= bounds::VERSION
                );
                assert!(entry.actor.incarnation.0 <= bounds::INCARNATION);
            }
        }
        Message::Want(want) => assert!(want.since <= want.after && want.after <= bounds::VERSION),
        Message::Delta(Delta { since, after, upto, low_water, rows, .. }) => {
            assert!(since <= after && after <= upto && *upto <= bounds::VERSION && *low_water <= bounds::VERSION);
            assert!(rows.len() <= len);
        }
        Message::Seen(seen) => {
            assert!(seen.entries.len() <= bounds::SEEN_ENTRIES.min(len));
            for entry in &seen.entries {
                assert!(entry.complete <= entry.applied && entry.applied <= bounds::VERSION);
                assert!(entry.actor.incarnation.0 <= bounds::INCARNATION);
            }
        }
        Message::Prune(prune) => assert!(prune.actor.incarnation.0 <= bounds::INCARNATION),
        Message::Probe { .. } | Message::Goodbye => {}
    }
}
