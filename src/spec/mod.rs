//! Specification files (Figure 2 of the CEP paper): text and hostlists to typed rows, and back.

mod rows;

pub use rows::{Address, DataUri, Role, Row, Spec};
