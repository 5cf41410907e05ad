//! Holding an address within limits of the address and of the blocks around it.

#[allow(dead_code, reason = "each test crate uses its part")]
mod wire;

use std::net::IpAddr;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use tallymesh_engine::{Hold, HoldError, Structure};
use tallymesh_schemas::{Class, Family, MaskLimit, StructureName, StructureSpec, key};
use wire::{Wire, config};

fn cluster(nodes: &[&str]) -> Wire {
    let mut spec = StructureSpec::new(StructureName::new(wire::NAME).unwrap(), Class::InboundCidr);
    spec.max_delay = Duration::ZERO;
    Wire::with(nodes, &config(), &spec)
}

fn hold(structure: &Arc<Structure>, addr: &str, limits: &[(u8, i64)]) -> Result<Hold, HoldError> {
    structure.try_hold_within(addr.parse().unwrap(), limits.iter().copied().map(MaskLimit::from))
}

fn total(structure: &Structure, net: &str, wire: &Wire) -> i64 {
    structure.count_net(key::parse_net(net).unwrap(), wire.now.mono).total
}

/// The addresses of a block are limited together, each is counted once, and the refusal says by which mask.
#[test]
fn a_block_limits_what_lies_in_it() {
    let wire = cluster(&["a"]);
    let structure = wire.structure(0);
    let limits = [(32, 2), (24, 3), (16, 4)];
    let mut open =
        vec![hold(&structure, "192.0.2.1", &limits).unwrap(), hold(&structure, "192.0.2.1", &limits).unwrap()];
    let full = hold(&structure, "192.0.2.1", &limits).unwrap_err();
    assert_eq!(full.to_string(), "192.0.2.1: 2 are counted and 2 are allowed");
    open.push(hold(&structure, "::ffff:192.0.2.2", &limits).unwrap());
    let full = hold(&structure, "192.0.2.3", &limits).unwrap_err();
    assert_eq!(full, HoldError::Full { block: "192.0.2.0/24".parse().unwrap(), count: 3, limit: 3 });
    assert_eq!(full.to_string(), "192.0.2.0/24: 3 are counted and 3 are allowed");
    open.push(hold(&structure, "192.0.3.1", &limits).unwrap());
    let full = hold(&structure, "192.0.4.1", &limits).unwrap_err().to_string();
    assert_eq!(full, "192.0.0.0/16: 4 are counted and 4 are allowed");
    assert_eq!(total(&structure, "0.0.0.0/0", &wire), 4, "each is counted once");
    assert_eq!(structure.keys(), 3, "those that are refused leave nothing behind");

    open.remove(0);
    open.push(hold(&structure, "192.0.2.3", &limits).unwrap());
    drop(open);
    assert_eq!(total(&structure, "0.0.0.0/0", &wire), 0);
    structure.audit().unwrap();
}

#[test]
fn masks_of_both_families_stand_side_by_side() {
    let wire = cluster(&["a"]);
    let structure = wire.structure(0);
    let limits = [(32, 1), (24, 2), (128, 1), (64, 2), (48, 3)];
    let open = ["192.0.2.1", "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"];
    let open = open.map(|addr| hold(&structure, addr, &limits).unwrap());
    let refused = |addr| hold(&structure, addr, &limits).unwrap_err().to_string();
    assert_eq!(refused("2001:db8::1"), "2001:db8::1: 1 are counted and 1 are allowed");
    assert_eq!(refused("2001:db8::3"), "2001:db8::/64: 2 are counted and 2 are allowed");
    assert_eq!(refused("2001:db8:0:2::1"), "2001:db8::/48: 3 are counted and 3 are allowed");
    assert_eq!(refused("192.0.2.1"), "192.0.2.1: 1 are counted and 1 are allowed");
    drop(open);

    // A short IPv6 mask has to name its family.
    let short = MaskLimit { family: Family::V6, prefix_len: 32, limit: 1 };
    let _open = structure.try_hold_within("2001:db8:1::1".parse().unwrap(), [short]).unwrap();
    let full = structure.try_hold_within("2001:db8:2::1".parse().unwrap(), [short]).unwrap_err();
    assert_eq!(full.to_string(), "2001:db8::/32: 1 are counted and 1 are allowed");
}

