//! Runs a plan to its outcome.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use tallymesh_engine::Time;

use tallymesh_schemas::Class;

use super::draw::Plan;
use super::limits::{Asking, TABLE};
use crate::cluster::{Builder, Cluster, Event, Failure, spec};
use crate::fault::Fault;
use crate::panics::text_of;

/// The outcome of a run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The error, if there is one.
    pub failure: Option<Failure>,
    /// The trace's hash (I8).
    pub hash: u64,
    /// How often each kind of thing happened.
    pub marks: BTreeMap<&'static str, u64>,
    /// Acknowledged operations.
    pub operations: u64,
    /// How long convergence took after the last fault, in virtual time.
    pub settled: Duration,
    /// The last lines of the trace, if requested.
    pub lines: Vec<String>,
}

/// What a run keeps of its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Its hash.
    Hash,
    /// Its hash, and a line for each event.
    Text,
}

fn start(plan: &Plan, trace: Detail) -> Cluster {
    let table = plan.asked.as_ref().map(|_| spec(TABLE, Class::SharedNamedThrottles));
    let mut builder = Builder::new(plan.seed)
        .nodes(plan.nodes.clone())
        .structures(plan.structures.iter().cloned().chain(table))
        .series(plan.series.clone())
        .caches(plan.caches.clone())
        .gauges(plan.gauges.clone())
        .config(plan.config.clone())
        .timing(plan.timing.clone())
        .conditions(plan.conditions.clone())
        .drift(plan.drift_ppm)
        .verbose(trace == Detail::Text);
    if let Some(asked) = plan.asked.clone() {
        builder = builder.limits(asked.limits.clone()).service(move |node| Asking::new(&asked, node));
    }
    if let Some(every) = plan.saves {
        builder = builder.saves(every);
    }
    let mut cluster = builder.start();
    for step in &plan.script {
        cluster.schedule(step.at, Event::Fault(step.fault.clone()));
    }
    let again = plan.clone();
    cluster.again(move |upto| {
        let mut cluster = start(&again, Detail::Hash);
        // An earlier failure also fails the run itself.
        drop(work(&mut cluster, &again, upto));
        cluster
    });
    cluster
}

/// Runs a plan: faults and load, then healing, then convergence and quiet.
pub fn run(plan: &Plan, trace: Detail) -> Outcome {
    let mut cluster = start(plan, trace);
    // A panic of the engine is an error like any other, and is reported with the seed.
    let result = catch_unwind(AssertUnwindSafe(|| phases(&mut cluster, plan)));
    let result = result.unwrap_or_else(|panic| Err(cluster.failed(format!("panic: {}", text_of(&*panic)))));
    let operations = cluster.truth().operations();
    let mut marks = cluster.trace().marks().clone();
    marks.extend(cluster.admissions().totals().into_iter().filter(|(_, n)| *n > 0));
    Outcome {
        settled: *result.as_ref().unwrap_or(&Duration::ZERO),
        failure: result.err(),
        hash: cluster.trace().hash(),
        marks,
        operations,
        lines: cluster.trace().lines().map(str::to_owned).collect(),
    }
}

/// Faults and load, up to a moment.
fn work(cluster: &mut Cluster, plan: &Plan, end: Time) -> Result<(), Failure> {
    let mut random = cluster.work_random.fork();
    let interval = plan.load.interval().max(Duration::from_millis(1));
    let mut due: Vec<Time> = Vec::new();
    while cluster.now() < end {
        while due.len() < cluster.nodes().len() {
            due.push(cluster.now().after(random.duration(Duration::ZERO, interval)));
        }
        let (n, at) = due.iter().copied().enumerate().min_by_key(|(_, at)| *at).unwrap_or((0, end));
        cluster.run_until(at.min(end))?;
        if at < end {
            plan.load.burst(cluster, n, &mut random);
            due[n] = at.after(random.duration(interval / 2, interval * 3 / 2));
        }
    }
    Ok(())
}

fn phases(cluster: &mut Cluster, plan: &Plan) -> Result<Duration, Failure> {
    work(cluster, plan, Time(0).after(plan.length))?;
    // A clock may be corrected, and a member may lie, after the load has ended. Convergence is promised after the last fault.
    cluster.run_until(plan.script.iter().map(|step| step.at).max().unwrap_or_default())?;
    heal(cluster);
    if plan.asked.is_some() {
        // No faults for long enough that shares move again. Then limits end, because they never stop exchanging messages.
        cluster.run_for(Duration::from_secs(5))?;
        cluster.end_limits();
    }
    let took = cluster.settle()?;
    let diverged = cluster.trace().marked("told: diverged");
    if diverged > 0 && !plan.script.iter().any(|step| may_diverge(&step.fault)) {
        return Err(cluster.failed(format!("{diverged} divergences that no fault explains")));
    }
    Ok(took)
}

/// Whether a copy may differ from its owner's statement: two processes have written under one name, bits have changed, or an
/// older statement of the owner overtook a newer one.
fn may_diverge(fault: &Fault) -> bool {
    matches!(
        fault,
        Fault::Reuse(_) | Fault::Twin(_) | Fault::Double(_) | Fault::Reorder(_) | Fault::Corrupt(_) | Fault::Set(..)
    )
}

/// Heals what can be healed. Two processes of one name cannot both stay.
fn heal(cluster: &mut Cluster) {
    cluster.fault(&Fault::Heal);
    let twins: Vec<_> =
        cluster.nodes().iter().filter(|node| node.label().ends_with('\'')).map(|n| n.label().to_owned()).collect();
    if !twins.is_empty() {
        cluster.fault(&Fault::Crash(twins));
    }
}
