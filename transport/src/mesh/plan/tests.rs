//! The plan in virtual time.

use super::*;

const STEP: Duration = Duration::from_millis(10);

fn name(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn addr(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], port))
}

fn plan(us: &str, seeds: &[&str]) -> Plan {
    Plan::new(name(us), seeds.iter().map(ToString::to_string).collect(), Timings::default(), 7)
}

/// Makes every dial of the one member fail for a while and returns the time of each dial.
fn fail(plan: &mut Plan, mut now: Time, time: Duration) -> Vec<Time> {
    let mut times = Vec::new();
    let end = now + time;
    while now < end {
        while let Some(Task::Member { name, .. }) = plan.poll(now) {
            plan.ended(now, &Origin::Member(name), None);
            times.push(now);
        }
        now += STEP;
    }
    times
}

#[test]
fn pauses_double_up_to_the_longest_and_no_further() {
    let mut plan = plan("a", &[]);
    plan.member(Time::ZERO, &name("b"), addr(1), MemberState::Dead);
    let times = fail(&mut plan, Time::ZERO, Duration::from_secs(120));
    let pauses: Vec<Duration> = times.windows(2).map(|two| two[1] - two[0]).collect();
    assert!(pauses[0] <= Duration::from_millis(110), "{pauses:?}");
    assert!(pauses.iter().all(|pause| *pause <= Duration::from_secs(5) + STEP));
    assert!(pauses[8..].iter().all(|pause| *pause >= Duration::from_millis(2490)));
}

#[test]
fn the_long_dead_are_dialed_slowly_but_for_ever() {
    let mut plan = plan("a", &[]);
    plan.member(Time::ZERO, &name("b"), addr(1), MemberState::Dead);
    fail(&mut plan, Time::ZERO, LONG_DEAD);
    let times = fail(&mut plan, LONG_DEAD, Duration::from_secs(600));
    assert!((8..30).contains(&times.len()), "{times:?}");
    plan.member(LONG_DEAD * 2, &name("b"), addr(1), MemberState::Alive);
    let times = fail(&mut plan, LONG_DEAD * 2, Duration::from_secs(600));
    assert!(times.len() > 100, "alive again, so dialed as before");
}

#[test]
fn the_smaller_name_goes_first() {
    let mut smaller = plan("a", &[]);
    smaller.member(Time::ZERO, &name("b"), addr(1), MemberState::Alive);
    assert!(smaller.poll(Time::ZERO).is_some());
    let mut larger = plan("c", &[]);
    larger.member(Time::ZERO, &name("b"), addr(1), MemberState::Alive);
    assert_eq!(larger.poll(Time::ZERO), None);
    assert_eq!(larger.timeout(), Some(Timings::default().head_start));
}

#[test]
fn a_seed_is_dialed_until_all_behind_it_are_known() {
    let mut plan = plan("a", &["cluster:1"]);
    let now = Time::ZERO;
    assert_eq!(plan.poll(now), Some(Task::Resolve { seed: 0, host: "cluster:1".to_owned() }));
    assert_eq!(plan.poll(now), None, "one look-up at a time");
    plan.resolved(now, 0, vec![addr(1), addr(2), addr(3)]);
    let dials: Vec<Task> = std::iter::from_fn(|| plan.poll(now)).collect();
    assert_eq!(dials.len(), 3);
    let seed = |port| Origin::Seed { seed: 0, addr: addr(port) };
    plan.ended(now, &seed(1), Some(&name("a")));
    plan.linked(&name("b"), addr(2));
    plan.ended(now, &seed(2), Some(&name("b")));
    plan.ended(now, &seed(3), None);
    let again = plan.timeout().unwrap();
    assert!(again <= Duration::from_millis(100), "one failed");
    assert!(matches!(plan.poll(again), Some(Task::Resolve { .. })));
    plan.resolved(again, 0, vec![addr(1), addr(2), addr(3)]);
    assert_eq!(plan.poll(again), Some(Task::Seed { seed: 0, addr: addr(3) }));
    plan.linked(&name("c"), addr(3));
    plan.ended(again, &seed(3), Some(&name("c")));
    assert_eq!(plan.timeout(), Some(again + Timings::default().seed_check));
}

#[test]
fn a_linked_or_departed_member_is_left_alone() {
    let mut plan = plan("a", &[]);
    plan.member(Time::ZERO, &name("b"), addr(1), MemberState::Alive);
    plan.linked(&name("b"), addr(1));
    assert_eq!((plan.poll(Duration::from_secs(99)), plan.timeout()), (None, None));
    plan.unlinked(Duration::from_secs(99), &name("b"), Duration::from_secs(99));
    assert!(plan.timeout().is_some());
    plan.member(Duration::from_secs(99), &name("b"), addr(1), MemberState::Left);
    assert_eq!(plan.timeout(), None);
}

#[test]
fn dials_under_way_are_bounded() {
    let mut plan = plan("a", &[]);
    for number in 0..DIALS + 9 {
        plan.member(Time::ZERO, &name(&format!("n{number}")), addr(number as u16), MemberState::Alive);
    }
    let dials: Vec<Task> = std::iter::from_fn(|| plan.poll(Time::ZERO)).collect();
    assert_eq!((dials.len(), plan.timeout()), (DIALS, None));
    let Task::Member { name, .. } = &dials[0] else { panic!("{dials:?}") };
    plan.ended(Time::ZERO, &Origin::Member(name.clone()), None);
    assert!(plan.poll(Time::ZERO).is_some());
}

#[test]
fn a_seed_whose_member_is_out_of_reach_is_tried_again() {
    let mut plan = plan("a", &["b:1"]);
    assert!(matches!(plan.poll(Time::ZERO), Some(Task::Resolve { .. })));
    plan.resolved(Time::ZERO, 0, vec![addr(1)]);
    assert!(matches!(plan.poll(Time::ZERO), Some(Task::Seed { .. })));
    // The member advertises an address that does not work.
    plan.linked(&name("b"), addr(9));
    plan.ended(Time::ZERO, &Origin::Seed { seed: 0, addr: addr(1) }, Some(&name("b")));
    plan.unlinked(Time::ZERO, &name("b"), Duration::from_secs(60));
    let mut now = Time::ZERO;
    loop {
        now += STEP;
        assert!(now < Duration::from_secs(30), "the seed was not tried again");
        match plan.poll(now) {
            Some(Task::Resolve { seed, .. }) => plan.resolved(now, seed, vec![addr(1)]),
            Some(Task::Member { name, .. }) => plan.ended(now, &Origin::Member(name), None),
            Some(Task::Seed { .. }) => break,
            None => {}
        }
    }
    assert!(now > Duration::from_secs(5), "not before the member had its chance");
}

#[test]
fn an_address_where_another_answers_is_asked_seldom() {
    let mut plan = plan("a", &[]);
    plan.member(Time::ZERO, &name("b"), addr(1), MemberState::Alive);
    plan.wrong_name(&name("b"));
    let times = fail(&mut plan, Time::ZERO, Duration::from_secs(1200));
    assert!(times.len() < 60, "{}", times.len());
    plan.member(Time::ZERO, &name("b"), addr(2), MemberState::Alive);
    let again = fail(&mut plan, Duration::from_secs(1200), Duration::from_secs(1200));
    assert!(again.len() > 200, "it has moved");
}
