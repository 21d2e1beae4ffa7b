//! Thresholds of ratios.

use serde::Serialize;

/// Threshold of a figure.
#[derive(Serialize, Clone, Copy, PartialEq, Debug)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Threshold {
    /// This value or more.
    AtLeast(f64),
    /// This value or less.
    AtMost(f64),
    /// More than this.
    Above(f64),
}

impl Threshold {
    /// Returns true if a figure meets the threshold.
    pub(crate) fn holds(self, value: f64) -> bool {
        match self {
            Threshold::AtLeast(bar) => value >= bar,
            Threshold::AtMost(bar) => value <= bar,
            Threshold::Above(bar) => value > bar,
        }
    }

    /// Returns the text for a table.
    pub(crate) fn text(self) -> String {
        match self {
            Threshold::AtLeast(bar) => format!("≥ {bar}"),
            Threshold::AtMost(bar) => format!("≤ {bar}"),
            Threshold::Above(bar) => format!("> {bar}"),
        }
    }
}
