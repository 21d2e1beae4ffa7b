//! NIC information in sysfs.
//!
//! The root is an argument, so that tests can use their own tree. Unknown values are `None`, never
//! a guess: drivers of virtual NICs report no speed, and machines with one NUMA node report node
//! −1. A NIC without hardware (a bond, a VLAN, a bridge) has the position of the NICs below it, if
//! they agree.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::cpus::parse_cpus;
use crate::nic_info::NicInfo;

/// A tree like `/sys`.
#[derive(Clone, Debug)]
pub struct SysfsTree {
    root: PathBuf,
}

impl SysfsTree {
    /// Creates the tree at `root`, `/sys` outside tests. Nothing is read yet.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Returns the names of all interfaces, sorted.
    ///
    /// # Errors
    /// If the tree cannot be read.
    pub fn nic_names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.root.join("class/net"))? {
            let entry = entry?;
            // Besides directories there are files of the bonding driver.
            if entry.path().is_dir() {
                names.extend(entry.file_name().into_string().ok());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Reads one interface.
    ///
    /// # Errors
    /// If there is no such interface, or its MTU cannot be read.
    pub fn nic(&self, name: &str) -> io::Result<NicInfo> {
        let directory = self.nic_directory(name);
        let mtu = fs::read_to_string(directory.join("mtu"))?;
        let mtu = mtu
            .trim()
            .parse()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let devices = self
            .carriers(name)
            .into_iter()
            .map(|carrier| self.numa_node(&self.nic_directory(&carrier).join("device")));
        let numa_node = agreed(devices);
        Ok(NicInfo {
            name: name.to_owned(),
            up: match read(&directory.join("operstate")).as_deref() {
                Some("up") => true,
                Some("unknown") => has_carrier(&directory),
                _ => false,
            },
            mtu,
            // Drivers report −1, 0 or an error for an unknown speed.
            speed_mbit: number(&directory.join("speed")).filter(|&speed| speed > 0),
            numa_node,
            cpus: numa_node.and_then(|node| self.node_cpus(node)).unwrap_or_default(),
            addresses: Vec::new(),
        })
    }

    /// Returns the hardware interfaces that carry the traffic of `name`: itself, or those below it
    /// at any depth; none for one of software only.
    pub(crate) fn carriers(&self, name: &str) -> Vec<String> {
        let (mut carriers, mut waiting, mut seen) = (Vec::new(), vec![name.to_owned()], Vec::new());
        while let Some(name) = waiting.pop() {
            if seen.contains(&name) {
                continue;
            }
            let directory = self.nic_directory(&name);
            if directory.join("device").exists() {
                carriers.push(name.clone());
            } else {
                waiting.extend(below(&directory));
            }
            seen.push(name);
        }
        carriers.sort_unstable();
        carriers
    }

    /// Returns true for the kernel's own tree, to which other information on this machine applies.
    #[cfg(feature = "hwloc")]
    pub(crate) fn is_this_machine(&self) -> bool {
        self.root == Path::new("/sys")
    }

    /// Returns the number of the machine's NUMA nodes, if known.
    #[cfg(feature = "hwloc")]
    pub(crate) fn node_count(&self) -> usize {
        let online = read(&self.root.join("devices/system/node/online"));
        online.and_then(|list| parse_cpus(&list)).map_or(1, |nodes| nodes.len())
    }

    /// Returns the CPUs that share a core with `cpu`, including itself, ascending; only itself if
    /// unknown.
    #[must_use]
    pub fn siblings(&self, cpu: usize) -> Vec<usize> {
        let list = read(
            &self.root.join(format!("devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")),
        );
        let siblings = list.and_then(|list| parse_cpus(&list)).filter(|list| list.contains(&cpu));
        siblings.unwrap_or_else(|| vec![cpu])
    }

    fn nic_directory(&self, name: &str) -> PathBuf {
        self.root.join("class/net").join(name)
    }

    /// Returns the CPUs of a NUMA node.
    fn node_cpus(&self, node: u32) -> Option<Vec<usize>> {
        parse_cpus(&read(&self.root.join(format!("devices/system/node/node{node}/cpulist")))?)
    }

    /// Returns the node of a device, or of the nearest device above it that has one: a virtio NIC
    /// is a child of a PCI device, and some functions report −1 below a bridge that has a node.
    fn numa_node(&self, device: &Path) -> Option<u32> {
        let (device, root) = (device.canonicalize().ok()?, self.root.canonicalize().ok()?);
        let inside = device.ancestors().take_while(|above| above.starts_with(&root));
        inside.filter_map(|above| number(&above.join("numa_node"))).next()
    }
}

/// Returns the interfaces below one: the kernel links them; in older kernels, a bond only lists
/// them.
fn below(directory: &Path) -> Vec<String> {
    let slaves = read(&directory.join("bonding/slaves")).unwrap_or_default();
    let slaves = slaves.split_whitespace().map(str::to_owned);
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let lower = names.filter_map(|name| name.strip_prefix("lower_").map(str::to_owned));
    lower.chain(slaves).collect()
}

/// Returns the common value, if all are known and equal.
pub(crate) fn agreed<T: PartialEq>(said: impl Iterator<Item = Option<T>>) -> Option<T> {
    let said: Vec<T> = said.collect::<Option<_>>()?;
    let mut said = said.into_iter();
    let first = said.next()?;
    said.all(|other| other == first).then_some(first)
}

/// Returns true if an interface has a carrier, or does not report it. One that is down does not.
fn has_carrier(directory: &Path) -> bool {
    match fs::read_to_string(directory.join("carrier")) {
        Ok(carrier) => carrier.trim() != "0",
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// Reads an attribute, without its line end.
fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// Reads a numeric attribute; the kernel reports unknown values as negative numbers.
fn number(path: &Path) -> Option<u32> {
    read(path)?.parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::SysfsTree;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Creates a tree of two sockets: `fast` is on the second by itself, `virtio` by its parent,
    /// `mute` reports nothing.
    fn tree() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        write(root, "devices/system/node/node0/cpulist", "0-3\n");
        write(root, "devices/system/node/node1/cpulist", "4-5,7\n");
        let (bridge, card) = ("devices/pci0000:80", "devices/pci0000:80/0000:81:00.0");
        write(root, &format!("{bridge}/numa_node"), "0\n");
        write(root, &format!("{card}/numa_node"), "1\n");
        let (parent, child) =
            ("devices/pci0000:80/0000:82:00.0", "devices/pci0000:80/0000:82:00.0/virtio3");
        write(root, &format!("{parent}/numa_node"), "-1\n");
        write(root, &format!("{child}/status"), "0x7\n");
        for (name, device, speed, state) in [
            ("fast", Some(card), "100000\n", "up\n"),
            ("virtio", Some(child), "-1\n", "down\n"),
            ("mute", None, "", "unknown\n"),
        ] {
            write(root, &format!("class/net/{name}/mtu"), "9000\n");
            write(root, &format!("class/net/{name}/speed"), speed);
            write(root, &format!("class/net/{name}/operstate"), state);
            if let Some(device) = device {
                symlink(root.join(device), root.join("class/net").join(name).join("device"))
                    .unwrap();
            }
        }
        write(root, "class/net/bonding_masters", "");
        directory
    }

    #[test]
    fn what_the_tree_says_and_what_it_does_not() {
        let directory = tree();
        let sysfs = SysfsTree::at(directory.path());
        assert_eq!(sysfs.nic_names().unwrap(), ["fast", "mute", "virtio"]);
        type Expected = (&'static str, bool, Option<u32>, Option<u32>, &'static [usize]);
        let table: [Expected; 3] = [
            ("fast", true, Some(100_000), Some(1), &[4, 5, 7]),
            ("virtio", false, None, Some(0), &[0, 1, 2, 3]),
            ("mute", true, None, None, &[]),
        ];
        for (name, up, speed_mbit, numa_node, cpus) in table {
            let nic = sysfs.nic(name).unwrap();
            assert_eq!(
                (nic.up, nic.speed_mbit, nic.numa_node),
                (up, speed_mbit, numa_node),
                "{name}"
            );
            assert_eq!((nic.mtu, &nic.cpus[..]), (9000, cpus), "{name}");
        }
    }

    #[test]
    fn errors_for_what_must_be_there() {
        let directory = tree();
        let sysfs = SysfsTree::at(directory.path());
        assert!(sysfs.nic("absent").is_err());
        write(directory.path(), "class/net/fast/mtu", "much\n");
        assert!(sysfs.nic("fast").is_err());
        assert!(SysfsTree::at(directory.path().join("absent")).nic_names().is_err());
    }
}
