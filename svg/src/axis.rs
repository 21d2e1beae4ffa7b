//! A value axis: round numbers from zero up, with lines across the chart.

use crate::document::{SvgDocument, SvgElement, TextAnchor};

/// Values from zero up on vertical positions.
#[derive(Clone, Copy, Debug)]
pub struct ValueAxis {
    /// Position of zero, and of the uppermost line of the grid.
    bottom: f64,
    top: f64,
    /// Distance between two lines of the grid, and the number of lines above zero.
    tick: f64,
    ticks: u32,
}

impl ValueAxis {
    /// Creates an axis for values up to `most`, with at most `ticks_max` lines of round numbers
    /// above zero.
    #[must_use]
    pub fn new(most: f64, ticks_max: u32, (bottom, top): (f64, f64)) -> ValueAxis {
        let tick = round_up(most / f64::from(ticks_max));
        // The steps of `round_up` forgive as much.
        let ticks = (most / tick / FORGIVEN).ceil().clamp(1.0, f64::from(ticks_max));
        ValueAxis { bottom, top, tick, ticks: ticks as u32 }
    }

    /// Returns the position of a value.
    #[must_use]
    pub fn y(&self, value: f64) -> f64 {
        self.bottom - (self.bottom - self.top) * value / (self.tick * f64::from(self.ticks))
    }

    /// Draws the lines of the grid, with their values to the left of them.
    pub fn draw(&self, document: &mut SvgDocument, (left, right): (f64, f64)) {
        for tick in 0..=self.ticks {
            let value = self.tick * f64::from(tick);
            let (y, stroke) = (self.y(value), if tick == 0 { "#444" } else { "#ddd" });
            document.push(SvgElement::line((left, y), (right, y), stroke));
            let label = plain(value);
            document.push(SvgElement::text((left - 8.0, y + 4.5), TextAnchor::End, &label));
        }
    }
}

/// Formats a number with three significant digits, or all before the point, and without trailing
/// zeros.
#[must_use]
pub fn plain(value: f64) -> String {
    let digits_before = if value == 0.0 { 0.0 } else { value.abs().log10().floor() };
    let decimals = (2.0 - digits_before).clamp(0.0, 9.0) as usize;
    let text = format!("{value:.decimals$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// Returns the next of 1, 2, 2.5, 5 and their powers of ten.
fn round_up(value: f64) -> f64 {
    if value.is_nan() || value <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0, 10.0].map(|step| step * power);
    steps.into_iter().find(|step| *step * FORGIVEN >= value).unwrap_or(10.0 * power)
}

/// Values up to half a millionth above a step count as the step: the power of ten is not exact.
const FORGIVEN: f64 = 1.000_000_5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round_numbers() {
        for (value, round) in
            [(0.19, "0.2"), (2.8, "5"), (2.1, "2.5"), (1.0, "1"), (70.0, "100"), (0.0, "1")]
        {
            assert_eq!(plain(round_up(value)), round, "{value}");
        }
    }

    #[test]
    fn numbers_have_three_digits_and_no_idle_zeros() {
        for (value, text) in [
            (0.0, "0"),
            (0.025, "0.025"),
            (0.001_25, "0.00125"),
            (1.234_5, "1.23"),
            (17.50, "17.5"),
            (940.4, "940"),
            (120_000.0, "120000"),
        ] {
            assert_eq!(plain(value), text);
        }
    }

    #[test]
    fn the_largest_value_is_on_or_below_the_uppermost_line() {
        for (most, ticks_max, uppermost) in
            [(1.4, 7, 1.4), (19.9, 5, 20.0), (0.0, 5, 1.0), (0.3, 3, 0.3), (101.0, 5, 125.0)]
        {
            let axis = ValueAxis::new(most, ticks_max, (100.0, 10.0));
            assert!((axis.y(uppermost) - 10.0).abs() < 1e-3, "{most}: {axis:?}");
            assert!((axis.y(0.0) - 100.0).abs() < 1e-9 && axis.y(most) > 10.0 - 1e-3);
        }
    }
}
