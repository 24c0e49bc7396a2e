//! What a run leaves behind: `report.json` for programs, `report.md` for people.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::{
    case::{Better, Case},
    machine::Machine,
};

/// Everything of one run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Where it was taken.
    pub(crate) machine: Machine,
    /// A row for each case and subject.
    pub(crate) rows: Vec<Row>,
    /// Who was left out, and why: no figures, so not in the JSON.
    #[serde(skip)]
    pub(crate) left_out: Vec<String>,
}

/// What one subject gave for one case.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    /// The layer that the case is about.
    pub(crate) group: &'static str,
    /// The case, `group/name`.
    pub(crate) case: String,
    /// Who.
    pub(crate) subject: &'static str,
    /// What the samples count.
    pub(crate) unit: &'static str,
    /// Which way is good.
    pub(crate) better: Better,
    /// One for each round, in order.
    pub(crate) samples: Vec<f64>,
    /// Of the samples; null where there are none.
    pub(crate) median: Option<f64>,
    /// Of the samples.
    pub(crate) lower_quartile: Option<f64>,
    /// Of the samples.
    pub(crate) upper_quartile: Option<f64>,
    /// How many times better ours is than this: the median of the ratios taken round by round. Above one, ours is
    /// ahead. Null for ours itself.
    pub(crate) advantage_of_ours: Option<f64>,
    /// How many times worse than this ours may be, where that is an aim of the project: then the advantage is to be at
    /// least one in so many. Less than one where ours is to be better.
    pub(crate) aim: Option<f64>,
    /// The version of the library; null where the system or the compiler is what was measured.
    pub(crate) version: Option<String>,
    /// Whether a run was killed at the cap.
    pub(crate) capped: bool,
    /// Why there are fewer samples than rounds, where there are.
    pub(crate) note: Option<String>,
    /// Which of the subject's interfaces was used.
    pub(crate) way: &'static str,
}

impl Report {
    /// Writes both files into `folder`.
    pub(crate) fn write(&self, folder: &Path, cases: &[&Case]) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let json = serde_json::to_string_pretty(self)? + "\n";
        for (name, text) in [("report.json", json), ("report.md", self.markdown(cases))] {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| path.display().to_string())?;
        }
        Ok(())
    }

    /// The rows of one case.
    pub(super) fn rows_of(&self, case: &Case) -> impl Iterator<Item = &Row> {
        let name = case.full_name();
        self.rows.iter().filter(move |row| row.case == name)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::bench::cases::pool::CASES;

    /// A report of two rows on the first case: ours, and one that was capped at once.
    pub(crate) fn report() -> Report {
        let case = &CASES[0];
        let ours = Row {
            group: case.group,
            case: case.full_name(),
            subject: "billiard-rs",
            unit: case.unit,
            better: case.better,
            samples: vec![1000.0, 1200.0, 1100.0],
            median: Some(1100.0),
            lower_quartile: Some(1050.0),
            upper_quartile: Some(1150.0),
            advantage_of_ours: None,
            aim: None,
            version: Some("0.1.0".into()),
            capped: false,
            note: None,
            way: "a handle for each job",
        };
        let capped = Row {
            subject: "procspawn",
            samples: Vec::new(),
            median: None,
            lower_quartile: None,
            upper_quartile: None,
            version: None,
            capped: true,
            note: Some("still running after 60s".into()),
            ..ours.clone()
        };
        let left_out = vec!["billiard: no python3".into()];
        Report { machine: Machine::default(), rows: vec![ours, capped], left_out }
    }

    #[test]
    fn json_has_a_machine_and_rows() {
        let value = serde_json::to_value(report()).unwrap();
        let keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["machine", "rows"]);
        assert!(value["machine"].is_object());
    }

    #[test]
    fn json_rows_have_the_agreed_keys() {
        let value = serde_json::to_value(report()).unwrap();
        let row = &value["rows"][0];
        for (key, expected) in [
            ("group", json!("pool")),
            ("case", json!("pool/tiny_oneway")),
            ("subject", json!("billiard-rs")),
            ("unit", json!("jobs/s")),
            ("better", json!("higher")),
            ("samples", json!([1000.0, 1200.0, 1100.0])),
            ("median", json!(1100.0)),
            ("capped", json!(false)),
        ] {
            assert_eq!(row[key], expected, "{key}");
        }
        assert_eq!(value["rows"][1]["median"], Value::Null);
        assert_eq!(value["rows"][1]["capped"], json!(true));
        assert_eq!(serde_json::to_value(Better::Lower).unwrap(), json!("lower"));
    }
}
