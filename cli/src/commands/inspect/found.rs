//! What a look at one node or at several has found, in every format.

use serde_json::Value;

use crate::commands::inspect::fetch::Inspection;
use crate::commands::inspect::table::Table;
use crate::commands::inspect::{json, text};
use crate::failure::Failure;
use crate::output::{Format, Out};

/// What one look has found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) text: String,
    pub(super) json: Value,
    pub(super) csv: Option<Table>,
    /// How the command ends.
    pub(super) end: Result<(), Failure>,
}

impl Found {
    /// A view of one node.
    pub(super) fn of(inspection: &Inspection) -> Self {
        Self { text: text::of(inspection), json: json::of(inspection), csv: text::as_csv(inspection), end: Ok(()) }
    }

    /// Writes it.
    pub(super) fn print(&self, format: Format) -> Result<(), Failure> {
        let mut out = Out::open();
        match (format, &self.csv) {
            (Format::Json, _) => out.json(&self.json)?,
            (Format::Csv, Some(table)) => table.csv(&mut out)?,
            (Format::Csv, None) => {
                format.no_csv("inspect --links")?;
            }
            (Format::Text, _) => out.text(&self.text)?,
        }
        out.flush()
    }

    /// Writes it, and ends the command.
    pub(super) fn write(self, format: Format) -> Result<(), Failure> {
        self.print(format)?;
        self.end
    }
}
