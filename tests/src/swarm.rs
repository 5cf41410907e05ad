//! Swarm runs: each seed draws its own cluster, faults and load (Groce et al., "Swarm Testing", 2012).

mod draw;
mod lies;
mod limits;
mod load;
mod run;
mod shrink;

pub use draw::{Plan, draw};
pub use limits::Asked;
pub use load::Load;
pub use run::{Detail, Outcome, run};
pub use shrink::shrink;
