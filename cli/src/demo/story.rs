//! The acts of the demonstration.

use std::time::{Duration, Instant};

use tallymesh::{Life, Node, NodeName};
use tokio::time::MissedTickBehavior;

use crate::demo::cluster::{self, DROP_AFTER};
use crate::demo::limits;
use crate::demo::member::Member;
use crate::demo::probe::{Probes, histogram, milliseconds};
use crate::demo::screen::Screen;
use crate::demo::traffic::{STEP, Traffic};
use crate::demo::truth::Truth;
use crate::demo::views;
use crate::failure::Failure;
use crate::local;
use crate::samples::percentile;

/// How long the nodes may take to agree after the last change.
const AGREE: Duration = Duration::from_secs(15);

/// How long a verification may take.
const VERIFY: Duration = Duration::from_secs(5);

/// How long each act takes. The rest of the time is for starting, agreeing and leaving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    total: Duration,
    traffic: Duration,
    cut: Duration,
    healed: Duration,
}

impl Plan {
    /// Divides the time.
    pub(super) fn of(total: Duration) -> Self {
        Self { total, traffic: total.mul_f64(0.27), cut: total.mul_f64(0.45), healed: total.mul_f64(0.1) }
    }
}

/// When the first node declared the cut-off node dead and dropped its counts; times since the cut.
#[derive(Debug, Clone, Copy, Default)]
struct Absence {
    dead: Option<Duration>,
    dropped: Option<Duration>,
}

/// A demonstration under way.
pub(super) struct Story {
    members: Vec<Member>,
    screen: Screen,
    truth: Truth,
    traffic: Traffic,
    begun: Instant,
}

impl Story {
    /// Starts the cluster.
    pub(super) async fn begin(nodes: usize, mut screen: Screen) -> Result<Self, Failure> {
        let begun = Instant::now();
        screen.say(format!("A cluster of {nodes} nodes in this process, over QUIC on loopback, TLS 1.3 both ways."))?;
        let members = cluster::start(nodes).await?;
        for member in &members {
            screen.say(format!("  {} serves on {}", member.name(), member.node.listen_addr()))?;
        }
        local::all_linked(members.iter().map(|member| &member.node)).await?;
        screen.say(format!("  all linked to each other {} after the start", milliseconds(begun.elapsed())))?;
        let timings = cluster::timings();
        screen.say(format!(
            "To be quick, a silent link is given up after {} s here (default 6 s), and a",
            timings.idle.as_secs_f64()
        ))?;
        screen.say(format!(
            "dead node's inbound connections stop counting after {} s (default 10 s).",
            DROP_AFTER.as_secs_f64()
        ))?;
        let truth = Truth::default();
        Ok(Self { members, screen, traffic: Traffic::new(truth.clone()), truth, begun })
    }

    /// Runs all acts.
    pub(super) async fn run(&mut self, plan: &Plan) -> Result<(), Failure> {
        let samples = self.count(plan.traffic).await?;
        self.show().await?;
        let last = self.members.len() - 1;
        let absence = self.cut(plan.cut, last).await?;
        let healed = self.heal(last).await?;
        self.last_check(plan.healed).await?;
        let verified = self.verify().await?;
        self.summary(plan, &samples, absence, healed, &verified)?;
        self.leave().await;
        Ok(())
    }

    /// Act 1: traffic on all nodes.
    async fn count(&mut self, time: Duration) -> Result<Vec<Duration>, Failure> {
        self.screen.act("1. Mail comes in and goes out on every node")?;
        let probes = Probes::start(&self.members, &self.truth).map_err(|error| Failure::Node(error.to_string()))?;
        let run = self.run_traffic(time, |_| Ok(())).await;
        let samples = probes.stop().await;
        run?;
        if samples.is_empty() {
            return Err(Failure::No("no change was ever seen on all nodes".to_owned()));
        }
        self.screen.say(format!(
            "  {} connections opened, {} ended. A change was seen on all nodes after:",
            self.traffic.opened, self.traffic.closed
        ))?;
        for line in histogram(&samples) {
            self.screen.say(line)?;
        }
        self.screen.say(format!("  {}", quantiles(&samples)))?;
        Ok(samples)
    }

