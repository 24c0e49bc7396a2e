//! The frame of a subject: it reads what is asked, runs one case, and prints one line.
//!
//! `PROGRAM CASE --workers 2 --window 1024 --jobs 100000` prints
//! `{"case":"…","value":…,"unit":"…","checksum":…,"version":"…"}`: the sample in its unit, and what the results of the
//! jobs add up to. The peers in `benches/peers` are built with this very file, so that the work is equal.

use std::{
    collections::{BTreeMap, VecDeque},
    env,
    error::Error,
    process::ExitCode,
    time::Instant,
};

/// How many jobs go first, unmeasured.
const WARM_UP: u64 = 1_000;

/// What a subject is asked: a case, and its options by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The case, without its group.
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
    /// What the results of the jobs add up to.
    pub checksum: u64,
}

impl Request {
    /// Reads a command line, the program's name left out.
    ///
    /// # Errors
    ///
    /// Says what is wrong with it.
    pub fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let case = arguments.next().ok_or("which case?")?;
        let mut options = BTreeMap::new();
        while let Some(argument) = arguments.next() {
            let name = argument.strip_prefix("--").ok_or_else(|| format!("{argument}: not an option"))?;
            let value = arguments.next().ok_or_else(|| format!("--{name}: which value?"))?;
            let value = value.parse().map_err(|why| format!("--{name} {value}: {why}"))?;
            options.insert(name.to_owned(), value);
        }
        Ok(Self { case, options })
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

/// The `main` of a subject, behind whatever its library wants to come first: answers the request on the command line.
pub fn answer(version: &str, run: impl FnOnce(&Request) -> Result<Answer, Box<dyn Error>>) -> ExitCode {
    let request = match Request::parse(env::args().skip(1)) {
        Ok(request) => request,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::from(2);
        }
    };
    match run(&request) {
        Ok(answer) => {
            println!("{}", answer.line(&request.case, version));
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("{}: {why}", request.case);
            ExitCode::FAILURE
        }
    }
}

impl Answer {
    /// The line that is printed. The texts are names and versions: nothing in them needs escaping.
    fn line(&self, case: &str, version: &str) -> String {
        let Self { value, unit, checksum } = self;
        format!(r#"{{"case":"{case}","value":{value},"unit":"{unit}","checksum":{checksum},"version":"{version}"}}"#)
    }
}

/// The error of a subject that is asked for a case which it does not have.
#[must_use]
pub fn unknown_case() -> Box<dyn Error> {
    "no such case".into()
}

/// Jobs per second: warms up, then times `--jobs` of them. `run` takes a number of jobs and gives the sum of their
/// results.
///
/// # Errors
///
/// What `run` returns, and a missing option.
pub fn throughput<E: Into<Box<dyn Error>>>(
    request: &Request,
    mut run: impl FnMut(u64) -> Result<u64, E>,
) -> Result<Answer, Box<dyn Error>> {
    let jobs: u64 = request.option("jobs")?;
    run(WARM_UP).map_err(Into::into)?;
    let begun = Instant::now();
    let checksum = run(jobs).map_err(Into::into)?;
    Ok(Answer { value: jobs as f64 / begun.elapsed().as_secs_f64(), unit: "jobs/s", checksum })
}

/// Submits the jobs `0..jobs`, at most `window` of them in flight: once it is full, the oldest is awaited before the
/// next is submitted. Gives the sum of the results.
///
/// # Errors
///
/// The first of `submit` or `wait`.
pub fn windowed<H, E>(
    jobs: u64,
    window: usize,
    mut submit: impl FnMut(u64) -> Result<H, E>,
    mut wait: impl FnMut(H) -> Result<u64, E>,
) -> Result<u64, E> {
    let mut in_flight = VecDeque::with_capacity(window);
    let mut sum = 0_u64;
    for job in 0..jobs {
        if in_flight.len() >= window
            && let Some(oldest) = in_flight.pop_front()
        {
            sum = sum.wrapping_add(wait(oldest)?);
        }
        in_flight.push_back(submit(job)?);
    }
    for handle in in_flight {
        sum = sum.wrapping_add(wait(handle)?);
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Parses a command line.
    fn parse(line: &str) -> Result<Request, String> {
        Request::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn requests_are_a_case_and_numbers() {
        let request = parse("tiny_oneway --workers 2 --jobs 300").unwrap();
        assert_eq!(request.case, "tiny_oneway");
        assert_eq!((request.option("workers"), request.option("jobs")), (Ok(2_usize), Ok(300_u64)));
        assert_eq!(request.option::<u64>("window"), Err("--window is needed".into()));
        assert_eq!(request.option::<u8>("jobs"), Err("--jobs 300: out of range".into()));
        for line in ["", "case jobs", "case --jobs", "case --jobs many"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn answers_are_one_line() {
        let answer = Answer { value: 2.5, unit: "jobs/s", checksum: 7 };
        let expected = r#"{"case":"c","value":2.5,"unit":"jobs/s","checksum":7,"version":"1.0"}"#;
        assert_eq!(answer.line("c", "1.0"), expected);
    }

    #[test]
    fn the_window_is_kept_and_the_oldest_awaited() {
        let (in_flight, most, next) = (Cell::new(0), Cell::new(0), Cell::new(0));
        let submit = |job: u64| {
            in_flight.set(in_flight.get() + 1);
            most.set(in_flight.get().max(most.get()));
            Ok::<_, ()>(job)
        };
        let wait = |job: u64| {
            assert_eq!(job, next.replace(job + 1));
            in_flight.set(in_flight.get() - 1);
            Ok(job + 1)
        };
        assert_eq!(windowed(100, 8, submit, wait), Ok(5050));
        assert_eq!((most.get(), in_flight.get()), (8, 0));
    }

    #[test]
    fn the_warm_up_does_not_count() {
        let request = parse("case --jobs 5000").unwrap();
        let mut runs = Vec::new();
        let run = |jobs| {
            runs.push(jobs);
            Ok::<_, String>(jobs)
        };
        assert_eq!(throughput(&request, run).unwrap().checksum, 5000);
        assert_eq!(runs, [WARM_UP, 5000]);
    }
}
