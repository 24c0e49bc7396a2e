//! What a case is. The cases themselves are data, in `cases`.

use std::{fmt, time::Duration};

use serde::Serialize;

use super::subject::Subject;

/// One question, put to several subjects with the same options.
#[derive(Debug)]
pub(crate) struct Case {
    /// The layer that it is about.
    pub(crate) group: &'static str,
    /// Within the group.
    pub(crate) name: &'static str,
    /// What is asked, in words.
    pub(crate) question: &'static str,
    /// What a sample counts.
    pub(crate) unit: &'static str,
    /// Which way is good.
    pub(crate) better: Better,
    /// The options that every subject is given alike: `("workers", 2)` becomes `--workers 2`.
    pub(crate) options: &'static [(&'static str, u64)],
    /// Who is asked; ours first.
    pub(crate) entrants: &'static [Entrant],
    /// What the results of this count add up to.
    pub(crate) checksum: fn(count: u64) -> u64,
    /// A run that takes longer is killed and its row marked.
    pub(crate) cap: Duration,
}

/// A subject's part in a case.
#[derive(Debug)]
pub(crate) struct Entrant {
    /// Who.
    pub(crate) subject: &'static Subject,
    /// How much a run does, in jobs or starts or whatever the case is about: enough for a second or so, which differs
    /// between subjects.
    pub(crate) count: u64,
    /// The same for `--quick`.
    pub(crate) quick_count: u64,
    /// How many times worse than this one ours may be, where that is an aim of the project; less than one where ours is
    /// to be better.
    pub(crate) aim: Option<f64>,
    /// Which of its interfaces is used.
    pub(crate) way: &'static str,
}

/// Which way is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Better {
    /// More is better: throughput.
    Higher,
    /// Less is better: time, memory.
    Lower,
}

impl Entrant {
    /// One without an aim.
    pub(crate) const fn new(subject: &'static Subject, count: u64, quick_count: u64, way: &'static str) -> Self {
        Self { subject, count, quick_count, aim: None, way }
    }

    /// The same, and ours is to be at most `times` worse.
    pub(crate) const fn with_aim(self, times: f64) -> Self {
        Self { aim: Some(times), ..self }
    }

    /// The same, and ours is to be at least `times` better.
    pub(crate) const fn with_lead(self, times: f64) -> Self {
        self.with_aim(1.0 / times)
    }
}

impl Case {
    /// The name under which the case is known outside, and by which subjects are asked for it: `group/name`.
    pub(crate) fn full_name(&self) -> String {
        format!("{}/{}", self.group, self.name)
    }

    /// Whether `filter` names this case or its group.
    pub(crate) fn is_meant_by(&self, filter: &str) -> bool {
        filter == self.group || filter == self.full_name()
    }
}

impl Better {
    /// How many times better `ours` is than `other`: above one, ours is ahead, whichever way is good.
    pub(crate) fn advantage(self, ours: f64, other: f64) -> f64 {
        match self {
            Self::Higher => ours / other,
            Self::Lower => other / ours,
        }
    }
}

impl fmt::Display for Better {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Higher => "higher",
            Self::Lower => "lower",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::cases::pool::CASES;

    #[test]
    fn filters_name_groups_or_cases() {
        let case = &CASES[0];
        assert!(case.is_meant_by("pool") && case.is_meant_by("pool/tiny_oneway"));
        assert!(!case.is_meant_by("tiny_oneway") && !case.is_meant_by("poo"));
    }

    #[test]
    fn advantage_is_above_one_when_ours_is_ahead() {
        assert_eq!(Better::Higher.advantage(300.0, 100.0), 3.0);
        assert_eq!(Better::Lower.advantage(300.0, 100.0), 1.0 / 3.0);
    }
}
