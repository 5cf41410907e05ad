//! Decides which of two connections between the same two nodes stays.

use tallymesh_schemas::actor::{Incarnation, NodeName};

/// The end of a connection that dialed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DialedBy {
    Us,
    Peer,
}

/// The properties of a connection that decide: the peer's run, and which end dialed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) incarnation: Incarnation,
    pub(crate) dialed_by: DialedBy,
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
    live: Option<Candidate>,
    new: Candidate,
) -> Verdict {
    let newest = known.max(live.map(|live| live.incarnation));
    if let Some(newest) = newest.filter(|newest| *newest > new.incarnation) {
        return Verdict::Stale(newest);
    }
    match live {
        Some(live) if live.incarnation == new.incarnation && live.dialed_by != new.dialed_by => {
            let smaller = if us < peer { DialedBy::Us } else { DialedBy::Peer };
            if new.dialed_by == smaller { Verdict::Accept } else { Verdict::Duplicate }
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

    fn candidate(incarnation: u64, dialed_by: DialedBy) -> Candidate {
        Candidate { incarnation: Incarnation(incarnation), dialed_by }
    }

    /// Which connection an end keeps when it sees them in this order.
    fn left_with(us: &str, peer: &str, order: [(char, DialedBy); 2]) -> char {
        let mut live: Option<(char, Candidate)> = None;
        for (conn, dialed_by) in order {
            let new = candidate(5, dialed_by);
            if settle(&name(us), &name(peer), None, live.map(|(_, candidate)| candidate), new) == Verdict::Accept {
                live = Some((conn, new));
            }
        }
        live.unwrap().0
    }

    #[test]
    fn both_ends_keep_the_same_of_two_simultaneous_dials() {
        // 'x' is dialed by a, 'y' by b.
        let at_a = [('x', DialedBy::Us), ('y', DialedBy::Peer)];
        let at_b = [('x', DialedBy::Peer), ('y', DialedBy::Us)];
        for (first, second) in [(0, 1), (1, 0)] {
            assert_eq!(left_with("a", "b", [at_a[first], at_a[second]]), 'x');
            assert_eq!(left_with("b", "a", [at_b[first], at_b[second]]), 'x');
        }
    }

    #[test]
    fn the_newest_run_wins_regardless_of_who_dialed() {
        let (a, b) = (name("a"), name("b"));
        for (dialed_by, other) in [(DialedBy::Us, DialedBy::Peer), (DialedBy::Peer, DialedBy::Us)] {
            let live = Some(candidate(5, other));
            assert_eq!(settle(&a, &b, None, live, candidate(6, dialed_by)), Verdict::Accept);
            assert_eq!(settle(&b, &a, None, live, candidate(4, dialed_by)), Verdict::Stale(Incarnation(5)));
        }
        assert_eq!(
            settle(&a, &b, Some(Incarnation(9)), None, candidate(8, DialedBy::Us)),
            Verdict::Stale(Incarnation(9))
        );
        assert_eq!(settle(&a, &b, Some(Incarnation(9)), None, candidate(9, DialedBy::Us)), Verdict::Accept);
    }

    #[test]
    fn of_one_dialer_the_later_connection_stays() {
        let (a, b) = (name("a"), name("b"));
        for dialed_by in [DialedBy::Us, DialedBy::Peer] {
            assert_eq!(settle(&a, &b, None, Some(candidate(5, dialed_by)), candidate(5, dialed_by)), Verdict::Accept);
        }
    }
}