    /// Act 2: the views.
    async fn show(&mut self) -> Result<(), Failure> {
        self.screen.act("2. The traffic pauses; the open connections stay open")?;
        self.agree().await?;
        let (first, second) = match self.members.as_slice() {
            [first, second, ..] => (first, second),
            _ => return Ok(()),
        };
        let (inbound, outbound) = (first.inbound.structure(), first.outbound.structure());
        let shown = [
            (format!("{}, view of the cluster:", first.name()), views::view(inbound, None)),
            (format!("{}, view of {}:", first.name(), second.name()), views::view(inbound, Some(second.name()))),
            (format!("{}, view of the cluster:", first.name()), views::view(outbound, None)),
        ];
        for (about, lines) in shown {
            self.screen.say(format!("\n  {about}"))?;
            for line in lines {
                self.screen.say(line)?;
            }
        }
        limits::show(&mut self.screen, &self.members).await
    }

    /// Act 3: one node is cut off, and the traffic continues on both sides.
    async fn cut(&mut self, time: Duration, last: usize) -> Result<Absence, Failure> {
        let (Some(observer), Some(lost)) = (self.members.first(), self.members.get(last)) else {
            return Ok(Absence::default());
        };
        let name = lost.name().clone();
        self.screen.act(&format!("3. {name} is cut off; both sides go on"))?;
        for line in [
            "What happens now: no packet passes between the sides. Each node continues on its own:".to_owned(),
            "  - it counts its own connections, and still reads the last counts that it received from the other side;"
                .to_owned(),
            "  - the links are silent, and each side declares the nodes of the other suspect, then dead;".to_owned(),
            format!(
                "  - a dead node's inbound connections stop counting {} s later (on_dead = drop), its outbound ones",
                DROP_AFTER.as_secs_f64()
            ),
            "    still count (on_dead = hold); no row is discarded, so all counts are exact again when the cut ends;"
                .to_owned(),
            "  - each side enforces limits by the counts that it knows, so both sides together may exceed a soft one."
                .to_owned(),
        ] {
            self.screen.say(format!("  {line}"))?;
        }
        let start = Instant::now();
        lost.gate.close();
        let watched = tokio::spawn(declared_dead(observer.node.clone(), name, start, time));
        let nodes = u32::try_from(self.members.len()).unwrap_or(u32::MAX);
        let mut dropped = None;
        self.run_traffic(time, |members| {
            let counted = members.first().map(|member| member.inbound.count(ipnet::Ipv4Net::default().into()).actors);
            if dropped.is_none() && counted.is_some_and(|counted| counted < nodes) {
                dropped = Some(start.elapsed());
            }
            Ok(())
        })
        .await?;
        let dead = watched.await.ok().flatten();
        self.both_sides(last, Absence { dead, dropped })?;
        Ok(Absence { dead, dropped })
    }

    /// Shows what each side counts while no packet passes between them.
    fn both_sides(&mut self, last: usize, Absence { dead, dropped }: Absence) -> Result<(), Failure> {
        let Some(lost) = self.members.get(last) else { return Ok(()) };
        let (name, (inwards, outwards)) = (lost.name().clone(), lost.gate.dropped());
        let at = |time: Option<Duration>| time.map(|time| format!("{:.1} s after the cut", time.as_secs_f64()));
        let dead = at(dead).unwrap_or_else(|| "not yet; this takes some 5 s".to_owned());
        let dropped = at(dropped).unwrap_or_else(|| "not yet".to_owned());
        self.screen.say(format!("  declared dead: {dead}"))?;
        self.screen.say(format!("  its inbound connections no longer count: {dropped}"))?;
        self.screen.say("  its outbound connections still count, with the last known value (on_dead = hold)")?;
        self.screen.say(format!("  the throttle on {}: {}", name, limits::in_a_partition(lost)?))?;
        self.screen.say(format!("  {} packets were lost at the cut; now the sides count:", inwards + outwards))?;
        for line in views::table(&self.members, &self.truth) {
            self.screen.say(line)?;
        }
        let differences = self.truth.differences(&self.members);
        if inwards + outwards == 0 || differences.is_empty() {
            return Err(Failure::No(format!(
                "{name} was cut off, and no node noticed: the demonstration shows nothing"
            )));
        }
        Ok(())
    }

    /// Act 4: the cut is healed.
    async fn heal(&mut self, last: usize) -> Result<Duration, Failure> {
        let Some(lost) = self.members.get(last) else { return Ok(Duration::ZERO) };
        let name = lost.name().clone();
        self.screen.act(&format!("4. {name} is back"))?;
        lost.gate.open();
        let healed = self.agree().await?;
        for line in views::table(&self.members, &self.truth) {
            self.screen.say(line)?;
        }
        Ok(healed)
    }

