//! Medians, spreads, and ratios of what was measured in the same round.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value, json};

use crate::cells::Cell;
use crate::servers::Name;

/// A cell's figures, one for each server and round.
#[derive(Debug)]
pub(crate) struct Row {
    title: String,
    figures: BTreeMap<Name, Vec<f64>>,
}

/// The one in the middle.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut values: Vec<f64> = values.iter().copied().filter(|it| it.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Row {
    pub(crate) fn new(cell: &Cell, reports: &BTreeMap<Name, Vec<Value>>) -> Self {
        let figure = |report: &Value| {
            report.pointer(cell.figure).and_then(Value::as_f64).unwrap_or(f64::NAN)
        };
        let figures = reports.iter().map(|(name, it)| (*name, it.iter().map(figure).collect()));
        Self { title: cell.title.clone(), figures: figures.collect() }
    }

    /// The median of the ratios to another server, round by round.
    fn ratio(&self, name: Name, to: Name) -> f64 {
        let (Some(own), Some(other)) = (self.figures.get(&name), self.figures.get(&to)) else {
            return f64::NAN;
        };
        median(&own.iter().zip(other).map(|(own, other)| own / other).collect::<Vec<_>>())
    }

    pub(crate) fn json(&self) -> Value {
        let of = |name: &Name, values: &Vec<f64>| {
            json!({
                "median": median(values), "figures": values,
                "to_ceiling": self.ratio(*name, Name::Ceiling),
                "of_pousse": self.ratio(*name, Name::Pousse),
            })
        };
        let figures = self.figures.iter().map(|(name, it)| (name.word().to_owned(), of(name, it)));
        json!({ "title": self.title, "figures": figures.collect::<Value>() })
    }
}

/// `title | pousse 4.51 [4.40–4.60] ×1.02 | bun …`: median, extremes, ratio to the ceiling; where
/// there is no ceiling, to pousse.
impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:38}", self.title)?;
        let has_ceiling = self.figures.contains_key(&Name::Ceiling);
        let to = if has_ceiling { Name::Ceiling } else { Name::Pousse };
        for (name, values) in &self.figures {
            let least = values.iter().copied().fold(f64::INFINITY, f64::min);
            let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            write!(f, " | {} {}", name.word(), short(median(values)))?;
            if values.len() > 1 {
                write!(f, " [{}–{}]", short(least), short(most))?;
            }
            let failed = values.iter().filter(|it| !it.is_finite()).count();
            if failed > 0 {
                write!(f, " ({failed} failed)")?;
            }
            if *name != to && self.figures.contains_key(&to) {
                write!(f, " ×{:.2}", self.ratio(*name, to))?;
            }
        }
        Ok(())
    }
}

/// Three digits or a little more.
pub(crate) fn short(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value if value >= 1.0 => format!("{value:.2}"),
        value => format!("{value:.3}"),
    }
}
