//! I14. Verification of caches: it names who lags and whose copy differs, and says "converged" only when nobody does.

use std::time::Duration;

use tallymesh_engine::Stamp;
use tallymesh_engine::replica::{Backlog, Fault, Outcome, Verification, Verifier};

use crate::late::{KEY, cache, cache_wire, get, set};
use crate::wire::{Wire, is_entries};
use crate::{entries_of, session};

const PATIENCE: Duration = Duration::from_secs(5);

/// Verifies on the first node. Entries for the last node are lost if `loses` is set.
fn verify(wire: &mut Wire, loses: Option<usize>) -> Verification {
    let now = wire.now;
    let mut verifier = Verifier::new(&mut wire.replicas[0], now, PATIENCE);
    for _ in 0..100 {
        let now = wire.now;
        if let Some(found) = verifier.poll(&mut wire.replicas[0], now, |_| true, Backlog::Empty) {
            return found;
        }
        talk(wire, loses);
    }
    panic!("it does not end");
}

/// Lets a tenth of a second pass.
fn talk(wire: &mut Wire, loses: Option<usize>) {
    wire.wait_a_little();
    for _ in 0..4 {
        for (from, to) in [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)] {
            for bytes in wire.take(from, to) {
                if !(loses == Some(to) && is_entries(&bytes)) {
                    wire.give(from, to, &bytes).unwrap();
                }
            }
        }
    }
}

#[test]
fn a_cache_that_all_have_taken_in_has_converged() {
    let mut wire = cache_wire(&["a", "b", "c"]);
    for at in 0..3 {
        set(&mut wire, at, &[at as u8], b"v");
    }
    wire.run(3);
    let found = verify(&mut wire, None);
    assert_eq!((found.outcome(), found.actors, found.copies), (Outcome::Converged, 3, 9));
}

/// What is written at this moment is no fault: the verification waits until it has arrived.
#[test]
fn a_write_on_its_way_is_awaited() {
    let mut wire = cache_wire(&["a", "b", "c"]);
    set(&mut wire, 1, KEY, b"v");
    assert_eq!(verify(&mut wire, None).outcome(), Outcome::Converged);
}

#[test]
fn a_member_that_lags_is_named() {
    let mut wire = cache_wire(&["a", "b", "c"]);
    set(&mut wire, 0, KEY, b"v");
    (0..30).for_each(|_| talk(&mut wire, Some(2)));
    let found = verify(&mut wire, Some(2));
    assert_eq!(found.outcome(), Outcome::NotConverged);
    let [finding] = &found.findings[..] else { panic!("{found:?}") };
    assert_eq!((finding.member.as_str(), finding.actor.node.as_str()), ("c", "a"));
    assert_eq!((finding.fault, finding.applied.0, finding.head.0), (Fault::Lags, 0, 1));
    // When it can, it takes in what it lacks.
    wire.run(10);
    assert_eq!(verify(&mut wire, None).outcome(), Outcome::Converged);
    assert_eq!(get(&wire, 2, KEY).as_deref(), Some(&b"v"[..]));
}

/// A member has taken in the same writes and holds another value. Both fingerprints are compared.
#[test]
fn a_copy_that_differs_is_named() {
    let mut wire = cache_wire(&["a", "b", "c"]);
    set(&mut wire, 0, KEY, b"right");
    wire.run(3);
    let session = session(&mut wire, 2, 1);
    let (run, later) = (wire.replicas[0].actor().clone(), Stamp::at(wire.now.unix_ms.after(Duration::from_secs(1))));
    let wrong = entries_of(&wire, run, (session, 0), &[(1, later, KEY, b"wrong")]);
    wire.give(1, 2, &wrong).unwrap();
    wire.run(3);
    assert_eq!(cache(&wire, 2).seen(), cache(&wire, 0).seen());
    let found = verify(&mut wire, None);
    let differs: Vec<_> = found.findings.iter().map(|finding| (finding.member.as_str(), finding.fault)).collect();
    assert_eq!((found.outcome(), differs), (Outcome::NotConverged, vec![("c", Fault::Differs)]));
}
