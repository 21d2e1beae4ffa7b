//! Robust statistics: outliers, up to half of the values, do not move them.

use serde::Serialize;

/// Standard deviations of a normal distribution in one median absolute deviation.
const SIGMAS: f64 = 1.4826;

/// Distribution of some values.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    /// A twentieth of the values is below.
    pub(crate) p5: f64,
    pub(crate) median: f64,
    /// A twentieth of the values is above.
    pub(crate) p95: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Returns the distribution; `None` without values. Values that are no numbers are left out.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let sorted = sorted(values);
        let at = |part: f64| quantile(&sorted, part);
        Some(Spread {
            min: at(0.0)?,
            p5: at(0.05)?,
            median: at(0.5)?,
            p95: at(0.95)?,
            max: at(1.0)?,
        })
    }
}

/// Median, and the deviation around it: what a standard deviation is to a normal distribution.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct RobustCentre {
    pub(crate) median: f64,
    pub(crate) sigma: f64,
}

impl RobustCentre {
    /// Returns both; `None` without values.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<RobustCentre> {
        let values = sorted(values);
        let median = quantile(&values, 0.5)?;
        let deviations = sorted(values.iter().map(|value| (value - median).abs()));
        Some(RobustCentre { median, sigma: SIGMAS * quantile(&deviations, 0.5)? })
    }
}

/// Returns the median; `None` without values.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    quantile(&sorted(values), 0.5)
}

fn sorted(values: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    values
}

/// Returns the value below which a part of sorted values lies, between two of them if need be.
fn quantile(sorted: &[f64], part: f64) -> Option<f64> {
    let place = part * sorted.len().checked_sub(1)? as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    Some(below + (above - below) * place.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_of_few_values() {
        assert_eq!(Spread::of([]), None);
        let spread = Spread::of([4.0, 1.0, f64::NAN, 3.0, 2.0]).expect("there are values");
        assert_eq!((spread.min, spread.median, spread.max), (1.0, 2.5, 4.0));
        assert!((spread.p5 - 1.15).abs() < 1e-9 && (spread.p95 - 3.85).abs() < 1e-9);
        assert_eq!(median([7.0]), Some(7.0));
    }

    #[test]
    fn outliers_move_nothing() {
        let centre = RobustCentre::of([10.0, 11.0, 9.0, 10.0, 0.0]).expect("there are values");
        assert!((centre.median - 10.0).abs() < 1e-9);
        assert!((centre.sigma - SIGMAS).abs() < 1e-9);
    }
}
