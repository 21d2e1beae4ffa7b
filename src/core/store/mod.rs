//! Where bytes lie: [`file_layout`] says which extents of which files a piece is, [`io_steps`]
//! which aligned reads and writes move an extent.

pub(crate) mod file_layout;
pub(crate) mod io_steps;
