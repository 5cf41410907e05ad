//! Shrinks a failing plan.

use super::draw::Plan;
use super::run::{Detail, run};

/// Removes what a failure does not need: steps of the script, nodes, structures, load. The result still fails, but perhaps in
/// another way. At most `tries` runs.
pub fn shrink(plan: &Plan, mut tries: usize) -> Plan {
    let mut best = plan.clone();
    let fails = |candidate: &Plan, tries: &mut usize| {
        *tries = tries.saturating_sub(1);
        *tries > 0 && run(candidate, Detail::Hash).failure.is_some()
    };
    loop {
        let before = tries;
        let mut shrunk = false;
        for candidate in candidates(&best) {
            if fails(&candidate, &mut tries) {
                (best, shrunk) = (candidate, true);
                break;
            }
        }
        if !shrunk || tries == 0 || tries == before {
            return best;
        }
    }
}

fn candidates(plan: &Plan) -> Vec<Plan> {
    let mut list = Vec::new();
    let mut with = |change: &dyn Fn(&mut Plan)| {
        let mut changed = plan.clone();
        change(&mut changed);
        list.push(changed);
    };
    let half = plan.script.len() / 2;
    if half > 1 {
        with(&|plan| drop(plan.script.drain(..half)));
        with(&|plan| plan.script.truncate(half));
    }
    for at in 0..plan.script.len() {
        with(&|plan| drop(plan.script.remove(at)));
    }
    for at in 0..plan.structures.len() {
        if plan.structures.len() > 1 {
            with(&|plan| drop(plan.structures.remove(at)));
        }
    }
    if plan.saves.is_some() {
        with(&|plan| plan.saves = None);
    }
    if plan.asked.is_some() {
        with(&|plan| plan.asked = None);
    }
    for at in 0..plan.series.len() {
        with(&|plan| drop(plan.series.remove(at)));
    }
    for at in 0..plan.gauges.len() {
        with(&|plan| drop(plan.gauges.remove(at)));
    }
    for at in 0..plan.caches.len() {
        with(&|plan| drop(plan.caches.remove(at)));
    }
    if plan.nodes.len() > 2 {
        let last = plan.nodes.last().cloned().unwrap_or_default();
        if !plan.script.iter().any(|step| names(&step.to_string(), &last)) {
            with(&|plan| drop(plan.nodes.pop()));
        }
    }
    if plan.load.keys > 1 {
        with(&|plan| plan.load.keys /= 2);
    }
    if plan.load.burst > 1 {
        with(&|plan| (plan.load.burst, plan.load.rate) = (1, plan.load.rate / plan.load.burst + 1));
    }
    if plan.load.rate > 2 {
        with(&|plan| plan.load.rate /= 2);
    }
    if plan.load.removals > 0 {
        with(&|plan| plan.load.removals = 0);
    }
    if plan.load.step > 1 {
        with(&|plan| plan.load.step = 1);
    }
    if plan.drift_ppm > 0 {
        with(&|plan| plan.drift_ppm = 0);
    }
    if plan.length.as_secs() > 2 {
        with(&|plan| {
            plan.length = plan.length.mul_f64(0.7);
            let end = plan.length.as_micros() as u64;
            plan.script.retain(|step| step.at.0 < end);
        });
    }
    list
}

fn names(step: &str, node: &str) -> bool {
    step.split([' ', ',']).any(|word| word == node || word.strip_suffix('\'') == Some(node))
}
