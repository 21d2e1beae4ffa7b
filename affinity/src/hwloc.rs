//! What hwloc says of a NIC.
//!
//! Drivers and firmware forget to say on which memory node a device is; hwloc looks at the bridges
//! above it, knows boards that are wrong about themselves, and believes an administrator who
//! corrects them (`HWLOC_PCI_LOCALITY`). It also reads what it wrote down of another machine: a
//! file that `HWLOC_XMLFILE` names stands in for the hardware.

use std::path::Path;

use hwlocality::Topology;
use hwlocality::object::TopologyObject;
use hwlocality::object::attributes::ObjectAttributes;
use hwlocality::object::types::OSDeviceType;
use hwlocality::topology::builder::{TopologyBuilder, TypeFilter};

use crate::sysfs::{NicInfo, SysfsTree, agreed};

/// A machine as hwloc sees it.
///
/// ```
/// if let Some(machine) = affinity::Hwloc::load() {
///     for nic in machine.nic_names() {
///         println!("{nic}: {:?}", machine.place(&nic));
///     }
/// }
/// ```
#[derive(Debug)]
pub struct HwlocTopology {
    topology: Topology,
}

/// Where a NIC is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NicPlace {
    /// The memory node; `None` where several are as near.
    pub numa_node: Option<u32>,
    /// The CPUs near it, ascending.
    pub cpus: Vec<usize>,
}

impl HwlocTopology {
    /// This machine, or the one that `HWLOC_XMLFILE` describes; `None` if hwloc fails.
    #[must_use]
    pub fn load() -> Option<HwlocTopology> {
        HwlocTopology::build(Topology::builder())
    }

    /// The machine that a file of `lstopo --of xml` describes; `None` if it is not such a file.
    #[must_use]
    pub fn replay(file: &Path) -> Option<HwlocTopology> {
        // Read here: the binding panics over a file that cannot be opened.
        let text = std::fs::read_to_string(file).ok()?;
        HwlocTopology::build(Topology::builder().from_xml(&text).ok()?)
    }

    fn build(builder: TopologyBuilder) -> Option<HwlocTopology> {
        // Devices are left out unless they are asked for.
        let topology = builder.with_io_type_filter(TypeFilter::KeepImportant).ok()?.build().ok()?;
        Some(HwlocTopology { topology })
    }

    /// Whether it is the machine that runs this program; a replayed one is not.
    #[must_use]
    pub fn is_this_machine(&self) -> bool {
        self.topology.is_this_system()
    }

    /// The names of the NICs that are hardware, sorted.
    #[must_use]
    pub fn nic_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.nics().filter_map(name).map(str::to_owned).collect();
        names.sort_unstable();
        names
    }

    /// Where a NIC is; `None` if there is no such NIC, or it is known only to be somewhere in a
    /// machine of several nodes.
    #[must_use]
    pub fn place(&self, nic: &str) -> Option<NicPlace> {
        let device = self.nics().find(|device| name(device) == Some(nic))?;
        let home = device.first_non_io_ancestor()?;
        let nodes: Vec<usize> = home.nodeset()?.iter_set().map(usize::from).collect();
        let is_everywhere = home.parent().is_none() && nodes.len() > 1;
        // The complete set has the CPUs that this process may not use, too, as sysfs does.
        let cpus = home.complete_cpuset()?.iter_set().map(usize::from).collect();
        let numa_node = match nodes[..] {
            [only] => u32::try_from(only).ok(),
            _ => None,
        };
        (!is_everywhere).then_some(NicPlace { numa_node, cpus })
    }

    /// Fills in where NICs are that sysfs does not know the place of. What sysfs knows stays.
    pub fn complete(&self, sysfs: &SysfsTree, nics: &mut [NicInfo]) {
        for nic in nics.iter_mut().filter(|nic| nic.cpus.is_empty()) {
            let places = sysfs.carriers(&nic.name).into_iter().map(|carrier| self.place(&carrier));
            if let Some(place) = agreed(places) {
                nic.numa_node = nic.numa_node.or(place.numa_node);
                nic.cpus = place.cpus;
            }
        }
    }

    fn nics(&self) -> impl Iterator<Item = &TopologyObject> {
        let is_nic = |device: &&TopologyObject| match device.attributes() {
            Some(ObjectAttributes::OSDevice(device)) => {
                device.device_type() == OSDeviceType::Network
            }
            _ => false,
        };
        self.topology.os_devices().filter(is_nic)
    }
}

fn name(device: &TopologyObject) -> Option<&str> {
    device.name()?.to_str().ok()
}
