//! Which CPUs and memory belong to which NIC, and pinning to them.
//!
//! A NIC hangs on one socket of the machine; a thread that serves it from another one pays for every byte. This crate
//! reads what the kernel says about it in sysfs, and knows nothing of the project.
//!
//! ```
//! let sysfs = affinity::Sysfs::at("/sys");
//! for nic in affinity::nics(&sysfs)? {
//!     println!("{}: {:?} Mbit/s, near CPUs {:?}", nic.name, nic.speed_mbit, nic.cpus);
//! }
//! # Ok::<(), std::io::Error>(())
//! ```

mod cpus;
mod nics;
mod sysfs;

pub use cpus::{PinError, cpus_allowed, pin};
pub use nics::{NicAddress, nics};
pub use sysfs::{Nic, Sysfs};
