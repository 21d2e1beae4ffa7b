//! Machines that are not this one, replayed: as trees like `/sys`, and as files of hwloc.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use affinity::{FreeCores, NicInfo, NicRequest, PinningPolicy, SysfsTree, place};

/// A tree like `/sys`, in a folder that goes with it.
struct Machine {
    folder: tempfile::TempDir,
}

impl Machine {
    /// One memory node for each list of CPUs.
    fn of_nodes(nodes: &[&str]) -> Machine {
        let machine = Machine { folder: tempfile::tempdir().unwrap() };
        for (node, cpus) in nodes.iter().enumerate() {
            machine.write(&format!("devices/system/node/node{node}/cpulist"), cpus);
        }
        machine.write("class/net/bonding_masters", "");
        machine
    }

    /// The CPUs of one core.
    fn core(self, cpus: &[usize]) -> Machine {
        let list = cpus.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        for cpu in cpus {
            self.write(
                &format!("devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"),
                &list,
            );
        }
        self
    }

    /// Interface `name` on the device at `path` below `devices`, whose driver says that it is on
    /// `node`.
    fn nic(self, name: &str, path: &str, node: &str) -> Machine {
        self.write(&format!("devices/{path}/numa_node"), node);
        self.on(name, path)
    }

    /// Interface `name` on a device that says nothing of nodes.
    fn on(self, name: &str, path: &str) -> Machine {
        fs::create_dir_all(self.root().join("devices").join(path)).unwrap();
        let machine = self.software(name, &[]);
        symlink(machine.root().join("devices").join(path), machine.directory(name).join("device"))
            .unwrap();
        machine
    }

    /// Interface `name` without hardware, on top of others.
    fn software(self, name: &str, lower: &[&str]) -> Machine {
        self.write(&format!("class/net/{name}/mtu"), "9000");
        self.write(&format!("class/net/{name}/operstate"), "up");
        for other in lower {
            symlink(self.directory(other), self.directory(name).join(format!("lower_{other}")))
                .unwrap();
        }
        self
    }

    /// Interface `name` as an older kernel shows a bond of others.
    fn bond(self, name: &str, slaves: &str) -> Machine {
        self.write(&format!("class/net/{name}/bonding/slaves"), slaves);
        self.software(name, &[])
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{text}\n")).unwrap();
    }

    fn root(&self) -> &Path {
        self.folder.path()
    }

    fn directory(&self, name: &str) -> std::path::PathBuf {
        self.root().join("class/net").join(name)
    }

    fn sysfs(&self) -> SysfsTree {
        SysfsTree::at(self.root())
    }

    fn nics(&self) -> Vec<NicInfo> {
        let sysfs = self.sysfs();
        sysfs.nic_names().unwrap().iter().map(|name| sysfs.nic(name).unwrap()).collect()
    }

    /// Each NIC's name, node and CPUs.
    fn places(&self) -> Vec<(String, Option<u32>, Vec<usize>)> {
        self.nics().into_iter().map(|nic| (nic.name, nic.numa_node, nic.cpus)).collect()
    }

    /// The CPU of one thread for each NIC, where the first `cpus` CPUs may be used.
    fn pinned(&self, cpus: usize) -> Vec<usize> {
        let wishes: Vec<NicRequest> =
            self.nics().into_iter().map(|nic| NicRequest { near: nic.cpus, threads: 1 }).collect();
        let cores = FreeCores::of(&self.sysfs(), &(0..cpus).collect::<Vec<_>>());
        place(&wishes, &cores, &PinningPolicy::Auto { spread: 0 })
            .concat()
            .into_iter()
            .filter_map(|cpus| cpus.first().copied())
            .collect()
    }
}

fn at(name: &str, node: u32, cpus: &[usize]) -> (String, Option<u32>, Vec<usize>) {
    (name.into(), Some(node), cpus.into())
}

fn nowhere(name: &str) -> (String, Option<u32>, Vec<usize>) {
    (name.into(), None, Vec::new())
}

