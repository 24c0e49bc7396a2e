//! The few statistics of a benchmark: medians and quartiles, since a noisy neighbour moves a mean but hardly these.

/// The median and the quartiles of some samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Summary {
    /// A quarter lies below it.
    pub(crate) lower_quartile: f64,
    /// Half lies below it.
    pub(crate) median: f64,
    /// A quarter lies above it.
    pub(crate) upper_quartile: f64,
}

impl Summary {
    /// The summary of at least one sample.
    pub(crate) fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        Some(Self {
            lower_quartile: quantile(&sorted, 0.25)?,
            median: quantile(&sorted, 0.5)?,
            upper_quartile: quantile(&sorted, 0.75)?,
        })
    }
}

/// The median of at least one sample.
pub(crate) fn median(samples: &[f64]) -> Option<f64> {
    Summary::of(samples).map(|summary| summary.median)
}

/// The value below which a `share` of the sorted samples lies, between two of them in proportion.
fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let place = share * sorted.len().checked_sub(1)? as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    Some(below + (above - below) * place.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_quartiles() {
        let nine = [9.0, 1.0, 8.0, 2.0, 7.0, 3.0, 6.0, 4.0, 5.0];
        let expected = Summary { lower_quartile: 3.0, median: 5.0, upper_quartile: 7.0 };
        assert_eq!(Summary::of(&nine), Some(expected));

        let two = Summary { lower_quartile: 12.5, median: 15.0, upper_quartile: 17.5 };
        assert_eq!(Summary::of(&[20.0, 10.0]), Some(two));

        let one = Summary { lower_quartile: 4.0, median: 4.0, upper_quartile: 4.0 };
        assert_eq!(Summary::of(&[4.0]), Some(one));
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn one_wild_sample_does_not_move_the_median() {
        assert_eq!(median(&[10.0, 11.0, 1e9]), Some(11.0));
        assert_eq!(median(&[]), None);
    }
}
