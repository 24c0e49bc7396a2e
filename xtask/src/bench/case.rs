//! What is measured: the cases, as data. A new case is an entry here and a program that answers to its name.

use std::{fmt, time::Duration};

use serde::Serialize;

use super::subject::{BILLIARD, MULTIPROCESSING, OURS, PROCSPAWN, Subject};

/// One question, put to several subjects with the same options.
#[derive(Debug)]
pub(crate) struct Case {
    /// The layer that it is about.
    pub(crate) group: &'static str,
    /// Within the group; also what the subjects are asked for.
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
    /// What the results of so many jobs add up to.
    pub(crate) checksum: fn(jobs: u64) -> u64,
    /// A run that takes longer is killed and its row marked.
    pub(crate) cap: Duration,
}

/// A subject's part in a case.
#[derive(Debug)]
pub(crate) struct Entrant {
    /// Who.
    pub(crate) subject: &'static Subject,
    /// How many jobs a run has: enough for a second or two, which differs between subjects.
    pub(crate) jobs: u64,
    /// The same for `--quick`.
    pub(crate) quick_jobs: u64,
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
    #[cfg_attr(not(test), expect(dead_code, reason = "the cases so far all count throughput"))]
    Lower,
}

impl Case {
    /// The name under which the case is known outside: `group/name`.
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

/// All cases, in the order in which they are run.
pub(crate) static CASES: &[Case] = &[Case {
    group: "pool",
    name: "tiny_oneway",
    question: "How many tiny jobs (x + 1 on a u64), each submitted by itself, go through a pool in a second?",
    unit: "jobs/s",
    better: Better::Higher,
    options: &[("workers", 2), ("window", 1024)],
    entrants: &[
        Entrant {
            subject: &OURS,
            jobs: 100_000,
            quick_jobs: 50_000,
            way: "Pool::apply_async and JobHandle::get, the oldest handle first",
        },
        Entrant {
            subject: &BILLIARD,
            jobs: 40_000,
            quick_jobs: 20_000,
            way: "Pool.imap_unordered with chunksize=1, fed by a generator that keeps the window",
        },
        Entrant {
            subject: &MULTIPROCESSING,
            jobs: 40_000,
            quick_jobs: 20_000,
            way: "Pool.imap_unordered with chunksize=1, fed by a generator that keeps the window",
        },
        Entrant {
            subject: &PROCSPAWN,
            jobs: 30_000,
            quick_jobs: 15_000,
            way: "Pool::spawn and JoinHandle::join, the oldest handle first",
        },
    ],
    checksum: |jobs| (1..=jobs).fold(0, u64::wrapping_add),
    cap: Duration::from_secs(60),
}];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_list_is_sound() {
        let names: BTreeSet<_> = CASES.iter().map(Case::full_name).collect();
        assert_eq!(names.len(), CASES.len(), "a case is listed twice");
        for case in CASES {
            let subjects: BTreeSet<_> = case.entrants.iter().map(|entrant| entrant.subject.name).collect();
            assert_eq!(subjects.len(), case.entrants.len(), "{}: a subject is listed twice", case.full_name());
            assert_eq!(case.entrants[0].subject.name, OURS.name, "{}: ours comes first", case.full_name());
            assert!(case.entrants.iter().all(|entrant| 0 < entrant.quick_jobs && entrant.quick_jobs <= entrant.jobs));
        }
    }

    #[test]
    fn filters_name_groups_or_cases() {
        let case = &CASES[0];
        assert!(case.is_meant_by("pool") && case.is_meant_by("pool/tiny_oneway"));
        assert!(!case.is_meant_by("tiny_oneway") && !case.is_meant_by("poo"));
    }

    #[test]
    fn the_sum_of_the_tiny_jobs() {
        assert_eq!((CASES[0].checksum)(4), 1 + 2 + 3 + 4);
    }

    #[test]
    fn advantage_is_above_one_when_ours_is_ahead() {
        assert_eq!(Better::Higher.advantage(300.0, 100.0), 3.0);
        assert_eq!(Better::Lower.advantage(300.0, 100.0), 1.0 / 3.0);
    }
}