#[test]
fn two_sockets_with_several_nics_each() {
    let machine = Machine::of_nodes(&["0-3", "4-7"])
        .nic("eth0", "pci0000:16/0000:17:00.0", "0")
        .nic("eth1", "pci0000:3a/0000:3b:00.0", "0")
        // Two ports of one card.
        .nic("eth2", "pci0000:ae/0000:af:00.0", "1")
        .nic("eth3", "pci0000:ae/0000:af:00.1", "1");
    let (first, second) = ([0, 1, 2, 3], [4, 5, 6, 7]);
    let expected = [
        at("eth0", 0, &first),
        at("eth1", 0, &first),
        at("eth2", 1, &second),
        at("eth3", 1, &second),
    ];
    assert_eq!(machine.places(), expected);
    assert_eq!(machine.pinned(8), [0, 1, 4, 5]);
}

#[test]
fn four_sockets_with_two_threads_a_core() {
    // Linux counts the first thread of every core, then the second.
    let nodes = ["0-1,8-9", "2-3,10-11", "4-5,12-13", "6-7,14-15"];
    let mut machine = Machine::of_nodes(&nodes);
    for core in 0..8 {
        machine = machine.core(&[core, core + 8]);
    }
    for nic in 0..6 {
        let node = [0, 0, 0, 2, 3, 3][nic];
        machine = machine.nic(
            &format!("eth{nic}"),
            &format!("pci0000:{node}0/0000:{node}{nic}:00.0"),
            &node.to_string(),
        );
    }
    assert_eq!(machine.places()[3], at("eth3", 2, &[4, 5, 12, 13]));
    // The third NIC of the first socket gets a second thread: no whole core of it is free.
    assert_eq!(machine.pinned(16), [0, 1, 8, 4, 6, 7]);
    assert_eq!(machine.sysfs().siblings(9), [1, 9]);
    assert_eq!(machine.sysfs().siblings(99), [99], "nobody says more");
}

#[test]
fn without_nodes_any_cpu_will_do() {
    let machine = Machine::of_nodes(&["0-3"])
        .nic("eth0", "pci0000:00/0000:00:1f.6", "-1")
        .software("lo", &[]);
    assert_eq!(machine.places(), [nowhere("eth0"), nowhere("lo")]);
    assert_eq!(machine.pinned(4), [0, 1]);
}

#[test]
fn virtio_is_where_its_pci_device_is() {
    let machine = Machine::of_nodes(&["0-1", "2-3"]).on("eth0", "pci0000:80/0000:80:03.0/virtio2");
    machine.write("devices/pci0000:80/0000:80:03.0/numa_node", "1");
    assert_eq!(machine.places(), [at("eth0", 1, &[2, 3])]);
}

#[test]
fn a_bond_is_where_its_slaves_are_if_they_agree() {
    let machine = Machine::of_nodes(&["0-1", "2-3"])
        .nic("eth0", "pci0000:00/0000:01:00.0", "1")
        .nic("eth1", "pci0000:00/0000:01:00.1", "1")
        .nic("eth2", "pci0000:00/0000:02:00.0", "0")
        .nic("eth3", "pci0000:00/0000:03:00.0", "-1")
        .bond("bond0", "eth0 eth1")
        .bond("bond1", "eth1 eth2")
        .bond("bond2", "")
        .bond("bond3", "eth0 eth3")
        .software("bond4", &["eth0", "eth1"])
        .software("vlan", &["bond4"]);
    let places = machine.places();
    let near = [2, 3];
    assert_eq!(places[..2], [at("bond0", 1, &near), nowhere("bond1")]);
    assert_eq!(places[2..5], [nowhere("bond2"), nowhere("bond3"), at("bond4", 1, &near)]);
    assert_eq!(places[9], at("vlan", 1, &near), "through the bond that it stands on");
}

#[test]
fn interfaces_that_stand_on_each_other_are_no_endless_walk() {
    let machine = Machine::of_nodes(&["0-1", "2-3"]).software("a", &["b"]).software("b", &["a"]);
    assert_eq!(machine.places(), [nowhere("a"), nowhere("b")]);
}

#[cfg(feature = "hwloc")]
mod hwloc {
    use std::path::PathBuf;
    use std::process::Command;

    use affinity::{HwlocTopology, NicPlace};

    use super::{Machine, at, nowhere};

    const VARIABLE: &str = "HWLOC_XMLFILE";

    fn file(name: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("tests/topologies")
            .join(name)
            .with_extension("xml")
    }

    fn replay(name: &str) -> HwlocTopology {
        HwlocTopology::replay(&file(name)).unwrap()
    }

