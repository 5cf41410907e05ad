//! I1 and I12: what others say about a node's own name changes its run within bounds.

#[allow(dead_code, reason = "each test crate uses its part")]
mod wire;

use std::time::Duration;

use tallymesh_engine::Event;
use tallymesh_schemas::{Incarnation, bounds};
use wire::{Wire, name};

/// Runs of a node that its peer drives to another run as often as it can.
fn driven(claims: Duration, mut claim: impl FnMut(&mut Wire)) -> Wire {
    let mut wire = Wire::new(&["a", "b"]);
    wire.up(0, 1);
    wire.add_to(0, "k", 3);
    wire.talk();
    let end = wire.now.mono.after(claims);
    while wire.now.mono < end {
        claim(&mut wire);
        wire.now.mono = wire.now.mono.after(Duration::from_millis(50));
        wire.now.unix_ms.0 += 50;
        let now = wire.now;
        wire.replicas[0].handle_timeout(now);
    }
    wire
}

/// A member that says without end that another process has this node's name moves it to another run a few times an hour, and
/// when it stops, the counts are exact.
#[test]
fn a_member_cannot_change_the_run_at_will() {
    let wire = driven(Duration::from_secs(3600), |wire| {
        let (now, ours) = (wire.now, wire.replicas[0].actor().incarnation);
        wire.replicas[0].handle_superseded(now, ours, &name("b"));
    });
    let counters = wire.replicas[0].counters();
    assert!((2..=12).contains(&counters.conflicts), "{} changes of the run", counters.conflicts);
    assert!(counters.claims_delayed > 70_000, "{} claims had to wait", counters.claims_delayed);

    // A minute of it, and then the one claim that waits still has its effect.
    let mut wire = driven(Duration::from_secs(60), |wire| {
        let (now, ours) = (wire.now, wire.replicas[0].actor().incarnation);
        wire.replicas[0].handle_superseded(now, ours, &name("b"));
    });
    let before = wire.replicas[0].counters().conflicts;
    for _ in 0..64 {
        wire.run(1);
    }
    assert_eq!(wire.replicas[0].counters().conflicts, before + 1);
    assert_eq!((wire.total(0, "k"), wire.total(1, "k")), (3, 3));
    wire.assert_same(0, 1);
}

/// Two processes of one name that hear of each other all the time supersede each other ever more rarely, and in between one of
/// them is the later run, which the others count.
#[test]
fn two_processes_of_one_name_slow_down() {
    let mut wire = Wire::new(&["a", "a"]);
    let mut changes = Vec::new();
    for _ in 0..20 * 3600 {
        wire.now.mono = wire.now.mono.after(Duration::from_millis(50));
        wire.now.unix_ms.0 += 50;
        let now = wire.now;
        let [first, second] = [0, 1].map(|at| wire.replicas[at].actor().incarnation);
        assert_ne!(first, second);
        let (earlier, later) = if first < second { (0, second) } else { (1, first) };
        wire.replicas[earlier].handle_superseded(now, later, &name("a"));
        wire.replicas.iter_mut().for_each(|replica| replica.handle_timeout(now));
        let conflicts = wire.replicas.iter().map(|replica| replica.counters().conflicts).sum::<u64>();
        if changes.len() as u64 != conflicts {
            changes.push(now.mono);
            assert_eq!(changes.len() as u64, conflicts, "one change at a time");
        }
    }
    assert!((8..=24).contains(&changes.len()), "{} changes in an hour", changes.len());
    // Their pauses end at nearly the same time, so one change follows another; the next two come much later.
    let [.., before, _, last] = changes[..] else { panic!("there are some") };
    assert!(last.since(before) >= Duration::from_secs(300), "they change ever more rarely");
}

/// What waits is reported, and once a minute is enough.
#[test]
fn a_claim_that_waits_is_reported_once_a_minute() {
    let mut waits = 0;
    let mut wire = driven(Duration::from_secs(600), |wire| {
        let (now, ours) = (wire.now, wire.replicas[0].actor().incarnation);
        wire.replicas[0].handle_superseded(now, ours, &name("b"));
        while let Some(event) = wire.replicas[0].poll_event() {
            waits += u32::from(matches!(event, Event::ConflictWaits { .. }));
        }
    });
    assert!((8..=11).contains(&waits), "{waits} reports in ten minutes");
    assert!(wire.replicas[0].poll_event().is_none());
}

