//! Members that lie about others.

use std::time::Duration;

use tallymesh_engine::Time;

use crate::fault::{Fault, Lie, Step};
use crate::random::Random;

/// Draws lies in one of four runs, with its own randomness. Nodes believe them only about members without a connection, so most
/// of these runs also have a cut.
pub(super) fn draw(seed: u64, nodes: &[String], length: Duration, script: &mut Vec<Step>) {
    let random = &mut Random::new(seed ^ 0x11e5_0f0e_71e5_0001);
    if !random.chance(2500) || nodes.len() < 3 {
        return;
    }
    let (length, second) = (length.as_micros() as u64, 1_000_000);
    let begin = random.below(length / 2);
    let end = begin + random.between(second, 6 * second);
    let mut at = |micros: u64, fault: Fault| script.push(Step { at: Time(micros), fault });
    let victim = random.index(nodes.len());
    if random.chance(7000) {
        let witness = (victim + 1) % nodes.len();
        let (one, other) = (vec![nodes[victim].clone()], vec![nodes[witness].clone()]);
        at(begin, Fault::Cut(one, if random.chance(5000) { other } else { Vec::new() }));
        at(end, Fault::Heal);
    }
    for _ in 0..random.between(1, 4) {
        let about = if random.chance(8000) { victim } else { random.index(nodes.len()) };
        let by = (about + 1 + random.index(nodes.len() - 1)) % nodes.len();
        let lie = *random.pick(&Lie::ALL);
        let when = begin + random.below((end - begin).max(1));
        at(when, Fault::Lie(nodes[by].clone(), lie, nodes[about].clone()));
    }
    script.sort_by_key(|step| step.at);
}
