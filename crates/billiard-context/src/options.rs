//! The options of a process, and what they come to at its start.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    io::{self, PipeReader, PipeWriter},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::PathBuf,
};

use billiard_wire::Fd;

use crate::{
    Error, Signal,
    limits::{Attributes, Resource, Stdio},
    protocol::{StartMethod, Stream, Surroundings},
    sys,
};

/// What a builder was told.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) name: Option<String>,
    pub(crate) daemon: Option<bool>,
    pub(crate) may_have_children: Option<bool>,
    pub(crate) print_panic: bool,
    pub(crate) index: Option<u32>,
    pub(crate) directory: Option<PathBuf>,
    pub(crate) clear_environment: bool,
    /// What is set, and what removed.
    pub(crate) variables: BTreeMap<OsString, Option<OsString>>,
    pub(crate) streams: [Stdio; 3],
    pub(crate) umask: Option<u32>,
    pub(crate) limits: Vec<(Resource, u64)>,
    pub(crate) niceness: Option<i32>,
    pub(crate) cpus: Option<Vec<u32>>,
    pub(crate) no_new_privileges: bool,
    pub(crate) descriptors: Vec<(i32, OwnedFd)>,
    pub(crate) term_signal: Signal,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: None,
            daemon: None,
            may_have_children: None,
            print_panic: true,
            index: None,
            directory: None,
            clear_environment: false,
            variables: BTreeMap::new(),
            streams: [Stdio::Null, Stdio::Inherit, Stdio::Inherit],
            umask: None,
            limits: Vec::new(),
            niceness: None,
            cpus: None,
            no_new_privileges: false,
            descriptors: Vec::new(),
            term_signal: Signal::TERM,
        }
    }
}

/// This program's ends of the pipes that were asked for.
#[derive(Debug, Default)]
pub(crate) struct Pipes {
    pub(crate) stdin: Option<PipeWriter>,
    pub(crate) stdout: Option<PipeReader>,
    pub(crate) stderr: Option<PipeReader>,
}

/// What a start needs.
pub(crate) struct Resolved {
    pub(crate) surroundings: Surroundings,
    /// `NAME=value`, each ended by a NUL byte. None: as it is, for a copy.
    pub(crate) environment: Option<Vec<u8>>,
    /// None: the umask of the moment of the start.
    pub(crate) umask: Option<u32>,
    pub(crate) limits: Vec<(Resource, u64)>,
    pub(crate) pipes: Pipes,
}

fn impossible(what: impl Into<String>) -> Error {
    Error::Configuration { what: what.into(), source: None }
}

pub(crate) fn refused(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    |source| Error::Configuration { what: what.into(), source: Some(source) }
}

impl Options {
    /// What the child gets and what stays here. What is not asked for a copy of this process has already.
    pub(crate) fn resolve(self, method: StartMethod) -> Result<Resolved, Error> {
        let is_copy = method == StartMethod::Fork;
        let environment = self.environment(is_copy)?;
        let descriptors = numbered(self.descriptors)?;
        if self.cpus.as_ref().is_some_and(Vec::is_empty) {
            return Err(impossible("a process needs at least one CPU to run on"));
        }
        let directory = match &self.directory {
            Some(path) => {
                let folder = sys::folder(path).map_err(refused(format!("the working directory {}", path.display())))?;
                Some(Fd::new(folder))
            }
            None if is_copy => None,
            None => sys::working_directory().map(Fd::new),
        };
        let mut pipes = Pipes::default();
        let [stdin, stdout, stderr] = self.streams;
        let streams = [
            match stdin {
                // A guardian's own, which its children have from it, leads there already.
                Stdio::Null if !is_copy => Stream::Keep,
                Stdio::Pipe => {
                    let (theirs, ours) = pipe()?;
                    pipes.stdin = Some(ours);
                    Stream::To(Fd::new(theirs.into()))
                }
                other => stream(0, other, is_copy),
            },
            output(1, stdout, is_copy, &mut pipes.stdout)?,
            output(2, stderr, is_copy, &mut pipes.stderr)?,
        ];
        let surroundings = Surroundings {
            directory,
            streams,
            attributes: Attributes {
                niceness: self.niceness,
                cpus: self.cpus,
                no_new_privileges: self.no_new_privileges,
                descriptors,
            },
        };
        Ok(Resolved { surroundings, environment, umask: self.umask, limits: self.limits, pipes })
    }

    fn environment(&self, is_copy: bool) -> Result<Option<Vec<u8>>, Error> {
        let is_bad = |text: &OsString| text.as_bytes().contains(&0);
        for (name, value) in &self.variables {
            if name.is_empty() || name.as_bytes().contains(&b'=') || is_bad(name) || value.as_ref().is_some_and(is_bad)
            {
                return Err(impossible(format!("an environment cannot have the variable {name:?} with that value")));
            }
        }
        if is_copy && self.variables.is_empty() && !self.clear_environment {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        let mut add = |name: &OsString, value: &OsString| {
            bytes.extend_from_slice(name.as_bytes());
            bytes.push(b'=');
            bytes.extend_from_slice(value.as_bytes());
            bytes.push(0);
        };
        if !self.clear_environment {
            for (name, value) in std::env::vars_os().filter(|(name, _)| !self.variables.contains_key(name)) {
                add(&name, &value);
            }
        }
        for (name, value) in &self.variables {
            if let Some(value) = value {
                add(name, value);
            }
        }
        Ok(Some(bytes))
    }
}

fn pipe() -> Result<(PipeReader, PipeWriter), Error> {
    io::pipe().map_err(refused("a pipe for a standard stream"))
}

/// Standard output or error. The end of a pipe that stays here goes to `ours`.
fn output(number: usize, stdio: Stdio, is_copy: bool, ours: &mut Option<PipeReader>) -> Result<Stream, Error> {
    match stdio {
        Stdio::Pipe => {
            let (reader, writer) = pipe()?;
            *ours = Some(reader);
            Ok(Stream::To(Fd::new(writer.into())))
        }
        other => Ok(stream(number, other, is_copy)),
    }
}

fn stream(number: usize, stdio: Stdio, is_copy: bool) -> Stream {
    match stdio {
        Stdio::To(fd) => Stream::To(Fd::new(fd)),
        Stdio::Inherit if is_copy => Stream::Keep,
        // One that is closed here is no way to anywhere.
        Stdio::Inherit => sys::stream(number).map_or(Stream::Null, |fd| Stream::To(Fd::new(fd))),
        Stdio::Null | Stdio::Pipe => Stream::Null,
    }
}

fn numbered(descriptors: Vec<(i32, OwnedFd)>) -> Result<Vec<(i32, Fd)>, Error> {
    let mut seen = BTreeSet::new();
    for &(number, _) in &descriptors {
        if number < 3 {
            return Err(impossible(format!(
                "descriptor {number}: the numbers up to 2 are those of the standard streams"
            )));
        }
        if !seen.insert(number) {
            return Err(impossible(format!("descriptor {number} was given twice")));
        }
    }
    Ok(descriptors.into_iter().map(|(number, fd)| (number, Fd::new(fd))).collect())
}
