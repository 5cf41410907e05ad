//! How often a node goes on as another run because others say that another process has its name.
//!
//! Each such change ends the node's links and moves what it counts, so others must not cause many of them. The first claim
//! has its effect at once. After that the node pauses; it remembers the highest claim that comes meanwhile, and acts on it
//! when the pause is over. The pause doubles with every change, and is halved again for every [`CALM`] without one.
//!
//! Two processes that have one name supersede each other in turn. By the pauses both slow down, and the others go on
//! counting the one that changed last.

use std::time::Duration;

use tallymesh_schemas::{Incarnation, NodeName};

use crate::time::Time;

/// The pause after the first change.
pub(super) const SHORTEST: Duration = Duration::from_secs(1);

/// The longest pause.
pub(super) const LONGEST: Duration = Duration::from_secs(3600);

/// Time without a change, behind the pause, after which the pause is halved.
const CALM: Duration = Duration::from_secs(600);

/// Time between two reports of the same thing.
const REPORT: Duration = Duration::from_secs(60);

/// That another process is, or was, in a run of this node's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    /// That run.
    pub(super) by: Incarnation,
    /// Who says so; this node's own name for whoever has its key.
    pub(super) peer: NodeName,
    /// Up to which run this node was forgotten, if that is what makes it go on.
    pub(super) forgotten: Option<Incarnation>,
}

impl Claim {
    /// Both claims in one: a run that is later than both satisfies both.
    fn join(self, other: Self) -> Self {
        let forgotten = self.forgotten.max(other.forgotten);
        let higher = if other.by > self.by { other } else { self };
        Self { forgotten, ..higher }
    }
}

/// A report that is made the first time, and then once a minute at most.
#[derive(Debug, Default)]
struct Report(Option<Time>);

impl Report {
    fn is_due(&mut self, now: Time) -> bool {
        let due = self.0.is_none_or(|last| now.since(last) >= REPORT);
        if due {
            self.0 = Some(now);
        }
        due
    }
}

/// When the next change may be, and which claim waits for it.
#[derive(Debug, Default)]
pub(super) struct Succession {
    /// When the last change was, and how long the pause behind it is.
    last: Option<(Time, Duration)>,
    waiting: Option<Claim>,
    waits: Report,
    refusals: Report,
}

impl Succession {
    /// How long the next change has to wait; zero when it may be now.
    pub(super) fn pause(&self, now: Time) -> Duration {
        self.last.map_or(Duration::ZERO, |(at, pause)| at.after(pause).since(now))
    }

    /// When the claim that waits may have its effect; [`Time::NEVER`] when none waits.
    pub(super) fn due(&self) -> Time {
        let free = self.last.map_or(Time(0), |(at, pause)| at.after(pause));
        if self.waiting.is_some() { free } else { Time::NEVER }
    }

    /// Keeps a claim until the pause is over; whether that is to be reported.
    pub(super) fn wait(&mut self, now: Time, claim: Claim) -> bool {
        self.waiting = Some(match self.waiting.take() {
            Some(before) => before.join(claim),
            None => claim,
        });
        self.waits.is_due(now)
    }

    /// The claim that waits, if there is one, which waits no longer.
    pub(super) fn take(&mut self) -> Option<Claim> {
        self.waiting.take()
    }

    /// The claim that waits joined with one that comes now.
    pub(super) fn take_with(&mut self, claim: Claim) -> Claim {
        match self.waiting.take() {
            Some(before) => before.join(claim),
            None => claim,
        }
    }

    /// A claim was refused; whether that is to be reported.
    pub(super) fn refuse(&mut self, now: Time) -> bool {
        self.refusals.is_due(now)
    }

    /// The node has gone on as another run: the next one has to wait.
    pub(super) fn changed(&mut self, now: Time) {
        let pause = self.last.map_or(SHORTEST, |(at, pause)| {
            let calm = now.since(at.after(pause)).as_secs() / CALM.as_secs();
            let halved = pause / (1 << calm.min(16));
            (halved * 2).clamp(SHORTEST, LONGEST)
        });
        self.last = Some((now, pause));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(by: u64, forgotten: Option<u64>) -> Claim {
        let peer = NodeName::new(&format!("p{by}")).unwrap();
        Claim { by: Incarnation(by), peer, forgotten: forgotten.map(Incarnation) }
    }

    /// When changes happen if there is a claim at every moment.
    fn changes_until(succession: &mut Succession, mut now: Time, end: Time) -> Vec<Time> {
        let mut changes = Vec::new();
        loop {
            now = now.after(succession.pause(now));
            if now > end {
                return changes;
            }
            succession.changed(now);
            changes.push(now);
        }
    }

    #[test]
    fn the_pause_doubles_up_to_an_hour() {
        let second = |n: u64| Time(n * 1_000_000);
        let mut succession = Succession::default();
        let changes = changes_until(&mut succession, second(5), second(5 + 86_400));
        assert_eq!(changes[..5], [second(5), second(6), second(8), second(12), second(20)]);
        let last = changes.last_chunk::<2>().unwrap();
        assert_eq!(last[1].since(last[0]), LONGEST);
        assert!(changes.len() < 12 + 24, "{} changes in a day", changes.len());
    }

    #[test]
    fn quiet_makes_the_pause_short_again() {
        let mut succession = Succession::default();
        let end = Time(100_000_000);
        let busy = changes_until(&mut succession, Time(0), end).len();
        let later = end.after(CALM * 8);
        assert_eq!(succession.pause(later), Duration::ZERO);
        assert_eq!(changes_until(&mut Succession::default(), later, later.after(end.since(Time(0)))).len(), busy);
        assert!(changes_until(&mut succession, later, later.after(end.since(Time(0)))).len() >= busy - 1);
    }

    /// Whoever waits just long enough for the pause to be short again does not cause more than some changes an hour.
    #[test]
    fn patience_does_not_pay() {
        let (mut succession, mut now, mut changes) = (Succession::default(), Time(0), 0);
        while now < Time(0).after(LONGEST * 24) {
            succession.changed(now);
            changes += 1;
            let (at, pause) = succession.last.unwrap();
            now = at.after(pause + CALM);
        }
        assert!(changes <= 6 * 24, "{changes} changes in a day");
    }

    #[test]
    fn of_claims_that_wait_the_highest_counts() {
        let mut succession = Succession::default();
        assert_eq!(succession.due(), Time::NEVER);
        succession.changed(Time(0));
        assert!(succession.wait(Time(1), claim(7, None)), "the first is reported");
        assert!(!succession.wait(Time(2), claim(9, None)));
        assert!(!succession.wait(Time(3), claim(8, Some(4))));
        assert_eq!(succession.due(), Time(0).after(SHORTEST));
        let joined = succession.take_with(claim(2, None));
        assert_eq!((joined.by, joined.forgotten), (Incarnation(9), Some(Incarnation(4))));
        assert_eq!(joined.peer.as_str(), "p9");
        assert_eq!(succession.due(), Time::NEVER);
    }
}
