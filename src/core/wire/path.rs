//! Data path of payload through the kernel, as a number on the wire.

use super::WireError;
use crate::core::options::DataPath;

impl DataPath {
    /// Returns the path with this number on the wire.
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
