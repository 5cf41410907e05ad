//! What was measured, as one table or as JSON.

use serde_json::json;

use crate::bench::machine;
use crate::bench::measure::{About, Figures, Measure};
use crate::bench::plan::Plan;
use crate::failure::Failure;
use crate::output::{Format, Out};

/// The figures of Redis.
pub(super) struct Opponent {
    pub(super) version: String,
    pub(super) figures: Figures,
}

/// Everything that was measured.
pub(super) struct Report {
    pub(super) plan: Plan,
    pub(super) ours: Figures,
    pub(super) redis: Option<Opponent>,
}

/// A line of the table.
struct Line {
    about: About,
    ours: f64,
    redis: Option<f64>,
}

impl Line {
    /// How many times better ours is.
    fn better(&self) -> Option<f64> {
        let redis = self.redis?;
        Some(if self.about.more_is_better { self.ours / redis } else { redis / self.ours })
    }
}

impl Report {
    pub(super) fn write(&self, format: Format) -> Result<(), Failure> {
        let mut out = Out::open();
        match format {
            Format::Text => out.text(self.text())?,
            Format::Json => out.json(&self.json())?,
            Format::Csv => {
                out.csv(&["what", "unit", "tallymesh", "redis", "times_better"])?;
                for line in self.lines() {
                    let [ours, redis, better] = [Some(line.ours), line.redis, line.better()]
                        .map(|figure| figure.map_or(String::new(), |figure| figure.to_string()));
                    out.csv(&[line.about.key, line.about.unit, &ours, &redis, &better])?;
                }
            }
        }
        out.flush()
    }

    fn lines(&self) -> impl Iterator<Item = Line> {
        Measure::ALL.into_iter().filter_map(|measure| {
            let redis = self.redis.as_ref().and_then(|redis| redis.figures.get(&measure).copied());
            Some(Line { about: measure.about(), ours: self.ours.get(&measure).copied()?, redis })
        })
    }

    fn text(&self) -> String {
        let (cores, model) = (machine::cores(), machine::model());
        let redis = self.redis.as_ref().map_or(String::new(), |redis| format!(", Redis {}", redis.version));
        let mut text = format!("Tallymesh {}{redis}; {cores} cores, {model}\n", env!("CARGO_PKG_VERSION"));
        let (seconds, rows) = (self.plan.time.as_secs(), self.plan.rows);
        let load = machine::load().map_or(String::new(), |load| format!("; load average {load:.1}"));
        text += &format!("each for {seconds} s; {rows} rows joined{load}\n\n");
        text += &format!("{:40}{:>9}{:>12}", "", "unit", "tallymesh");
        text += if self.redis.is_some() { "       redis   × better\n" } else { "\n" };
        for line in self.lines() {
            let About { what, unit, .. } = line.about;
            text += &format!("{what:40}{unit:>9}{:>12}", number(line.ours));
            if self.redis.is_some() {
                let redis = line.redis.map_or("-".to_owned(), number);
                let better = line.better().map_or("-".to_owned(), number);
                text += &format!("{redis:>12}{better:>11}");
            }
            text.push('\n');
        }
        text
    }

    fn json(&self) -> serde_json::Value {
        let figures = self.lines().map(|line| {
            json!({
                "key": line.about.key,
                "what": line.about.what,
                "unit": line.about.unit,
                "more_is_better": line.about.more_is_better,
                "tallymesh": line.ours,
                "redis": line.redis,
                "times_better": line.better(),
            })
        });
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "redis": self.redis.as_ref().map(|redis| &redis.version),
            "machine": { "cores": machine::cores(), "model": machine::model(), "load": machine::load() },
            "seconds": self.plan.time.as_secs(),
            "rows": self.plan.rows,
            "figures": figures.collect::<Vec<_>>(),
        })
    }
}

/// A number with three significant digits.
fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn alone() -> Report {
        let ours = [(Measure::Sustained, 600_000.0), (Measure::IdleProcessor, 0.5)];
        Report { plan: Plan { time: Duration::from_secs(5), rows: 1000 }, ours: ours.into(), redis: None }
    }

    fn beside_redis() -> Report {
        let figures = [(Measure::Sustained, 300_000.0), (Measure::IdleProcessor, 1.0)].into();
        Report { redis: Some(Opponent { version: "7.0.15".to_owned(), figures }), ..alone() }
    }

    #[test]
    fn better_is_above_one_in_either_direction_of_the_unit() {
        for line in beside_redis().lines() {
            assert_eq!(line.better(), Some(2.0), "{}", line.about.key);
        }
        assert!(alone().lines().all(|line| line.better().is_none()));
    }

    #[test]
    fn the_table_has_a_column_for_redis_only_if_it_was_measured() {
        let (with, without) = (beside_redis().text(), alone().text());
        let line = "changes of distinct keys, node to node     rows/s      600000      300000       2.00\n";
        assert!(with.contains(line), "{with}");
        assert!(with.contains("Redis 7.0.15") && with.contains(" cores, "));
        assert!(!without.to_lowercase().contains("redis"), "{without}");
    }
}