    /// Act 5: the traffic continues, then a last comparison.
    async fn last_check(&mut self, time: Duration) -> Result<(), Failure> {
        self.screen.act("5. The traffic continues, then a last comparison")?;
        self.run_traffic(time, |_| Ok(())).await?;
        self.agree().await.map(drop)
    }

    /// Every node compares fingerprints with all others.
    async fn verify(&mut self) -> Result<String, Failure> {
        let mut copies = 0;
        for member in &self.members {
            let found = member.node.verify(VERIFY).await;
            match found {
                Ok(found) if found.converged() && found.members.len() == self.members.len() => {
                    copies += found.copies;
                }
                found => {
                    return Err(Failure::No(format!(
                        "{} reports that not all nodes have converged: {found:?}",
                        member.name()
                    )));
                }
            }
        }
        Ok(format!("every node compared fingerprints, {copies} copies in all: converged"))
    }

    fn summary(
        &mut self,
        plan: &Plan,
        samples: &[Duration],
        absence: Absence,
        healed: Duration,
        verified: &str,
    ) -> Result<(), Failure> {
        let nodes = self.members.len();
        self.screen.act("Summary")?;
        let gone = match absence {
            Absence { dropped: Some(after), .. } => {
                format!("its inbound connections left after {:.1} s", after.as_secs_f64())
            }
            _ => "its inbound connections would leave later: --seconds 20".to_owned(),
        };
        let lines = [
            format!(
                "{nodes} nodes counted {} connections that opened and {} that ended",
                self.traffic.opened, self.traffic.closed
            ),
            "a change was seen on all nodes after:".to_owned(),
            format!("  {}", quantiles(samples)),
            format!("one node cut off for {:.1} s: {gone}", plan.cut.as_secs_f64()),
            format!("all exact again {} after the cut was healed, no restart", milliseconds(healed)),
            verified.to_owned(),
            format!("all {nodes} nodes agree with what was counted, key by key and node by node"),
            format!("took {:.1} s of {} s", self.begun.elapsed().as_secs_f64(), plan.total.as_secs()),
        ];
        for line in lines {
            self.screen.say(format!("  {line}"))?;
        }
        Ok(())
    }

    /// Lets the traffic run; `look` is called after each step.
    async fn run_traffic(
        &mut self,
        time: Duration,
        mut look: impl FnMut(&[Member]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let start = Instant::now();
        let mut ticks = tokio::time::interval(STEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while start.elapsed() < time {
            ticks.tick().await;
            self.traffic.step(&self.members)?;
            look(&self.members)?;
            let (members, truth) = (&self.members, &self.truth);
            self.screen.live(|| views::table(members, truth), || views::line(members, truth))?;
        }
        Ok(())
    }

    /// Waits, while no count changes, until all nodes agree with the ground truth.
    async fn agree(&mut self) -> Result<Duration, Failure> {
        match self.truth.agreed(&self.members, AGREE).await {
            Ok(after) => {
                self.screen.say(format!("  all nodes agree with what was counted, after {}", milliseconds(after)))?;
                Ok(after)
            }
            Err(differences) => {
                let seconds = AGREE.as_secs();
                let differences = differences.join("\n  ");
                Err(Failure::No(format!("after {seconds} s not all agree with what was counted:\n  {differences}")))
            }
        }
    }

    async fn leave(&mut self) {
        for member in &self.members {
            member.node.shutdown().await;
        }
    }
}

/// How long after `start` a node declares another one dead; `None` if it does not within `time`.
async fn declared_dead(observer: Node, lost: NodeName, start: Instant, time: Duration) -> Option<Duration> {
    let dead = |member: &tallymesh::Member| member.actor.node == lost && member.life == Life::Dead;
    while start.elapsed() < time {
        if observer.members().await.is_ok_and(|members| members.iter().any(dead)) {
            return Some(start.elapsed());
        }
        tokio::time::sleep(STEP).await;
    }
    None
}

fn quantiles(samples: &[Duration]) -> String {
    let [p50, p99, most] = [0.5, 0.99, 1.0].map(|part| milliseconds(percentile(samples, part)));
    format!("p50 {p50}, p99 {p99}, slowest {most}, of {} changes", samples.len())
}
