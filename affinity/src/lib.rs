//! CPUs and memory near each NIC, and pinning to them.
//!
//! A NIC is attached to one socket of the machine. A thread that serves it from another socket pays
//! for every byte. This crate reads the kernel's information from sysfs, asks hwloc if the kernel
//! does not know (feature `hwloc`), and assigns a CPU to each thread. It knows nothing of the
//! project.
//!
//! ```
//! let sysfs = affinity::SysfsTree::at("/sys");
//! for nic in affinity::nics(&sysfs)? {
//!     println!("{}: {:?} Mbit/s, near CPUs {:?}", nic.name, nic.speed_mbit, nic.cpus);
//! }
//! # Ok::<(), std::io::Error>(())
//! ```

mod claims;
mod cpus;
#[cfg(feature = "hwloc")]
mod hwloc;
mod listed;
mod memory;
mod nic_info;
mod nics;
mod placement;
mod sysfs;

pub use claims::{CLAIMS_FILE, CpuClaim, CpuClaims};
pub use cpus::{PinError, cpus_allowed, parse_cpus, pin};
#[cfg(feature = "hwloc")]
pub use hwloc::{HwlocTopology, NicPlace};
pub use memory::{prefer_node, share_arenas};
pub use nic_info::{NicAddress, NicInfo};
pub use nics::{addresses, netlink_obstacle, nics};
pub use placement::{FreeCores, NicRequest, PinningPolicy, place};
pub use sysfs::SysfsTree;
