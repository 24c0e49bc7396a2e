//! Limits on text that crosses a process: a failure must never cost more than the work did.

/// The longest message or location that is carried, in bytes.
pub(crate) const MAX_MESSAGE: usize = 16 << 10;
/// The longest backtrace that is carried, in bytes.
pub(crate) const MAX_BACKTRACE: usize = 64 << 10;

const MARK: &str = " [truncated]";

/// `text` itself, or its beginning with a mark, so that it is at most `limit` bytes long.
pub(crate) fn capped(mut text: String, limit: usize) -> String {
    if text.len() > limit {
        text.truncate(text.floor_char_boundary(limit - MARK.len()));
        text.push_str(MARK);
        text.shrink_to_fit();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_text_stays_as_it_is() {
        assert_eq!(capped("all of it".into(), 20), "all of it");
    }

    #[test]
    fn long_text_is_cut_at_a_character_and_says_so() {
        let cut = capped("ü".repeat(100), 51);
        assert!(cut.len() <= 51, "{} bytes", cut.len());
        assert!(cut.starts_with("üü") && cut.ends_with(MARK), "{cut}");
    }
}
