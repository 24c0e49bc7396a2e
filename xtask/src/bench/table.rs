//! Tables of text: aligned for a terminal, or in Markdown.

use std::fmt::Write as _;

/// To which side the cells of a column lean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    /// Words.
    Left,
    /// Figures.
    Right,
}

/// The table with aligned columns, two spaces apart.
pub(super) fn plain<const N: usize>(columns: &[(&str, Align); N], rows: &[[String; N]]) -> String {
    let headings = columns.map(|(heading, _)| heading.to_owned());
    let lines: Vec<_> = [&headings].into_iter().chain(rows).collect();
    let widths: [usize; N] =
        std::array::from_fn(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default());
    let mut text = String::new();
    for line in lines {
        let cells: [String; N] = std::array::from_fn(|column| {
            let (cell, width) = (&line[column], widths[column]);
            match columns[column].1 {
                Align::Left => format!("{cell:<width$}"),
                Align::Right => format!("{cell:>width$}"),
            }
        });
        let _ = writeln!(text, "{}", cells.join("  ").trim_end()); // a String takes all
    }
    text
}

/// The table in Markdown.
pub(super) fn markdown<const N: usize>(columns: &[(&str, Align); N], rows: &[[String; N]]) -> String {
    let headings = columns.map(|(heading, _)| heading.to_owned());
    let rules = columns.map(|(_, align)| match align {
        Align::Left => "---".to_owned(),
        Align::Right => "---:".to_owned(),
    });
    let mut text = String::new();
    for line in [&headings, &rules].into_iter().chain(rows) {
        let _ = writeln!(text, "| {} |", line.join(" | "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [(&str, Align); 2] = [("who", Align::Left), ("n", Align::Right)];

    /// Two rows.
    fn rows() -> [[String; 2]; 2] {
        [["a".into(), "1,000".into()], ["longer".into(), "–".into()]]
    }

    #[test]
    fn columns_are_aligned() {
        assert_eq!(plain(&COLUMNS, &rows()), "who         n\na       1,000\nlonger      –\n");
    }

    #[test]
    fn markdown_rules_carry_the_alignment() {
        assert_eq!(markdown(&COLUMNS, &rows()), "| who | n |\n| --- | ---: |\n| a | 1,000 |\n| longer | – |\n");
    }
}
