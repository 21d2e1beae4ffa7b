//! Bars: what a ratio is held to.

use serde::Serialize;

/// What a figure is held to.
#[derive(Serialize, Clone, Copy, PartialEq, Debug)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bar {
    /// This much or more.
    AtLeast(f64),
    /// This much or less.
    AtMost(f64),
    /// More than this.
    Above(f64),
}

impl Bar {
    /// Whether a figure reaches it.
    pub(crate) fn holds(self, value: f64) -> bool {
        match self {
            Bar::AtLeast(bar) => value >= bar,
            Bar::AtMost(bar) => value <= bar,
            Bar::Above(bar) => value > bar,
        }
    }

    /// As a table shows it.
    pub(crate) fn text(self) -> String {
        match self {
            Bar::AtLeast(bar) => format!("≥ {bar}"),
            Bar::AtMost(bar) => format!("≤ {bar}"),
            Bar::Above(bar) => format!("> {bar}"),
        }
    }
}
