//! Decisions about files: [`file_layout`] maps a piece to extents of files, [`io_steps`] an extent
//! to aligned reads and writes; [`opening`] and [`destination`] are the life of a destination.

pub(crate) mod destination;
pub(crate) mod file_layout;
pub(crate) mod io_steps;
pub(crate) mod opening;
pub(crate) mod writer;
