//! The verification in the background: the node compares the copies of all members from time to time.

use std::collections::BTreeSet;
use std::time::Duration;

#[cfg(any(feature = "admin", feature = "http"))]
use tallymesh_engine::replica::Outcome;
use tallymesh_engine::replica::{Backlog, Fault, Finding, Verification, Verifier};
use tallymesh_engine::{Now, Replica, Time};
use tallymesh_schemas::{Actor, NodeName, StructureName};

#[cfg(any(feature = "admin", feature = "http"))]
use crate::convergence::{Convergence, Ended};

/// The least pause between two verifications.
const PAUSE: Duration = Duration::from_secs(60);

/// A pause is at least so many times as long as the comparing before it took: it uses half a percent of a core at most.
const SHARE: u32 = 200;

/// How long a verification waits for members that lag or do not answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A copy that differs: its object, its actor, and the member that holds it.
type Copy = (StructureName, Actor, NodeName);

/// The verifications of one node, one after the other.
#[derive(Debug)]
pub(super) struct Background {
    running: Option<Verifier>,
    /// When the next one begins.
    due: Time,
    /// The time that the running one has taken.
    took: Duration,
    #[cfg(any(feature = "admin", feature = "http"))]
    convergence: Convergence,
    /// The copies that differed in the last one. Each is reported once.
    differing: BTreeSet<Copy>,
}

/// The result of a verification, and the differences that are new.
#[derive(Debug)]
pub(super) struct Found {
    #[cfg_attr(not(any(test, feature = "http")), expect(dead_code, reason = "the metrics count it"))]
    pub(super) verification: Verification,
    pub(super) differences: Vec<Finding>,
}

impl Background {
    /// Begins with the pause. Nodes that start at the same time do not all ask at the same time.
    pub(super) fn new(now: Time, of: &Actor) -> Self {
        let spread = Duration::from_millis(of.incarnation.0 % u64::try_from(PAUSE.as_millis()).unwrap_or(1));
        Self {
            running: None,
            due: now.after(PAUSE / 2 + spread),
            took: Duration::ZERO,
            #[cfg(any(feature = "admin", feature = "http"))]
            convergence: Convergence::default(),
            differing: BTreeSet::new(),
        }
    }

    /// What the verifications have found.
    #[cfg(any(feature = "admin", feature = "http"))]
    pub(super) fn convergence(&self) -> &Convergence {
        &self.convergence
    }

    /// When to call [`Background::poll`] at the latest.
    pub(super) fn due(&self) -> Time {
        self.running.as_ref().map_or(self.due, Verifier::poll_timeout)
    }

    /// Begins the next verification if it is time, or goes on with the running one. `clock` is read before and after.
    pub(super) fn poll(
        &mut self,
        (replica, now): (&mut Replica, Now),
        linked: impl Fn(&NodeName) -> bool,
        backlog: Backlog,
        clock: impl Fn() -> Time,
    ) -> Option<Found> {
        let Some(running) = &mut self.running else {
            if now.mono >= self.due {
                self.begin(replica, now);
            }
            return None;
        };
        let began = clock();
        let found = running.poll(replica, now, linked, backlog);
        self.took += clock().since(began);
        Some(self.end(now, found?))
    }

    fn begin(&mut self, replica: &mut Replica, now: Now) {
        if replica.links().next().is_none() {
            // There is nobody to compare with.
            self.due = now.mono.after(PAUSE);
            return;
        }
        self.took = Duration::ZERO;
        self.running = Some(Verifier::new(replica, now, PATIENCE));
    }

    /// A verification has ended: this one, or one that somebody has asked for.
    pub(super) fn note(&mut self, now: Now, verification: &Verification) {
        #[cfg(any(feature = "admin", feature = "http"))]
        {
            let (outcome, findings) = (verification.outcome(), verification.findings.len());
            self.convergence.ended = Some(Ended { at: now, outcome, findings });
            // A node without a link has compared with nobody.
            if outcome == Outcome::Converged && verification.members.len() > 1 {
                self.convergence.converged = Some(now);
            }
        }
        #[cfg(not(any(feature = "admin", feature = "http")))]
        let _ = (now, verification);
    }

