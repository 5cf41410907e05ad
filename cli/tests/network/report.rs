//! The table of a run: one line per test, shown with `--nocapture`.

use std::sync::Once;
use std::time::Duration;

static HEADING: Once = Once::new();

/// The result of one test.
#[derive(Debug, Default)]
pub(crate) struct Row {
    /// The fault.
    pub(crate) fault: String,
    /// How long it lasted.
    pub(crate) lasted: Duration,
    /// The observed effect of the fault.
    pub(crate) effect: String,
    /// How much the load counted.
    pub(crate) added: u64,
    /// From the end of the fault until every node was linked to every other one.
    pub(crate) all_linked: Duration,
    /// From the end of the load until every node's view was exact.
    pub(crate) exact: Duration,
    /// The peak memory of the largest node, in MiB.
    pub(crate) peak_mib: u64,
}

impl Row {
    /// Prints it. A test that fails does not get here.
    pub(crate) fn print(&self) {
        HEADING.call_once(|| {
            println!(
                "| fault | lasted | effect | added under load | all linked after | counts | exact after | peak RSS |"
            );
            println!("|---|---:|---|---:|---:|---|---:|---:|");
        });
        let Self { fault, lasted, effect, added, all_linked, exact, peak_mib } = self;
        let [lasted, all_linked, exact] = [lasted, all_linked, exact].map(Duration::as_secs_f64);
        println!(
            "| {fault} | {lasted:.1} s | {effect} | {added} | {all_linked:.1} s | exact on all | {exact:.2} s | {peak_mib} MiB |"
        );
    }
}
