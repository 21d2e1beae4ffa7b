//! Which way the payload takes through the kernel, as the user asks for it.

use super::WireError;

/// Which way bytes take through the kernel of a node. A way that a source or a machine cannot take
/// is left for the next best one, and the report says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum DataPath {
    /// What was measured to be the fastest.
    #[default]
    Auto = 0,
    /// Past the page cache (`O_DIRECT`) into registered buffers, and plain sends.
    Direct = 1,
    /// From the page cache to the socket without a copy (`sendfile`); what is not cached goes
    /// through buffers.
    Splice = 2,
    /// Buffers, and sends that do not copy them where the device can do without.
    Zerocopy = 3,
    /// Plain reads and writes through the page cache.
    Copy = 4,
}

impl DataPath {
    /// The path with this number.
    pub(crate) fn of(number: u32) -> Result<DataPath, WireError> {
        match number {
            0 => Ok(DataPath::Auto),
            1 => Ok(DataPath::Direct),
            2 => Ok(DataPath::Splice),
            3 => Ok(DataPath::Zerocopy),
            4 => Ok(DataPath::Copy),
            _ => Err(WireError::Unknown { field: "the data path", value: number.into() }),
        }
    }
}