/// Of many claims that wait the highest one counts, and one change satisfies all.
#[test]
fn one_change_satisfies_all_claims_that_wait() {
    let mut wire = Wire::new(&["a", "b"]);
    wire.up(0, 1);
    wire.talk();
    let now = wire.now;
    wire.replicas[0].handle_superseded(now, Incarnation(2000), &name("b"));
    let first = wire.replicas[0].actor().incarnation;
    assert!(first > Incarnation(2000), "the first has its effect at once");
    let highest = first.0 + 9000;
    for by in [first.0 + 5000, highest, first.0 + 7000] {
        wire.replicas[0].handle_superseded(now, Incarnation(by), &name("b"));
    }
    assert_eq!(wire.replicas[0].actor().incarnation, first);
    assert!(wire.replicas[0].poll_timeout() <= now.mono.after(Duration::from_secs(1)));
    wire.run(2);
    assert!(wire.replicas[0].actor().incarnation > Incarnation(highest));
    assert_eq!(wire.replicas[0].counters().conflicts, 2);
}

/// A number at the end of the range is refused: it becomes no other number, and no run. What somebody with the node's own key
/// is in is believed up to the end.
#[test]
fn the_end_of_the_range_is_refused() {
    let mut wire = Wire::new(&["a", "b"]);
    let (now, ours) = (wire.now, wire.replicas[0].actor().clone());
    let beyond = bounds::INCARNATION_REPORTED + now.unix_ms.0;
    for by in [beyond, bounds::INCARNATION - 2, bounds::INCARNATION - 1, bounds::INCARNATION, u64::MAX] {
        wire.replicas[0].handle_superseded(now, Incarnation(by), &name("b"));
        assert_eq!(*wire.replicas[0].actor(), ours, "{by}");
    }
    assert_eq!(wire.replicas[0].counters().claims_refused, 5);
    for by in [bounds::INCARNATION - 1, bounds::INCARNATION, u64::MAX] {
        wire.replicas[0].handle_superseded(now, Incarnation(by), &name("a"));
        assert_eq!(*wire.replicas[0].actor(), ours, "{by}");
    }
    let reports = std::iter::from_fn(|| wire.replicas[0].poll_event());
    assert_eq!(reports.filter(|event| matches!(event, Event::ClaimRefused { .. })).count(), 1);
    wire.replicas[0].handle_superseded(now, Incarnation(bounds::INCARNATION - 2), &name("a"));
    let last = wire.replicas[0].actor().clone();
    assert_eq!(last.incarnation, Incarnation(bounds::INCARNATION - 1));
    assert!(wire.replicas[0].renew(now, Incarnation(0)).is_err());
    wire.replicas[0].handle_superseded(now, last.incarnation, &name("a"));
    assert_eq!(*wire.replicas[0].actor(), last);
}

/// The highest run that a member can drive a node to is one that others can report later to a process of it that has
/// forgotten everything.
#[test]
fn a_node_gets_back_from_the_highest_run_that_others_can_claim() {
    let mut wire = Wire::new(&["a", "b"]);
    let now = wire.now;
    let highest = Incarnation(bounds::INCARNATION_REPORTED + now.unix_ms.0 - 1);
    wire.replicas[0].handle_superseded(now, highest, &name("b"));
    let driven_to = wire.replicas[0].actor().incarnation;
    assert_eq!(driven_to.0, highest.0 + 1);
    let (config, spec) = (wire::config(), wire::spec());
    let forgetful = wire.add("a", &config, &spec);
    wire.now.unix_ms.0 += 1000;
    let now = wire.now;
    wire.replicas[forgetful].handle_superseded(now, driven_to, &name("b"));
    assert!(wire.replicas[forgetful].actor().incarnation > driven_to);
}

/// I1. A process without saved state learns of a run of its name. An earlier process learned of the same run before. The two
/// continue as different runs, so no node confuses their rows.
#[test]
fn processes_that_learn_of_the_same_run_continue_as_different_runs() {
    let mut wire = Wire::new(&["a", "b"]);
    let (config, spec) = (wire::config(), wire::spec());
    let heard_of = Incarnation(wire.now.unix_ms.0 + 1_000_000);
    let mut runs = Vec::new();
    for _ in 0..4 {
        let at = wire.add("a", &config, &spec);
        wire.now.unix_ms.0 += 1;
        let now = wire.now;
        wire.replicas[at].handle_superseded(now, heard_of, &name("b"));
        runs.push(wire.replicas[at].actor().incarnation);
        // It tells of itself once more, and again nobody knows of it.
        wire.now.unix_ms.0 += 1000;
        let now = wire.now;
        wire.replicas[at].renew(now, Incarnation(0)).unwrap();
        runs.push(wire.replicas[at].actor().incarnation);
    }
    let all = runs.len();
    runs.sort();
    runs.dedup();
    assert_eq!(runs.len(), all, "{runs:?}");
}
