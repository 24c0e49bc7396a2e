//! The frame of a program with subjects: it reads what is asked, runs one case of one subject, and prints one line.
//!
//! `PROGRAM SUBJECT GROUP/CASE --workers 2 --count 100000` prints
//! `{"subject":"…","case":"…","value":…,"unit":"…","checksum":…,"version":"…"}`: the sample in its unit, and what the
//! results add up to. The peers in `benches/peers` are built with this very file, so that the work is equal. How a
//! sample is taken is the business of `timing`.

use std::{collections::BTreeMap, env, error::Error, process::ExitCode};

/// One that is measured, and how.
#[derive(Debug, Clone, Copy)]
pub struct Subject {
    /// As it is asked for.
    pub name: &'static str,
    /// Of the library under test; empty where the system or the compiler is what is measured.
    pub version: &'static str,
    /// Runs a case.
    pub run: Run,
}

/// What runs a case. The error of one that does not have it is [`unknown_case`].
pub type Run = fn(&Request) -> Result<Answer, Box<dyn Error>>;

/// What a program is asked: a subject, a case, and its options by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Who is meant.
    pub subject: String,
    /// The case, with its group.
    pub case: String,
    /// The options without their dashes.
    options: BTreeMap<String, u64>,
}

/// What a subject answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The sample.
    pub value: f64,
    /// What the sample counts.
    pub unit: &'static str,
    /// What the results add up to.
    pub checksum: u64,
}

impl Request {
    /// Reads a command line, the program's name left out.
    ///
    /// # Errors
    ///
    /// Says what is wrong with it.
    pub fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let subject = arguments.next().ok_or("which subject?")?;
        let case = arguments.next().ok_or("which case?")?;
        let mut options = BTreeMap::new();
        while let Some(argument) = arguments.next() {
            let name = argument.strip_prefix("--").ok_or_else(|| format!("{argument}: not an option"))?;
            let value = arguments.next().ok_or_else(|| format!("--{name}: which value?"))?;
            let value = value.parse().map_err(|why| format!("--{name} {value}: {why}"))?;
            options.insert(name.to_owned(), value);
        }
        Ok(Self { subject, case, options })
    }

    /// The value of an option that the case needs.
    ///
    /// # Errors
    ///
    /// Names the option if it was not given, or if its value does not fit.
    pub fn option<T: TryFrom<u64>>(&self, name: &str) -> Result<T, String> {
        let value = *self.options.get(name).ok_or_else(|| format!("--{name} is needed"))?;
        T::try_from(value).map_err(|_| format!("--{name} {value}: out of range"))
    }
}

/// The `main` of a program with these subjects, behind whatever its library wants to come first: answers the request
/// on the command line.
#[must_use]
pub fn answer(subjects: &[Subject]) -> ExitCode {
    let request = match Request::parse(env::args().skip(1)) {
        Ok(request) => request,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::from(2);
        }
    };
    match line(&request, subjects) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("{}: {why}", request.case);
            ExitCode::FAILURE
        }
    }
}

/// The line that answers the request. The texts in it are names and versions: nothing needs escaping.
fn line(request: &Request, subjects: &[Subject]) -> Result<String, Box<dyn Error>> {
    let Request { subject: asked, case, .. } = request;
    let subject = subjects.iter().find(|subject| subject.name == asked);
    let Subject { name, version, run } = subject.ok_or_else(|| format!("no subject {asked} here"))?;
    let Answer { value, unit, checksum } = run(request)?;
    Ok(format!(
        r#"{{"subject":"{name}","case":"{case}","value":{value},"unit":"{unit}","checksum":{checksum},"version":"{version}"}}"#
    ))
}

/// The version of a dependency in the text of a lock file; empty if it is not there.
#[must_use]
pub fn version_in(lock_file: &'static str, dependency: &str) -> &'static str {
    // Of a dependency of which there are several versions, the packages of this folder, which have no source, say which is theirs.
    let own = lock_file.split("[[package]]").filter(|package| !package.contains("\nsource = "));
    let named = own.filter_map(|package| Some(package.split_once(&format!("\"{dependency} "))?.1)).next();
    let head = format!("name = \"{dependency}\"\nversion = \"");
    let tail = named.or_else(|| Some(lock_file.split_once(&head)?.1)).unwrap_or_default();
    tail.split('"').next().unwrap_or_default()
}

/// The error of a subject that is asked for a case which it does not have.
#[must_use]
pub fn unknown_case() -> Box<dyn Error> {
    "no such case".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses a command line.
    fn parse(line: &str) -> Result<Request, String> {
        Request::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn the_version_is_that_of_the_package_that_was_built() {
        const LOCK: &str = r#"
[[package]]
name = "ours"
version = "0.1.0"
dependencies = [
 "once",
 "twice 0.2.0",
]

[[package]]
name = "once"
version = "3.0.0"
source = "registry"
dependencies = [
 "twice 0.1.0",
]

[[package]]
name = "twice"
version = "0.1.0"
source = "registry"

[[package]]
name = "twice"
version = "0.2.0"
source = "registry"
"#;
        assert_eq!(["once", "twice", "none"].map(|name| version_in(LOCK, name)), ["3.0.0", "0.2.0", ""]);
    }

    #[test]
    fn requests_are_a_subject_a_case_and_numbers() {
        let request = parse("std pool/tiny_oneway --workers 2 --count 300").unwrap();
        assert_eq!((request.subject.as_str(), request.case.as_str()), ("std", "pool/tiny_oneway"));
        assert_eq!((request.option("workers"), request.option("count")), (Ok(2_usize), Ok(300_u64)));
        assert_eq!(request.option::<u64>("window"), Err("--window is needed".into()));
        assert_eq!(request.option::<u8>("count"), Err("--count 300: out of range".into()));
        for line in ["", "std", "std a/b count", "std a/b --count", "std a/b --count many"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn versions_are_read_from_a_lock_file() {
        let text =
            "[[package]]\nname = \"a-b\"\nversion = \"1.2.3\"\n\n[[package]]\nname = \"b\"\nversion = \"4.0.0\"\n";
        assert_eq!((version_in(text, "a-b"), version_in(text, "b"), version_in(text, "a")), ("1.2.3", "4.0.0", ""));
    }

    #[test]
    fn the_subject_that_was_asked_answers_in_one_line() {
        let good: Run = |_| Ok(Answer { value: 2.5, unit: "jobs/s", checksum: 7 });
        let subjects = [
            Subject { name: "none", version: "", run: |_| Err(unknown_case()) },
            Subject { name: "a", version: "1.0", run: good },
        ];
        let expected = r#"{"subject":"a","case":"g/c","value":2.5,"unit":"jobs/s","checksum":7,"version":"1.0"}"#;
        assert_eq!(line(&parse("a g/c").unwrap(), &subjects).unwrap(), expected);
        assert_eq!(line(&parse("none g/c").unwrap(), &subjects).unwrap_err().to_string(), "no such case");
        assert_eq!(line(&parse("b g/c").unwrap(), &subjects).unwrap_err().to_string(), "no subject b here");
    }
}
