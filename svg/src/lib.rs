//! Small SVG documents: elements, escaped text, a value axis.
//!
//! A document has no scripts, fonts or other external parts, so it can be mailed and opened
//! anywhere. Positions are in pixels from the upper left corner.

mod axis;
mod document;

pub use axis::{ValueAxis, plain};
pub use document::{SvgDocument, SvgElement, TextAnchor, rounded};
