//! Which CPUs and memory belong to which NIC, and pinning to them.
//!
//! A NIC hangs on one socket of the machine; a thread that serves it from another one pays for
//! every byte. This crate reads what the kernel says about it in sysfs, asks hwloc where the kernel
//! does not know (feature `hwloc`), says which CPU each thread gets, and knows nothing of the
//! project.
//!
//! ```
//! let sysfs = affinity::Sysfs::at("/sys");
//! for nic in affinity::nics(&sysfs)? {
//!     println!("{}: {:?} Mbit/s, near CPUs {:?}", nic.name, nic.speed_mbit, nic.cpus);
//! }
//! # Ok::<(), std::io::Error>(())
//! ```

mod cpus;
#[cfg(feature = "hwloc")]
mod hwloc;
mod listed;
mod memory;
mod nics;
mod placement;
mod sysfs;

pub use cpus::{PinError, cpus_allowed, pin};
#[cfg(feature = "hwloc")]
pub use hwloc::{HwlocTopology, NicPlace};
pub use memory::{prefer_node, share_arenas};
pub use nics::{NicAddress, addresses, netlink_obstacle, nics};
pub use placement::{FreeCores, NicRequest, PinningPolicy, place};
pub use sysfs::{NicInfo, SysfsTree};
