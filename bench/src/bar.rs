//! Bars: what a ratio is held to.

use serde::Serialize;

/// What a figure is held to.
#[derive(Serialize, Clone, Copy, PartialEq, Debug)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Threshold {
    /// This much or more.
    AtLeast(f64),
    /// This much or less.
    AtMost(f64),
    /// More than this.
    Above(f64),
}

impl Threshold {
    /// Whether a figure reaches it.
    pub(crate) fn holds(self, value: f64) -> bool {
        match self {
            Threshold::AtLeast(bar) => value >= bar,
            Threshold::AtMost(bar) => value <= bar,
            Threshold::Above(bar) => value > bar,
        }
    }

    /// As a table shows it.
    pub(crate) fn text(self) -> String {
        match self {
            Threshold::AtLeast(bar) => format!("≥ {bar}"),
            Threshold::AtMost(bar) => format!("≤ {bar}"),
            Threshold::Above(bar) => format!("> {bar}"),
        }
    }
}
