//! The command line of `cargo xtask bench`.

use std::path::PathBuf;

use lexopt::prelude::*;

use super::{
    case::{Case, Entrant},
    cases,
    subject::Kind,
};

/// What `cargo xtask bench --help` prints.
const USAGE: &str = "\
Measures ours beside what would be used instead, on this machine.

Usage: cargo xtask bench [OPTIONS]

Options:
  --quick           three rounds of small runs instead of nine of full ones
  --only NAME…      these groups or cases only (context, pool/tiny_oneway)
  --peers WHICH     beside ours: all, rust (with the system's limits), python or none
                    (default: all)
  --out DIR         where report.json and report.md go (default: bench/ in cargo's target folder)
  --list            name the cases and their subjects, and stop
";

/// What the command line asks for.
#[derive(Debug)]
pub(crate) struct Options {
    /// Fewer and shorter runs.
    pub(crate) quick: bool,
    /// The cases to run.
    pub(crate) cases: Vec<&'static Case>,
    /// Who takes part beside ours.
    pub(crate) peers: Peers,
    /// Where the report goes.
    pub(crate) out: Option<PathBuf>,
    /// Print this and stop.
    pub(crate) print: Option<String>,
}

/// Who takes part beside ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peers {
    /// Everybody.
    All,
    /// The crates, the standard library, the system.
    Rust,
    /// Python's.
    Python,
    /// Nobody.
    None,
}

impl Options {
    /// Reads them.
    pub(crate) fn parse(arguments: &mut lexopt::Parser) -> Result<Self, lexopt::Error> {
        let mut filters = Vec::new();
        let mut options = Self { quick: false, cases: Vec::new(), peers: Peers::All, out: None, print: None };
        while let Some(argument) = arguments.next()? {
            match argument {
                Long("quick") => options.quick = true,
                Long("only") => {
                    for name in arguments.values()? {
                        filters.push(known(name.string()?)?);
                    }
                }
                Long("peers") => options.peers = arguments.value()?.parse_with(Peers::named)?,
                Long("out") => options.out = Some(PathBuf::from(arguments.value()?)),
                Long("list") => options.print = Some(list()),
                Long("help") | Short('h') => options.print = Some(USAGE.to_owned()),
                other => return Err(other.unexpected()),
            }
        }
        let meant = |case: &&Case| filters.is_empty() || filters.iter().any(|filter| case.is_meant_by(filter));
        options.cases = cases::all().filter(meant).collect();
        Ok(options)
    }

    /// How many rounds each case has.
    pub(crate) fn rounds(&self) -> usize {
        if self.quick { 3 } else { 9 }
    }

    /// How much a run of `entrant` does.
    pub(crate) fn count(&self, entrant: &Entrant) -> u64 {
        if self.quick { entrant.quick_count } else { entrant.count }
    }
}

impl Peers {
    /// Those of this name.
    fn named(name: &str) -> Result<Self, &'static str> {
        match name {
            "all" => Ok(Self::All),
            "rust" => Ok(Self::Rust),
            "python" => Ok(Self::Python),
            "none" => Ok(Self::None),
            _ => Err("neither all, rust, python nor none"),
        }
    }

    /// Whether subjects of this kind take part.
    pub(crate) fn include(self, kind: Kind) -> bool {
        match kind {
            Kind::Ours | Kind::Variant => true,
            Kind::Ground | Kind::Crate => matches!(self, Self::All | Self::Rust),
            Kind::PythonStandard | Kind::PythonPackage => matches!(self, Self::All | Self::Python),
        }
    }
}

/// The name, if a group or a case has it.
fn known(name: String) -> Result<String, lexopt::Error> {
    if cases::all().any(|case| case.is_meant_by(&name)) {
        return Ok(name);
    }
    Err(lexopt::Error::from(format!("no group or case `{name}`: `--list` names them")))
}

/// The cases and their subjects.
fn list() -> String {
    let line = |case: &Case| {
        let subjects: Vec<_> = case.entrants.iter().map(|entrant| entrant.subject.name).collect();
        format!("{:<36}{}\n", case.full_name(), subjects.join(", "))
    };
    cases::all().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::cases::pool::CASES;

    /// Parses a command line.
    fn parse(line: &str) -> Result<Options, lexopt::Error> {
        Options::parse(&mut lexopt::Parser::from_args(line.split_whitespace()))
    }

    #[test]
    fn everything_by_default() {
        let options = parse("").unwrap();
        assert_eq!((options.cases.len(), options.peers, options.rounds()), (cases::all().count(), Peers::All, 9));
        assert!(options.out.is_none() && options.print.is_none());
        assert_eq!(options.count(&CASES[0].entrants[0]), CASES[0].entrants[0].count);
    }

    #[test]
    fn every_option_is_understood() {
        let options = parse("--only pool pool/tiny_oneway --quick --peers=rust --out some/where").unwrap();
        assert!(options.cases.iter().all(|case| case.group == "pool"));
        assert_eq!((options.rounds(), options.peers), (3, Peers::Rust));
        assert_eq!(options.out, Some(PathBuf::from("some/where")));
        assert_eq!(options.count(&CASES[0].entrants[0]), CASES[0].entrants[0].quick_count);
        assert!(parse("--list").unwrap().print.unwrap().contains("pool/tiny_oneway"));
    }

    #[test]
    fn wrong_lines_are_refused() {
        for line in
            ["--only", "--only nonsense", "--only tiny_oneway", "--peers", "--peers perl", "--out", "pool", "-q"]
        {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn peers_never_leave_ours_out() {
        let kinds = [Kind::Ours, Kind::Variant, Kind::Ground, Kind::Crate, Kind::PythonStandard, Kind::PythonPackage];
        let taking_part = |peers: Peers| kinds.map(|kind| peers.include(kind));
        assert_eq!(taking_part(Peers::All), [true; 6]);
        assert_eq!(taking_part(Peers::Rust), [true, true, true, true, false, false]);
        assert_eq!(taking_part(Peers::Python), [true, true, false, false, true, true]);
        assert_eq!(taking_part(Peers::None), [true, true, false, false, false, false]);
    }
}