    type Place<'a> = Option<(Option<u32>, &'a [usize])>;

    fn assert_places(name: &str, expected: &[(&str, Place)]) {
        let machine = replay(name);
        assert!(!machine.is_this_machine());
        assert_eq!(
            machine.nic_names(),
            expected.iter().map(|(nic, _)| *nic).collect::<Vec<_>>(),
            "{name}"
        );
        for (nic, place) in expected {
            let place = place.map(|(numa_node, cpus)| NicPlace { numa_node, cpus: cpus.into() });
            assert_eq!(machine.place(nic), place, "{name}: {nic}");
        }
        assert_eq!(machine.place("bond0"), None, "{name}");
    }

    #[test]
    fn two_sockets_and_two_ports_of_one_card() {
        let (first, second): (Place, Place) =
            (Some((Some(0), &[0, 1, 2, 3])), Some((Some(1), &[4, 5, 6, 7])));
        assert_places(
            "two-sockets",
            &[("eth0", first), ("eth1", first), ("eth2", second), ("eth3", second)],
        );
    }

    #[test]
    fn four_sockets_with_two_nics_each() {
        let machine = replay("four-sockets");
        assert_eq!(machine.nic_names().len(), 8);
        for nic in 0..8 {
            let node = nic / 2;
            let place =
                NicPlace { numa_node: Some(node), cpus: (4 * node as usize..).take(4).collect() };
            assert_eq!(machine.place(&format!("eth{nic}")), Some(place));
        }
    }

    #[test]
    fn one_node_and_virtio() {
        assert_places("no-numa", &[("eth0", Some((Some(0), &[0, 1, 2, 3, 4, 5, 6, 7])))]);
        assert_places("virtio", &[("eth0", Some((Some(1), &[2, 3])))]);
    }

    #[test]
    fn a_nic_of_a_socket_with_two_nodes_is_near_both() {
        assert_places("nodes-within-sockets", &[("eth0", Some((None, &[4, 5, 6, 7])))]);
    }

    #[test]
    fn what_nobody_knows_stays_unknown() {
        assert_places("nobody-knows", &[("eth0", None), ("eth1", Some((Some(1), &[2, 3])))]);
    }

    #[test]
    fn hwloc_fills_the_gaps_of_sysfs_and_nothing_else() {
        // The drivers of eth1 and eth3 forgot; that of eth2 contradicts hwloc.
        let machine = Machine::of_nodes(&["0-3", "4-7"])
            .nic("eth0", "a", "0")
            .nic("eth1", "b", "-1")
            .nic("eth2", "c", "0")
            .nic("eth3", "d", "-1")
            .bond("bond0", "eth1 eth3")
            .bond("bond1", "eth1")
            .software("lo", &[]);
        let (sysfs, mut nics) = (machine.sysfs(), machine.nics());
        replay("two-sockets").complete(&sysfs, &mut nics);
        let places: Vec<_> =
            nics.into_iter().map(|nic| (nic.name, nic.numa_node, nic.cpus)).collect();
        let (first, second) = ([0, 1, 2, 3], [4, 5, 6, 7]);
        assert_eq!(places[..2], [nowhere("bond0"), at("bond1", 0, &first)]);
        assert_eq!(places[2..4], [at("eth0", 0, &first), at("eth1", 0, &first)]);
        assert_eq!(places[4..], [at("eth2", 0, &first), at("eth3", 1, &second), nowhere("lo")]);
    }

    #[test]
    fn a_file_that_is_none_is_no_machine() {
        assert!(HwlocTopology::replay(&file("absent")).is_none());
        assert!(
            HwlocTopology::replay(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
                .is_none()
        );
    }

    #[test]
    fn this_machine_is_told_from_a_replayed_one() {
        if std::env::var_os(VARIABLE).is_none() {
            assert!(HwlocTopology::load().unwrap().is_this_machine());
        }
    }

    /// The variable is hwloc's own and holds for a whole process, so this test runs itself in
    /// another one.
    #[test]
    fn the_variable_names_a_machine_to_replay() {
        let file = file("nobody-knows");
        if std::env::var_os(VARIABLE).is_some_and(|name| name == file) {
            let machine = HwlocTopology::load().unwrap();
            assert!(!machine.is_this_machine());
            assert_eq!(machine.nic_names(), ["eth0", "eth1"]);
            return;
        }
        let test = "hwloc::the_variable_names_a_machine_to_replay";
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test])
            .env(VARIABLE, &file)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
    }
}
