//! The table of a run: a line a test, shown with `--nocapture`.

use std::sync::Once;
use std::time::Duration;

static HEADING: Once = Once::new();

/// What one test has seen.
#[derive(Debug, Default)]
pub(crate) struct Row {
    /// What was done to the cluster.
    pub(crate) fault: String,
    /// For how long.
    pub(crate) lasted: Duration,
    /// What showed that it was really so.
    pub(crate) bit: String,
    /// How much was counted by the load.
    pub(crate) added: u64,
    /// From the end of the fault until every node was linked with every other.
    pub(crate) whole: Duration,
    /// From the end of the load until every node showed exactly what was counted.
    pub(crate) exact: Duration,
    /// The most memory that a node ever had, in MiB.
    pub(crate) peak_mib: u64,
}

impl Row {
    /// Prints it; it is made only when all counts were as they should be.
    pub(crate) fn print(&self) {
        HEADING.call_once(|| {
            println!(
                "| fault | lasted | it bit | added under load | all linked after | counts | exact after | peak RSS |"
            );
            println!("|---|---:|---|---:|---:|---|---:|---:|");
        });
        let Self { fault, lasted, bit, added, whole, exact, peak_mib } = self;
        let [lasted, whole, exact] = [lasted, whole, exact].map(Duration::as_secs_f64);
        println!(
            "| {fault} | {lasted:.1} s | {bit} | {added} | {whole:.1} s | exact on all | {exact:.2} s | {peak_mib} MiB |"
        );
    }
}
