//! Data path of payload through the kernel, as set by the user.

use super::WireError;

/// Data path of payload through a node's kernel. A path that a source or a machine does not support
/// is replaced by the next best one, and the report says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum DataPath {
    /// The fastest path by measurement.
    #[default]
    Auto = 0,
    /// Reads and writes that bypass the page cache (`O_DIRECT`) into registered buffers, and plain
    /// sends.
    Direct = 1,
    /// From the page cache to the socket without a copy (`sendfile`); uncached data goes through
    /// buffers.
    Splice = 2,
    /// Buffers, and sends without a copy where the device supports them.
    Zerocopy = 3,
    /// Plain reads and writes through the page cache.
    Copy = 4,
}

impl DataPath {
    /// Returns the path with this number.
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
