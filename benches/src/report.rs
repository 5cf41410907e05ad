//! One table of everything that was measured, for people or as JSON.

use std::fmt::Write;

use serde::Serialize;

use crate::measure::Figure;

/// One thing that was measured: ours first, then the peers.
#[derive(Debug, Clone, Serialize)]
pub struct Group {
    /// What.
    pub what: String,
    /// In what unit; less is better in all of them.
    pub unit: &'static str,
    /// Ours and the peers'.
    pub figures: Vec<Figure>,
    /// What ours should be.
    pub wanted: Option<Wanted>,
}

/// What is wanted, as a number that should not be exceeded.
#[derive(Debug, Clone, Serialize)]
pub struct Wanted {
    /// In words.
    pub text: String,
    /// What is.
    pub is: f64,
    /// What it may be.
    pub at_most: f64,
}

impl Group {
    /// What was measured, with nothing wanted of it.
    pub fn new(what: impl Into<String>, unit: &'static str, figures: Vec<Figure>) -> Self {
        Self { what: what.into(), unit, figures, wanted: None }
    }

    /// Ours may be at most `at_most`.
    #[must_use]
    pub fn want(mut self, text: &str, at_most: f64) -> Self {
        let is = self.figures.first().map_or(f64::NAN, |ours| ours.value);
        self.wanted = Some(Wanted { text: text.to_owned(), is, at_most });
        self
    }

    /// Ours may be at most `factor` times the figure of the peer whose name begins with `peer`.
    #[must_use]
    pub fn want_ratio(mut self, text: &str, peer: &str, factor: f64) -> Self {
        let ours = self.figures.first().map_or(f64::NAN, |ours| ours.value);
        let theirs = self.figures.iter().skip(1).find(|figure| figure.who.starts_with(peer));
        let is = ours / theirs.map_or(f64::NAN, |theirs| theirs.value);
        self.wanted = Some(Wanted { text: text.to_owned(), is, at_most: factor });
        self
    }
}

impl Wanted {
    fn verdict(&self) -> &'static str {
        if self.is <= self.at_most { "reached" } else { "NOT REACHED" }
    }
}

/// The table in Markdown: a ratio says how many times ours a figure is.
pub fn table(groups: &[Group]) -> String {
    let mut table = String::from("| what | who | figure | unit | × ours |\n|---|---|---:|---|---:|\n");
    for group in groups {
        let ours = group.figures.first().map_or(f64::NAN, |ours| ours.value);
        for (at, figure) in group.figures.iter().enumerate() {
            let what = if at == 0 { group.what.as_str() } else { "" };
            let ratio = number(figure.value / ours);
            // Writing to a string cannot fail.
            let _ =
                writeln!(table, "| {what} | {} | {} | {} | {ratio} |", figure.who, number(figure.value), group.unit);
        }
        if let Some(wanted) = &group.wanted {
            let (is, verdict) = (number(wanted.is), wanted.verdict());
            let _ = writeln!(table, "| | *wanted: {}* | *{is}* | | *{verdict}* |", wanted.text);
        }
    }
    table
}

/// Three digits that mean something.
fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
