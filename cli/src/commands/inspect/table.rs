//! Tables with columns as wide as their widest cell.

use crate::failure::Failure;
use crate::output::Out;
use crate::style;

/// A table: headings, and rows of cells.
#[derive(Debug, Default)]
pub(super) struct Table {
    headings: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub(super) fn new(headings: &[&str]) -> Self {
        Self { headings: headings.iter().map(|heading| (*heading).to_owned()).collect(), rows: Vec::new() }
    }

    /// Adds a column.
    pub(super) fn column(&mut self, heading: String) {
        self.headings.push(heading);
    }

    /// Adds a row.
    pub(super) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Columns of numbers end at the same place, columns of words begin there.
    fn is_of_numbers(&self, column: usize) -> bool {
        let cells = self.rows.iter().filter_map(|row| row.get(column)).filter(|cell| *cell != "-");
        cells.clone().count() > 0 && cells.clone().all(|cell| cell.bytes().all(|b| b.is_ascii_digit() || b == b'-'))
    }

    /// The table as lines.
    pub(super) fn text(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column)).chain(self.headings.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let columns: Vec<_> = (0..self.headings.len()).map(|at| (width(at), self.is_of_numbers(at))).collect();
        let line = |cells: &[String]| {
            let cells = cells.iter().zip(&columns).map(|(cell, (width, is_number))| match is_number {
                true => format!("{cell:>width$}"),
                false => format!("{cell:<width$}"),
            });
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        let mut text = style::strong(&line(&self.headings)) + "\n";
        for row in &self.rows {
            text += &line(row);
            text.push('\n');
        }
        text
    }

    /// Writes the table as CSV.
    pub(super) fn csv(&self, out: &mut Out) -> Result<(), Failure> {
        for cells in [&self.headings].into_iter().chain(&self.rows) {
            out.csv(&cells.iter().map(String::as_str).collect::<Vec<_>>())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_end_and_words_begin_at_the_same_place() {
        let mut table = Table::new(&["node", "rows"]);
        table.row(vec!["a".to_owned(), "7".to_owned()]);
        table.row(vec!["relay".to_owned(), "12345".to_owned()]);
        assert_eq!(table.text(), "node    rows\na          7\nrelay  12345\n");
    }
}
