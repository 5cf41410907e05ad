//! Limits how often a node renews as another run because peers claim that another process has its name.
//!
//! Each such change ends the node's links and moves its counts, so peers must not cause many of them. The first claim takes
//! effect at once. After that the node pauses. It remembers the highest claim that comes during the pause, and acts on it when
//! the pause is over. The pause doubles with every change, and halves again for every [`CALM`] without one.
//!
//! Two processes with one name supersede each other in turn. The pauses slow both down, and the other nodes continue to count
//! the one that changed last.

use std::time::Duration;

use tallymesh_schemas::{Incarnation, NodeName};

use crate::time::Time;

/// The pause after the first change.
pub(crate) const SHORTEST: Duration = Duration::from_secs(1);

/// The longest pause.
pub(crate) const LONGEST: Duration = Duration::from_secs(3600);

/// Time without a change, counted from the end of the pause, after which the pause is halved.
const CALM: Duration = Duration::from_secs(600);

/// Time between two reports of the same thing.
const REPORT: Duration = Duration::from_secs(60);

/// Why a node renews as another run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Another process may have used the run as well.
    Shared,
    /// An operator has forgotten the node.
    Forgotten,
}

/// A claim that this node's run is not its own any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) cause: Cause,
    /// The run in which another process is, or was, or the last forgotten one.
    pub(crate) by: Incarnation,
    /// The peer that reports it; this node's own name if the reporter is a process that holds its key.
    pub(crate) peer: NodeName,
}

impl Claim {
    /// Joins two claims: a run that is later than both satisfies both.
    fn join(self, other: Self) -> Self {
        let cause = if self.cause == Cause::Forgotten { other.cause } else { self.cause };
        let later = if other.by > self.by { other } else { self };
        Self { cause, ..later }
    }
}

/// Reports a repeated fact the first time, and then at most once a minute.
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

/// The time of the next change, and the claim that waits for it.
#[derive(Debug, Default)]
pub(crate) struct Succession {
    /// The time of the last change, and the length of the pause after it.
    last: Option<(Time, Duration)>,
    waiting: Option<Claim>,
    waits: Report,
    refusals: Report,
}

impl Succession {
    /// How long the next change has to wait; zero when it may happen now.
    pub(crate) fn pause(&self, now: Time) -> Duration {
        self.last.map_or(Duration::ZERO, |(at, pause)| at.after(pause).since(now))
    }

    /// The time when the waiting claim may take effect; [`Time::NEVER`] if none waits.
    pub(crate) fn due(&self) -> Time {
        let free = self.last.map_or(Time(0), |(at, pause)| at.after(pause));
        if self.waiting.is_some() { free } else { Time::NEVER }
    }

    /// Keeps a claim until the pause is over. Returns whether to report it.
    pub(crate) fn wait(&mut self, now: Time, claim: Claim) -> bool {
        self.waiting = Some(match self.waiting.take() {
            Some(before) => before.join(claim),
            None => claim,
        });
        self.waits.is_due(now)
    }

    /// Takes the waiting claim, if there is one.
    pub(crate) fn take(&mut self) -> Option<Claim> {
        self.waiting.take()
    }

    /// Takes the waiting claim and joins it with a new one.
    pub(crate) fn take_with(&mut self, claim: Claim) -> Claim {
        match self.waiting.take() {
            Some(before) => before.join(claim),
            None => claim,
        }
    }

    /// Records a refused claim. Returns whether to report it.
    pub(crate) fn refuse(&mut self, now: Time) -> bool {
        self.refusals.is_due(now)
    }

    /// The node has renewed as another run: the next change has to wait.
    pub(crate) fn changed(&mut self, now: Time) {
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

    fn claim(by: u64) -> Claim {
        Claim { cause: Cause::Shared, by: Incarnation(by), peer: NodeName::new(&format!("p{by}")).unwrap() }
    }

    /// The times of changes if there is a claim at every moment.
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

    /// A peer that always waits until the pause is short again causes only a few changes an hour.
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
        assert!(succession.wait(Time(1), claim(7)), "the first is reported");
        assert!(!succession.wait(Time(2), claim(9)));
        assert!(!succession.wait(Time(3), claim(8)));
        assert_eq!(succession.due(), Time(0).after(SHORTEST));
        let joined = succession.take_with(claim(2));
        assert_eq!(joined.by, Incarnation(9));
        assert_eq!(joined.peer.as_str(), "p9");
        assert_eq!(succession.due(), Time::NEVER);
    }
}
