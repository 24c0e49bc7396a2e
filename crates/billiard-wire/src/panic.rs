//! A panic, flattened so that it can cross a process.

use std::{any::Any, fmt};

use crate::text::{MAX_BACKTRACE, MAX_MESSAGE, capped};

/// A panic in another process: its message, where it was, and the backtrace if one was asked for.
///
/// All text is limited in size. A backtrace is there when the process that panicked ran with
/// `RUST_BACKTRACE=1`, as for any Rust program; a child has its parent's environment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "codec", derive(serde::Serialize, serde::Deserialize))]
pub struct Panic {
    message: String,
    location: Option<String>,
    backtrace: Option<String>,
}

impl Panic {
    /// A panic with `message`, at `location` (`file:line:column`) if it is known.
    #[must_use]
    pub fn new(message: String, location: Option<String>, backtrace: Option<String>) -> Self {
        Self {
            message: capped(message, MAX_MESSAGE),
            location: location.map(|text| capped(text, MAX_MESSAGE)),
            backtrace: backtrace.map(|text| capped(text, MAX_BACKTRACE)),
        }
    }

    /// The text in a panic's payload: what `panic!` was given, where it was text.
    #[must_use]
    pub fn message_of(payload: &(dyn Any + Send)) -> String {
        match (payload.downcast_ref::<&'static str>(), payload.downcast_ref::<String>()) {
            (Some(text), _) => (*text).to_owned(),
            (_, Some(text)) => text.clone(),
            _ => "a panic whose payload is no text".to_owned(),
        }
    }

    /// What `panic!` was given.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Where it was: `file:line:column`.
    #[must_use]
    pub fn location(&self) -> Option<&str> {
        self.location.as_deref()
    }

    /// The backtrace, if the process took one.
    #[must_use]
    pub fn backtrace(&self) -> Option<&str> {
        self.backtrace.as_deref()
    }
}

/// One line; `{:#}` adds the backtrace.
impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.location {
            Some(location) => write!(f, "panicked at {location}: {}", self.message)?,
            None => write!(f, "panicked: {}", self.message)?,
        }
        match &self.backtrace {
            Some(backtrace) if f.alternate() => write!(f, "\nbacktrace in the process that panicked:\n{backtrace}"),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for Panic {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_where_and_what() {
        let panic = Panic::new("out of cheese".into(), Some("src/shop.rs:3:9".into()), Some("0: main".into()));
        assert_eq!(panic.to_string(), "panicked at src/shop.rs:3:9: out of cheese");
        assert!(format!("{panic:#}").ends_with("0: main"));
    }

    #[test]
    fn payloads_that_are_text_are_kept() {
        assert_eq!(Panic::message_of(&"static"), "static");
        assert_eq!(Panic::message_of(&String::from("formatted")), "formatted");
        assert!(Panic::message_of(&7u8).contains("no text"));
    }

    #[test]
    fn a_huge_message_is_cut() {
        let panic = Panic::new("x".repeat(1 << 20), None, Some("y".repeat(1 << 20)));
        assert_eq!(panic.message().len(), MAX_MESSAGE);
        assert_eq!(panic.backtrace().map(str::len), Some(MAX_BACKTRACE));
    }
}
