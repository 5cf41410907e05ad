//! Decides which of two connections between the same two nodes stays.

use tallymesh_schemas::actor::{Incarnation, NodeName};

/// The end of a connection that dialed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialer {
    Us,
    Peer,
}

/// The properties of a connection that decide: the peer's run, and which end dialed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) incarnation: Incarnation,
    pub(crate) dialer: Dialer,
}

/// The decision about a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It becomes the link; an earlier one is closed.
    Accept,
    /// The earlier one stays.
    Duplicate,
    /// It belongs to an older run than a known one.
    Stale(Incarnation),
}

/// Decides on a new connection between `us` and `peer`.
///
/// `known` is the latest run of the peer that has said hello; hearsay about the peer does not count. Both ends see the same two
/// connections, perhaps in a different order, and reach the same decision. A newer run wins. For one run, the connection dialed
/// by the smaller name wins. Of two of those, the later one wins.
pub(crate) fn settle(
    us: &NodeName,
    peer: &NodeName,
    known: Option<Incarnation>,
    live: Option<Claim>,
    new: Claim,
) -> Verdict {
    let newest = known.max(live.map(|live| live.incarnation));
    if let Some(newest) = newest.filter(|newest| *newest > new.incarnation) {
        return Verdict::Stale(newest);
    }
    match live {
        Some(live) if live.incarnation == new.incarnation && live.dialer != new.dialer => {
            let smaller = if us < peer { Dialer::Us } else { Dialer::Peer };
            if new.dialer == smaller { Verdict::Accept } else { Verdict::Duplicate }
        }
        _ => Verdict::Accept,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> NodeName {
        NodeName::new(name).unwrap()
    }

    fn claim(incarnation: u64, dialer: Dialer) -> Claim {
        Claim { incarnation: Incarnation(incarnation), dialer }
    }

    /// Which connection an end keeps when it sees them in this order.
    fn left_with(us: &str, peer: &str, order: [(char, Dialer); 2]) -> char {
        let mut live: Option<(char, Claim)> = None;
        for (conn, dialer) in order {
            let new = claim(5, dialer);
            if settle(&name(us), &name(peer), None, live.map(|(_, claim)| claim), new) == Verdict::Accept {
                live = Some((conn, new));
            }
        }
        live.unwrap().0
    }

    #[test]
    fn both_ends_keep_the_same_of_two_simultaneous_dials() {
        // 'x' is dialed by a, 'y' by b.
        let at_a = [('x', Dialer::Us), ('y', Dialer::Peer)];
        let at_b = [('x', Dialer::Peer), ('y', Dialer::Us)];
        for (first, second) in [(0, 1), (1, 0)] {
            assert_eq!(left_with("a", "b", [at_a[first], at_a[second]]), 'x');
            assert_eq!(left_with("b", "a", [at_b[first], at_b[second]]), 'x');
        }
    }

    #[test]
    fn the_newest_run_wins_regardless_of_who_dialed() {
        let (a, b) = (name("a"), name("b"));
        for (dialer, other) in [(Dialer::Us, Dialer::Peer), (Dialer::Peer, Dialer::Us)] {
            let live = Some(claim(5, other));
            assert_eq!(settle(&a, &b, None, live, claim(6, dialer)), Verdict::Accept);
            assert_eq!(settle(&b, &a, None, live, claim(4, dialer)), Verdict::Stale(Incarnation(5)));
        }
        assert_eq!(settle(&a, &b, Some(Incarnation(9)), None, claim(8, Dialer::Us)), Verdict::Stale(Incarnation(9)));
        assert_eq!(settle(&a, &b, Some(Incarnation(9)), None, claim(9, Dialer::Us)), Verdict::Accept);
    }

    #[test]
    fn of_one_dialer_the_later_connection_stays() {
        let (a, b) = (name("a"), name("b"));
        for dialer in [Dialer::Us, Dialer::Peer] {
            assert_eq!(settle(&a, &b, None, Some(claim(5, dialer)), claim(5, dialer)), Verdict::Accept);
        }
    }
}
