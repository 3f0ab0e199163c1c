//! Several runs of a scenario: minimum, median and maximum of every timing.

use crate::report::Report;
use crate::scenario::Scenario;
use serde::Serialize;
use std::collections::BTreeMap;

/// One timing over several reports.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spread {
    /// Name of the timing, as in report.json.
    pub timing: &'static str,
    /// How many reports have it.
    pub runs: usize,
    /// Least, in milliseconds.
    pub min: f64,
    /// Median, in milliseconds: the mean of the two middle ones when their number is even.
    pub median: f64,
    /// Greatest, in milliseconds.
    pub max: f64,
}

/// All reports of one scenario.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// The scenario; none for reports that name none.
    pub scenario: Option<Scenario>,
    /// How many reports there are.
    pub runs: usize,
    /// How many of them passed.
    pub passed: usize,
    /// Each timing that at least one report has.
    pub timings_ms: Vec<Spread>,
}

/// Summarises reports, scenario by scenario.
pub fn summarise(reports: &[Report]) -> Vec<Summary> {
    let mut by_scenario: BTreeMap<Option<Scenario>, Vec<&Report>> = BTreeMap::new();
    for report in reports {
        by_scenario.entry(report.scenario).or_default().push(report);
    }
    let summaries = by_scenario.into_iter().map(|(scenario, reports)| {
        let mut values: Vec<(&'static str, Vec<f64>)> = Vec::new();
        for (timing, value) in reports.iter().flat_map(|r| r.timings_ms.named()) {
            match values.iter_mut().find(|(name, _)| *name == timing) {
                Some((_, values)) => values.extend(value),
                None => values.push((timing, value.into_iter().collect())),
            }
        }
        let spreads = values.into_iter().filter_map(|(timing, values)| spread(timing, values));
        Summary {
            scenario,
            runs: reports.len(),
            passed: reports.iter().filter(|r| r.passed()).count(),
            timings_ms: spreads.collect(),
        }
    });
    summaries.collect()
}

fn spread(timing: &'static str, mut values: Vec<f64>) -> Option<Spread> {
    values.sort_by(f64::total_cmp);
    let runs = values.len();
    let (lower, upper) = (values.get(runs.checked_sub(1)? / 2)?, values.get(runs / 2)?);
    Some(Spread { timing, runs, min: *values.first()?, median: (lower + upper) / 2.0, max: *values.last()? })
}

/// The summaries as a table.
pub fn table(summaries: &[Summary]) -> String {
    let mut text = String::new();
    for summary in summaries {
        let scenario = summary.scenario.map_or("unknown scenario", Scenario::word);
        text.push_str(&format!("{scenario}: {} of {} passed\n", summary.passed, summary.runs));
        text.push_str(&format!("  {:<30} {:>5} {:>11} {:>11} {:>11}\n", "ms", "runs", "min", "median", "max"));
        for s in &summary.timings_ms {
            text.push_str(&format!(
                "  {:<30} {:>5} {:>11.1} {:>11.1} {:>11.1}\n",
                s.timing, s.runs, s.min, s.median, s.max
            ));
        }
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        let four = spread("outage", vec![4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!((four.min, four.median, four.max), (1.0, 2.5, 4.0));
        let three = spread("outage", vec![9.0, 1.0, 5.0]).unwrap();
        assert_eq!(three.median, 5.0);
        assert_eq!(spread("outage", Vec::new()), None);
    }

    proptest! {
        #[test]
        fn half_of_all_values_lie_on_each_side_of_the_median(
            values in proptest::collection::vec(-1e6..1e6f64, 1..50)
        ) {
            let found = spread("outage", values.clone()).unwrap();
            let below = values.iter().filter(|v| **v <= found.median).count();
            let above = values.iter().filter(|v| **v >= found.median).count();
            prop_assert!(2 * below >= values.len() && 2 * above >= values.len());
            prop_assert!(found.min <= found.median && found.median <= found.max);
        }
    }
}
