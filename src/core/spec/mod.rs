//! Specification files (Figure 2 of the CEP paper): text and hostlists to typed rows, and back.
//!
//! [`Spec::parse`] checks single lines. [`Spec::validate`] checks the rows together, also those of
//! a specification built in code. Both only look at text: no host is resolved and no file is
//! opened.

mod address;
mod escapes;
pub(crate) mod hostlist;
mod limits;
mod parse;
mod print;
mod root_name;
mod rows;
mod text;
mod uri;
mod validate;

pub(crate) use hostlist::HOST_BYTES_MAX;
pub(crate) use limits::ID_BYTES_MAX;
pub(crate) use root_name::RootName;
pub use rows::{DataUri, NodeAddress, PairRate, Row, RowRole, Spec, StoreRate};
pub(crate) use validate::{NODE_ROWS_MAX, NODE_URIS_BYTES_MAX, URI_BYTES_MAX};
