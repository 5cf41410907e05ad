//! Measuring in turn: every contender a little, again and again, and the median of each.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A contender: its name, and a run of it that returns the figure of that run.
pub struct Contender<'a> {
    name: String,
    run: Box<dyn FnMut() -> f64 + 'a>,
}

/// A figure that was measured.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Figure {
    /// Whose.
    pub who: String,
    /// The median over the rounds.
    pub value: f64,
}

impl<'a> Contender<'a> {
    /// A contender whose `run` returns its figure.
    pub fn new(name: impl Into<String>, run: impl FnMut() -> f64 + 'a) -> Self {
        Self { name: name.into(), run: Box::new(run) }
    }
}

/// The time that this thread has spent on a processor: others that use the machine as well disturb it least.
pub fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// Nanoseconds of processor time that `work` took for each of `n`.
pub fn ns_each(n: usize, work: impl FnOnce()) -> f64 {
    let start = cpu();
    work();
    (cpu() - start).as_nanos() as f64 / n.max(1) as f64
}

/// Runs all contenders in turn, once unmeasured and then `rounds` times, each round beginning with the next one.
pub fn interleaved(rounds: usize, mut contenders: Vec<Contender<'_>>) -> Vec<Figure> {
    let n = contenders.len();
    let mut runs: Vec<Vec<f64>> = vec![Vec::with_capacity(rounds); n];
    for round in 0..=rounds {
        for turn in 0..n {
            let at = (round + turn) % n;
            let figure = (contenders[at].run)();
            if round > 0 {
                runs[at].push(figure);
            }
        }
    }
    let named = contenders.into_iter().map(|contender| contender.name).zip(runs);
    named.map(|(who, mut runs)| Figure { who, value: median(&mut runs) }).collect()
}

fn median(runs: &mut [f64]) -> f64 {
    runs.sort_by(f64::total_cmp);
    runs.get(runs.len() / 2).copied().unwrap_or(f64::NAN)
}
