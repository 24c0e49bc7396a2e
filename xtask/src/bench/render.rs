//! A report in words and tables: the document `report.md`, and the summary on the terminal.

use std::fmt::Write as _;

use super::{
    case::{Better, Case},
    report::{Report, Row},
    table::{self, Align},
};

/// How the figures were taken.
const METHOD: &str = "
Every sample is a fresh process that warms up first and measures itself. In each round every subject runs once, in an
order that rotates from round to round. The last column is the median of the ratios taken within the rounds: how many
times better or worse ours is, and how many times worse it may be, or better it is to be, where the project has an aim.
Results are verified: a wrong sum fails the run.
";

/// The columns of a case's table.
const COLUMNS: [(&str, Align); 6] = [
    ("subject", Align::Left),
    ("version", Align::Left),
    ("median", Align::Right),
    ("quartiles", Align::Right),
    ("samples", Align::Right),
    ("ours is", Align::Right),
];

impl Report {
    /// The table of one case, for the terminal.
    pub(crate) fn summary(&self, case: &Case) -> String {
        let heading = format!("{} ({}, {} is better)", case.full_name(), case.unit, case.better);
        let mut text = format!("{heading}\n{}", table::plain(&COLUMNS, &self.cells(case)));
        for (subject, note) in self.notes(case) {
            let _ = writeln!(text, "{subject}: {note}"); // a String takes all
        }
        text
    }

    /// The whole as a document.
    pub(super) fn markdown(&self, cases: &[&Case]) -> String {
        let mut text = "# Benchmarks\n\n".to_owned();
        for (key, value) in self.machine.described() {
            let _ = writeln!(text, "- {key}: {value}");
        }
        text.push_str(METHOD);
        for line in &self.left_out {
            let _ = writeln!(text, "\nLeft out: {line}");
        }
        for case in cases {
            let better = match case.better {
                Better::Higher => "more is better",
                Better::Lower => "less is better",
            };
            let options: Vec<_> = case.options.iter().map(|(name, value)| format!("{name} {value}")).collect();
            let _ = writeln!(text, "\n## {}\n\n{} In {}; {}.", case.full_name(), case.question, case.unit, better);
            if !options.is_empty() {
                let _ = writeln!(text, "Every subject: {}.", options.join(", "));
            }
            let _ = writeln!(text, "\n{}", table::markdown(&COLUMNS, &self.cells(case)));
            for row in self.rows_of(case) {
                let _ = writeln!(text, "- {}: {}.", row.subject, row.way);
            }
            for (subject, note) in self.notes(case) {
                let _ = writeln!(text, "- {subject}, fewer samples: {note}.");
            }
        }
        text
    }

    /// What there is to say of single rows.
    fn notes(&self, case: &Case) -> impl Iterator<Item = (&'static str, &str)> {
        self.rows_of(case).filter_map(|row| Some((row.subject, row.note.as_deref()?)))
    }

    /// The cells of one case's table.
    fn cells(&self, case: &Case) -> Vec<[String; COLUMNS.len()]> {
        self.rows_of(case).map(cells).collect()
    }
}

/// One line of a case's table.
fn cells(row: &Row) -> [String; COLUMNS.len()] {
    let absent = || "–".to_owned();
    let remark = match (row.capped, &row.note) {
        (true, _) => " (capped)",
        (false, Some(_)) => " (failed)",
        (false, None) => "",
    };
    let quartiles = row.lower_quartile.zip(row.upper_quartile);
    [
        format!("{}{remark}", row.subject),
        row.version.clone().unwrap_or_else(absent),
        row.median.map_or_else(absent, figure),
        quartiles.map_or_else(absent, |(lower, upper)| format!("{} … {}", figure(lower), figure(upper))),
        row.samples.len().to_string(),
        row.advantage_of_ours.map_or_else(absent, |times| comparison(times, row.aim)),
    ]
}

/// How ours compares, in words, with the aim that it has there.
fn comparison(advantage: f64, aim: Option<f64>) -> String {
    let mut text = match advantage {
        better if better >= 1.0 => format!("{}× better", figure(better)),
        worse => format!("{}× worse", figure(1.0 / worse)),
    };
    match aim {
        Some(times) if times > 1.0 => write!(text, " (aim: at most {}× worse)", rounded(times)),
        Some(times) if times < 1.0 => write!(text, " (aim: at least {}× better)", rounded(1.0 / times)),
        Some(_) => write!(text, " (aim: not worse)"),
        None => Ok(()),
    }
    .unwrap_or_default(); // a String takes all
    text
}

/// An aim without more digits than it was meant with.
fn rounded(times: f64) -> f64 {
    (times * 100.0).round() / 100.0
}

/// A figure with three digits that count, and its thousands apart.
pub(super) fn figure(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        size if size >= 0.1 => 3,
        _ => 5,
    };
    let text = format!("{value:.decimals$}");
    let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + fraction
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{cases::pool::CASES, report::tests::report};

    #[test]
    fn figures_keep_three_digits() {
        for (value, expected) in [
            (1_234_567.8, "1,234,568"),
            (12_345.0, "12,345"),
            (999.6, "1,000"),
            (100.0, "100"),
            (12.34, "12.3"),
            (1.5, "1.50"),
            (0.1234, "0.123"),
            (0.0123, "0.01230"),
        ] {
            assert_eq!(figure(value), expected);
        }
    }

    #[test]
    fn comparisons_say_which_way_and_how_far() {
        assert_eq!(comparison(32.0, None), "32.0× better");
        assert_eq!(comparison(0.4, Some(3.0)), "2.50× worse (aim: at most 3× worse)");
        assert_eq!(comparison(1.0, Some(1.0)), "1.00× better (aim: not worse)");
        assert_eq!(comparison(0.8, Some(1.25)), "1.25× worse (aim: at most 1.25× worse)");
        assert_eq!(comparison(60.0, Some(1.0 / 50.0)), "60.0× better (aim: at least 50× better)");
        assert_eq!(comparison(0.5, Some(1.0 / 0.3)), "2.00× worse (aim: at most 3.33× worse)");
    }

    #[test]
    fn the_summary_shows_every_subject() {
        let expected = "\
pool/tiny_oneway (jobs/s, higher is better)
subject             version  median      quartiles  samples  ours is
billiard-rs         0.1.0     1,100  1,050 … 1,150        3        –
procspawn (capped)  –             –              –        0        –
procspawn: still running after 60s
";
        assert_eq!(report().summary(&CASES[0]), expected);
    }

    #[test]
    fn the_document_says_how_and_who_not() {
        let text = report().markdown(&[&CASES[0]]);
        for part in [
            "\n## pool/tiny_oneway\n",
            "In jobs/s; more is better.",
            "workers 2, window 1024",
            "| billiard-rs | 0.1.0 | 1,100 | 1,050 … 1,150 | 3 | – |",
            "- billiard-rs: a handle for each job.",
            "Left out: billiard: no python3",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }
}