/// Nobody is let in by a limit that does not concern them, and no error counts anything.
#[test]
fn limits_that_cannot_be_are_refused() {
    let wire = cluster(&["a"]);
    let structure = wire.structure(0);
    let none = hold(&structure, "2001:db8::1", &[(32, 10), (24, 30)]).unwrap_err();
    assert_eq!(none.to_string(), "no limit applies to 2001:db8::1: name one for IPv6 addresses");
    let long = MaskLimit { family: Family::V4, prefix_len: 33, limit: 9 };
    let long = structure.try_hold_within("192.0.2.1".parse().unwrap(), [long]).unwrap_err();
    assert_eq!(long.to_string(), "an IPv4 address has 32 bits, not 33");
    assert!(hold(&structure, "192.0.2.1", &[(24, 0)]).is_err());
    assert!(hold(&structure, "192.0.2.1", &[(32, 0)]).is_err());
    assert_eq!((total(&structure, "::/0", &wire), structure.keys()), (0, 0));
    // Without limits it is a plain hold.
    let _open = hold(&structure, "192.0.2.1", &[]).unwrap();
    assert_eq!(total(&structure, "192.0.2.1", &wire), 1);

    let domains = Wire::new(&["a"]).structure(0);
    assert!(matches!(hold(&domains, "192.0.2.1", &[(24, 9)]), Err(HoldError::Key(_))));
}

/// What other nodes hold takes room, and a count below zero makes none.
#[test]
fn a_block_counts_what_all_nodes_hold() {
    let mut wire = cluster(&["a", "b"]);
    wire.up(0, 1);
    let theirs = hold(&wire.structure(0), "192.0.2.1", &[(24, 2)]).unwrap();
    let now = wire.now;
    wire.replicas[0].handle_changes(now);
    wire.talk();
    let ours = wire.structure(1);
    let _open = hold(&ours, "192.0.2.2", &[(24, 2)]).unwrap();
    assert!(matches!(hold(&ours, "192.0.2.3", &[(24, 2)]), Err(HoldError::Full { count: 2, .. })));
    drop(theirs);
    wire.replicas[0].handle_changes(now);
    wire.talk();
    let _more = hold(&ours, "192.0.2.3", &[(24, 2)]).unwrap();

    let (key, n) = key::from_net("198.51.100.1/32".parse().unwrap());
    ours.add(&key[..n], -5).unwrap();
    assert!(matches!(hold(&ours, "198.51.100.2", &[(24, 0)]), Err(HoldError::Full { count: 0, .. })));
}

/// The threads of a node never admit more than a limit together, while they also let go of what they hold.
#[test]
fn threads_never_exceed_a_block_together() {
    const LIMIT: i64 = 5;
    for round in 0..40_u8 {
        let wire = cluster(&["a"]);
        let structure = wire.structure(0);
        let begin = Barrier::new(4);
        let admitted = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4_u8)
                .map(|thread| {
                    let (structure, begin) = (&structure, &begin);
                    scope.spawn(move || {
                        let mut kept = Vec::new();
                        begin.wait();
                        for n in 0..60_u8 {
                            let addr = IpAddr::from([192, 0, 2, (thread + n + round) % 3]);
                            let limits = [(32, 4), (24, LIMIT)].map(MaskLimit::from);
                            kept.extend(structure.try_hold_within(addr, limits));
                            if n % 3 == 0 {
                                // Another's change of the same cell, which is listed while this thread goes on.
                                drop(kept.pop());
                            }
                        }
                        begin.wait();
                        // All have stopped, and nobody has let go yet.
                        let open =
                            structure.count_net("192.0.2.0/24".parse().unwrap(), tallymesh_engine::Time(0)).total;
                        begin.wait();
                        (kept.len() as i64, open)
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        let kept: i64 = admitted.iter().map(|(kept, _)| kept).sum();
        assert!(admitted.iter().all(|(_, open)| *open == kept && kept <= LIMIT), "{admitted:?}");
        assert_eq!(total(&structure, "192.0.2.0/24", &wire), 0);
        structure.audit().unwrap();
    }
}
