//! What is measured, a file for each group. A new case is an entry in its group's list and a program that answers to
//! its name: `docs/benchmarks.md` goes through it.

mod context;
pub(super) mod pool;
mod sync;

use super::case::Case;

/// The groups, in the order in which they are run.
static GROUPS: &[&[Case]] = &[sync::CASES, context::CASES, pool::CASES];

/// All cases, in the order in which they are run.
pub(super) fn all() -> impl Iterator<Item = &'static Case> {
    GROUPS.iter().copied().flatten()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::bench::subject::Kind;

    #[test]
    fn the_list_is_sound() {
        let names: BTreeSet<_> = all().map(Case::full_name).collect();
        assert_eq!(names.len(), all().count(), "a case is listed twice");
        for case in all() {
            let name = case.full_name();
            let subjects: BTreeSet<_> = case.entrants.iter().map(|entrant| entrant.subject.name).collect();
            assert_eq!(subjects.len(), case.entrants.len(), "{name}: a subject is listed twice");
            let ours = |place: usize| case.entrants[place].subject.kind == Kind::Ours;
            assert!(ours(0) && !(1..case.entrants.len()).any(ours), "{name}: ours comes first");
            for entrant in case.entrants {
                assert!(0 < entrant.quick_count && entrant.quick_count <= entrant.count, "{name}");
                assert!(entrant.aim.is_none_or(|times| times > 0.0 && entrant.subject.kind != Kind::Ours), "{name}");
            }
        }
    }

    #[test]
    fn a_group_is_listed_in_one_piece() {
        let mut seen = BTreeSet::new();
        for group in GROUPS {
            assert!(group.iter().all(|case| case.group == group[0].group));
            assert!(seen.insert(group[0].group), "{} is listed twice", group[0].group);
        }
    }
}
