//! An error, flattened so that it can cross a process.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    error::Error,
    fmt,
};

use crate::text::{MAX_BACKTRACE, MAX_MESSAGE, capped};

/// The longest chain of causes that is carried.
const MAX_CAUSES: usize = 32;

/// Any error of a task as text: its message, its causes, and the backtrace if one was asked for.
///
/// Every `E: std::error::Error` converts into it, so that `?` works in a task that returns
/// `Result<T, RemoteError>`. For that reason it is not itself an `Error`, but it converts into
/// `Box<dyn Error>`. A backtrace is taken where `RUST_BACKTRACE=1` asks for one.
///
/// ```
/// use billiard_wire::RemoteError;
///
/// fn first_line(path: String) -> Result<String, RemoteError> {
///     let text = std::fs::read_to_string(path)?; // io::Error becomes RemoteError
///     text.lines().next().map(str::to_owned).ok_or_else(|| RemoteError::msg("the file is empty"))
/// }
/// assert!(first_line("/no/such/file".into()).unwrap_err().message().contains("No such file"));
/// ```
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(feature = "codec", derive(serde::Serialize, serde::Deserialize))]
pub struct RemoteError(Box<Text>); // one word, since it is a part of results that are passed on and on

#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(feature = "codec", derive(serde::Serialize, serde::Deserialize))]
struct Text {
    message: String,
    causes: Vec<String>,
    backtrace: Option<String>,
}

impl RemoteError {
    /// An error with a message and no cause.
    #[must_use]
    pub fn msg(message: impl fmt::Display) -> Self {
        let message = capped(message.to_string(), MAX_MESSAGE);
        Self(Box::new(Text { message, causes: Vec::new(), backtrace: backtrace() }))
    }

    /// The error's message.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The messages of its causes, the nearest first.
    pub fn causes(&self) -> impl Iterator<Item = &str> {
        self.0.causes.iter().map(String::as_str)
    }

    /// The backtrace from where the error became a `RemoteError`, if one was taken.
    #[must_use]
    pub fn backtrace(&self) -> Option<&str> {
        self.0.backtrace.as_deref()
    }
}

fn backtrace() -> Option<String> {
    let backtrace = Backtrace::capture();
    (backtrace.status() == BacktraceStatus::Captured).then(|| capped(backtrace.to_string(), MAX_BACKTRACE))
}

impl<E: Error> From<E> for RemoteError {
    fn from(error: E) -> Self {
        let causes = std::iter::successors(error.source(), |&cause| cause.source())
            .take(MAX_CAUSES)
            .map(|cause| capped(cause.to_string(), MAX_MESSAGE / MAX_CAUSES))
            .collect();
        let message = capped(error.to_string(), MAX_MESSAGE);
        Self(Box::new(Text { message, causes, backtrace: backtrace() }))
    }
}

/// The message and its causes in one line.
impl fmt::Display for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        // Many errors repeat their cause in their own message: say nothing twice.
        let mut said = self.0.message.as_str();
        for cause in &self.0.causes {
            if !said.contains(cause.as_str()) {
                write!(f, ": {cause}")?;
            }
            said = cause;
        }
        Ok(())
    }
}

/// The whole of it, since `main` prints an error by its `Debug`.
impl fmt::Debug for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        for cause in &self.0.causes {
            write!(f, "\n  caused by: {cause}")?;
        }
        match &self.0.backtrace {
            Some(backtrace) => write!(f, "\nbacktrace in the process that failed:\n{backtrace}"),
            None => Ok(()),
        }
    }
}

/// `RemoteError` as an [`Error`]; what its conversion into `Box<dyn Error>` holds.
struct AsError(RemoteError);

impl fmt::Display for AsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for AsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for AsError {}

impl From<RemoteError> for Box<dyn Error + Send + Sync> {
    fn from(error: RemoteError) -> Self {
        Box::new(AsError(error))
    }
}

impl From<RemoteError> for Box<dyn Error> {
    fn from(error: RemoteError) -> Self {
        Box::new(AsError(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read the settings")]
    struct Outer(#[source] std::io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("endless")]
    struct Endless;

    #[test]
    fn the_chain_is_kept() {
        let error = RemoteError::from(Outer(std::io::Error::other("disk on fire")));
        assert_eq!(error.message(), "cannot read the settings");
        assert_eq!(error.causes().collect::<Vec<_>>(), ["disk on fire"]);
        assert_eq!(error.to_string(), "cannot read the settings: disk on fire");
        assert!(format!("{error:?}").contains("caused by: disk on fire"));
    }

    #[test]
    fn it_becomes_a_boxed_error() {
        fn fails() -> Result<(), Box<dyn Error>> {
            Err(RemoteError::from(Endless))?
        }
        assert_eq!(fails().unwrap_err().to_string(), "endless");
    }

    #[test]
    fn a_huge_message_is_cut() {
        assert!(RemoteError::msg("x".repeat(1 << 20)).message().len() <= MAX_MESSAGE);
    }
}