    fn end(&mut self, now: Now, verification: Verification) -> Found {
        self.running = None;
        self.due = now.mono.after(PAUSE.max(self.took * SHARE));
        let outcome = verification.outcome();
        tracing::debug!(?outcome, findings = verification.findings.len(), "verified in the background");
        self.note(now, &verification);
        let differing: Vec<_> = verification.findings.iter().filter(|of| of.fault == Fault::Differs).cloned().collect();
        let copy = |of: &Finding| (of.structure.clone(), of.actor.clone(), of.member.clone());
        let before = std::mem::replace(&mut self.differing, differing.iter().map(copy).collect());
        let differences = differing.into_iter().filter(|of| !before.contains(&copy(of))).collect();
        Found { verification, differences }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tallymesh_engine::Config;
    use tallymesh_schemas::{Class, Incarnation, UnixMs};

    use super::*;

    fn replica(name: &str) -> Replica {
        let mut replica = Replica::new(Config::default(), NodeName::new(name).unwrap(), Incarnation(1000));
        replica.replicate(Class::OutboundDomains.into(), Arc::new(|| ())).unwrap();
        replica
    }

    fn talk(a: &mut Replica, b: &mut Replica, now: Now) {
        let (a_name, b_name) = (a.actor().node.clone(), b.actor().node.clone());
        loop {
            let (mut to_a, mut to_b) = (Vec::new(), Vec::new());
            let spoke = [a.poll_transmit(&b_name, &mut to_b), b.poll_transmit(&a_name, &mut to_a)];
            if spoke[0] {
                b.handle_message(now, &a_name, &to_b).unwrap();
            }
            if spoke[1] {
                a.handle_message(now, &b_name, &to_a).unwrap();
            }
            if spoke == [false, false] {
                return;
            }
        }
    }

    /// Runs for some seconds. Returns what was found.
    fn run(
        background: &mut Background,
        (a, b): (&mut Replica, &mut Replica),
        now: &mut Now,
        seconds: u64,
    ) -> Vec<Found> {
        let mut found = Vec::new();
        for _ in 0..seconds * 10 {
            now.mono = now.mono.after(Duration::from_millis(100));
            now.unix_ms.0 += 100;
            a.handle_timeout(*now);
            b.handle_timeout(*now);
            talk(a, b, *now);
            let mono = now.mono;
            found.extend(background.poll((a, *now), |_| true, Backlog::Empty, || mono));
        }
        found
    }

    #[test]
    fn a_node_knows_when_it_last_agreed_with_the_others() {
        let mut now = Now { mono: Time(1), unix_ms: UnixMs(1_700_000_000_000) };
        let (mut a, mut b) = (replica("a"), replica("b"));
        let mut background = Background::new(now.mono, a.actor());
        assert!(run(&mut background, (&mut a, &mut b), &mut now, 200).is_empty(), "there is nobody to compare with");
        let (a_name, b_name) = (a.actor().node.clone(), b.actor().node.clone());
        a.handle_link_up(now, &b_name);
        b.handle_link_up(now, &a_name);
        a.structure("outbound_domains").unwrap().add(b"example.com", 1).unwrap();
        let found = run(&mut background, (&mut a, &mut b), &mut now, 130);
        assert!((2..=3).contains(&found.len()), "{}", found.len());
        assert!(found.iter().all(|of| of.verification.converged() && of.differences.is_empty()));
        let converged = background.convergence().converged.unwrap();
        assert!(now.mono.since(converged.mono) <= PAUSE + Duration::from_secs(1));

        // b is dead: the last agreement stays the last one.
        a.handle_link_down(&b_name);
        b.handle_link_down(&a_name);
        a.handle_link_up(now, &NodeName::new("c").unwrap());
        run(&mut background, (&mut a, &mut b), &mut now, 100);
        assert_eq!(background.convergence().converged, Some(converged));
        assert_ne!(background.convergence().ended.unwrap().outcome, Outcome::Converged);
    }

    /// A verification that takes long is followed by a longer pause.
    #[test]
    fn the_share_of_a_core_is_bounded() {
        let now = Now { mono: Time(1), unix_ms: UnixMs(1_700_000_000_000) };
        let mut background = Background::new(now.mono, replica("a").actor());
        background.took = Duration::from_secs(2);
        background.end(now, Verification::default());
        assert_eq!(background.due(), now.mono.after(Duration::from_secs(400)));
        background.took = Duration::from_millis(2);
        background.end(now, Verification::default());
        assert_eq!(background.due(), now.mono.after(PAUSE));
    }
}
