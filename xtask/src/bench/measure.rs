//! The rounds of a case: every subject once in each, the order rotated from round to round, so that whatever drifts on
//! the machine (its clock, its temperature, its neighbours) meets all of them alike. Ratios are taken within a round.

use anyhow::Result;

use super::{
    case::{Case, Entrant},
    report::Row,
    stats::{Summary, median},
    subject::{Kind, Outcome},
};

/// What the rounds have given for one entrant.
#[derive(Debug)]
struct Record {
    /// Its sample in each round that it took part in.
    samples: Vec<f64>,
    /// The version of its library.
    version: Option<String>,
    /// Whether a run went over the cap.
    capped: bool,
    /// Why it takes part no more.
    note: Option<String>,
}

/// Puts `case` to `entrants` for as many rounds as said. A subject that fails or is capped takes no further part.
pub(crate) fn measure(
    case: &Case,
    entrants: &[&Entrant],
    rounds: usize,
    mut run: impl FnMut(&Entrant) -> Result<Outcome>,
) -> Result<Vec<Row>> {
    let mut records: Vec<_> = entrants.iter().map(|_| Record::new()).collect();
    for round in 0..rounds {
        for turn in 0..entrants.len() {
            let place = (round + turn) % entrants.len();
            if records[place].note.is_none() {
                records[place].add(run(entrants[place])?, case);
            }
        }
    }
    let ours = entrants.iter().position(|entrant| entrant.subject.kind == Kind::Ours);
    let row = |(entrant, record): (&&Entrant, &Record)| {
        let ours = ours.filter(|_| entrant.subject.kind != Kind::Ours).map(|ours| &records[ours]);
        record.row(case, entrant, ours)
    };
    Ok(entrants.iter().zip(&records).map(row).collect())
}

impl Record {
    /// Nothing yet.
    fn new() -> Self {
        Self { samples: Vec::new(), version: None, capped: false, note: None }
    }

    /// Notes how a run came out.
    fn add(&mut self, outcome: Outcome, case: &Case) {
        match outcome {
            Outcome::Sample { value, version } => {
                self.samples.push(value);
                self.version = version;
            }
            Outcome::Capped => {
                self.capped = true;
                self.note = Some(format!("still running after {:?}", case.cap));
            }
            Outcome::Failed(why) => self.note = Some(why),
        }
    }

    /// The row of the report.
    fn row(&self, case: &Case, entrant: &Entrant, ours: Option<&Self>) -> Row {
        let summary = Summary::of(&self.samples);
        Row {
            group: case.group,
            case: case.full_name(),
            subject: entrant.subject.name,
            unit: case.unit,
            better: case.better,
            samples: self.samples.clone(),
            median: summary.map(|summary| summary.median),
            lower_quartile: summary.map(|summary| summary.lower_quartile),
            upper_quartile: summary.map(|summary| summary.upper_quartile),
            advantage_of_ours: ours.and_then(|ours| self.advantage_of(ours, case)),
            aim: entrant.aim,
            version: self.version.clone(),
            capped: self.capped,
            note: self.note.clone(),
            way: entrant.way,
        }
    }

    /// The median, over the rounds that both have finished, of how many times better ours was. Who leaves does so for
    /// good, so samples at the same place are of the same round.
    fn advantage_of(&self, ours: &Self, case: &Case) -> Option<f64> {
        let pairs = ours.samples.iter().zip(&self.samples);
        median(&pairs.map(|(&ours, &this)| case.better.advantage(ours, this)).collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::cases::pool::CASES;

    /// A sample of this size.
    fn sample(value: f64) -> Outcome {
        Outcome::Sample { value, version: Some("1".into()) }
    }

    #[test]
    fn every_subject_once_a_round_in_rotated_order() {
        let case = &CASES[0];
        let entrants: Vec<_> = case.entrants.iter().take(3).collect();
        let mut order = Vec::new();
        let run = |entrant: &Entrant| {
            order.push(entrant.subject.name);
            Ok(sample(1.0))
        };
        measure(case, &entrants, 3, run).unwrap();
        let [a, b, c] = [0, 1, 2].map(|place| entrants[place].subject.name);
        assert_eq!(order, [a, b, c, b, c, a, c, a, b]);
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let case = &CASES[0];
        let entrants: Vec<_> = case.entrants.iter().take(2).collect();
        // The machine slows down threefold; the ratios are 2, 4 and 3 all the same.
        let mut ours = [300.0, 200.0, 100.0].into_iter();
        let mut other = [150.0, 50.0, 100.0 / 3.0].into_iter();
        let run = |entrant: &Entrant| {
            let source = if entrant.subject.kind == Kind::Ours { &mut ours } else { &mut other };
            Ok(sample(source.next().unwrap()))
        };
        let rows = measure(case, &entrants, 3, run).unwrap();
        assert_eq!(rows[0].median, Some(200.0));
        assert_eq!(rows[0].advantage_of_ours, None);
        assert!((rows[1].advantage_of_ours.unwrap() - 3.0).abs() < 1e-9);
    }

    #[test]
    fn who_fails_or_hangs_is_not_asked_again() {
        let case = &CASES[0];
        let entrants: Vec<_> = case.entrants.iter().take(3).collect();
        let mut asked = [0; 3];
        let run = |entrant: &Entrant| {
            let place = entrants.iter().position(|other| other.subject.name == entrant.subject.name).unwrap();
            asked[place] += 1;
            Ok(match place {
                0 => sample(10.0),
                1 => Outcome::Capped,
                _ if asked[place] == 2 => Outcome::Failed("broken".into()),
                _ => sample(5.0),
            })
        };
        let rows = measure(case, &entrants, 4, run).unwrap();
        assert_eq!(asked, [4, 1, 2]);
        assert!(rows[1].capped && rows[1].median.is_none() && rows[1].advantage_of_ours.is_none());
        assert_eq!(rows[1].note.as_deref(), Some("still running after 60s"));
        assert!(!rows[2].capped);
        assert_eq!((rows[2].note.as_deref(), rows[2].advantage_of_ours), (Some("broken"), Some(2.0)));
    }

    #[test]
    fn results_that_cannot_be_trusted_end_the_run() {
        let case = &CASES[0];
        let entrants: Vec<_> = case.entrants.iter().collect();
        assert!(measure(case, &entrants, 3, |_| anyhow::bail!("wrong results")).is_err());
    }
}
