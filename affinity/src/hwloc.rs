//! Position of a NIC as hwloc reports it.
//!
//! Drivers and firmware often do not report the NUMA node of a device. hwloc examines the bridges
//! above it, corrects boards that are known to be wrong, and accepts corrections by an
//! administrator (`HWLOC_PCI_LOCALITY`). It also reads records of other machines: a file in
//! `HWLOC_XMLFILE` replaces the hardware.

use std::path::Path;

use hwlocality::Topology;
use hwlocality::object::TopologyObject;
use hwlocality::object::attributes::ObjectAttributes;
use hwlocality::object::types::OSDeviceType;
use hwlocality::topology::builder::{TopologyBuilder, TypeFilter};

use crate::nic_info::NicInfo;
use crate::sysfs::{SysfsTree, agreed};

/// A machine as hwloc sees it.
///
/// ```
/// if let Some(machine) = affinity::HwlocTopology::load() {
///     for nic in machine.nic_names() {
///         println!("{nic}: {:?}", machine.place(&nic));
///     }
/// }
/// ```
#[derive(Debug)]
pub struct HwlocTopology {
    topology: Topology,
}

/// Position of a NIC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NicPlace {
    /// NUMA node; `None` if several are equally near.
    pub numa_node: Option<u32>,
    /// CPUs near it, ascending.
    pub cpus: Vec<usize>,
}

impl HwlocTopology {
    /// Loads this machine, or the one in `HWLOC_XMLFILE`; `None` if hwloc fails.
    #[must_use]
    pub fn load() -> Option<HwlocTopology> {
        HwlocTopology::build(Topology::builder())
    }

    /// Loads the machine in a file of `lstopo --of xml`; `None` if it is not such a file.
    #[must_use]
    pub fn replay(file: &Path) -> Option<HwlocTopology> {
        // Read here, because the binding panics if a file cannot be opened.
        let text = std::fs::read_to_string(file).ok()?;
        HwlocTopology::build(Topology::builder().from_xml(&text).ok()?)
    }

    fn build(builder: TopologyBuilder) -> Option<HwlocTopology> {
        // Devices are omitted by default.
        let topology = builder.with_io_type_filter(TypeFilter::KeepImportant).ok()?.build().ok()?;
        Some(HwlocTopology { topology })
    }

    /// Returns true for the machine that runs this program, false for a recorded one.
    #[must_use]
    pub fn is_this_machine(&self) -> bool {
        self.topology.is_this_system()
    }

    /// Returns the names of the hardware NICs, sorted.
    #[must_use]
    pub fn nic_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.nics().filter_map(name).map(str::to_owned).collect();
        names.sort_unstable();
        names
    }

    /// Returns the position of a NIC; `None` if there is no such NIC, or only its machine of
    /// several nodes is known.
    #[must_use]
    pub fn place(&self, nic: &str) -> Option<NicPlace> {
        let device = self.nics().find(|device| name(device) == Some(nic))?;
        let home = device.first_non_io_ancestor()?;
        let nodes: Vec<usize> = home.nodeset()?.iter_set().map(usize::from).collect();
        let is_everywhere = home.parent().is_none() && nodes.len() > 1;
        // The complete set includes the CPUs that this process may not use, as in sysfs.
        let cpus = home.complete_cpuset()?.iter_set().map(usize::from).collect();
        let numa_node = match nodes[..] {
            [only] => u32::try_from(only).ok(),
            _ => None,
        };
        (!is_everywhere).then_some(NicPlace { numa_node, cpus })
    }

    /// Fills in the positions of NICs that sysfs does not know. Known ones are unchanged.
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
