//! The reader on synthetic trees.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::os::unix::fs::symlink;

use affinity::NicAddress;

use crate::app::doctor::reader::*;

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// Creates a NIC that is up, one that is down, and the kernel's TCP settings.
fn trees() -> (tempfile::TempDir, MachineReader) {
    let home = tempfile::tempdir().unwrap();
    let (sys, proc) = (home.path().join("sys"), home.path().join("proc"));
    let card = "devices/pci0000:80/0000:81:00.0";
    write(&sys, &format!("{card}/numa_node"), "1\n");
    write(&sys, "devices/system/node/node0/cpulist", "0-3\n");
    write(&sys, "devices/system/node/node1/cpulist", "4-7\n");
    write(&sys, "devices/system/node/possible", "0-1\n");
    fs::create_dir_all(sys.join("bus/pci/drivers/mlx5_core")).unwrap();
    symlink(sys.join("bus/pci/drivers/mlx5_core"), sys.join(card).join("driver")).unwrap();
    for (name, state) in [("cep-test0", "up\n"), ("cep-test1", "down\n")] {
        write(&sys, &format!("class/net/{name}/mtu"), "9000\n");
        write(&sys, &format!("class/net/{name}/speed"), "25000\n");
        write(&sys, &format!("class/net/{name}/operstate"), state);
    }
    symlink(sys.join(card), sys.join("class/net/cep-test0/device")).unwrap();
    for queue in ["rx-0", "rx-1", "rx-10", "tx-0"] {
        fs::create_dir_all(sys.join("class/net/cep-test0/queues").join(queue)).unwrap();
    }
    let cpu = affinity::cpus_allowed().unwrap()[0];
    write(&sys, &format!("devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor"), "powersave\n");
    write(&sys, &format!("devices/system/cpu/cpu{cpu}/cpufreq/scaling_driver"), "intel_pstate\n");
    write(&proc, "self/status", "Name:\tcep-fast\nSeccomp:\t2\nSeccomp_filters:\t1\n");
    write(&proc, "sys/net/ipv4/conf/all/arp_ignore", "0\n");
    write(&proc, "sys/net/ipv4/conf/cep-test0/arp_ignore", "1\n");
    write(&proc, "sys/net/ipv4/tcp_congestion_control", "cubic\n");
    write(&proc, "sys/net/ipv4/tcp_rmem", "4096\t131072\t6291456\n");
    write(&proc, "sys/net/ipv4/tcp_wmem", "4096\tmany\t1\n");
    (home, MachineReader { sys, proc })
}

#[test]
fn what_the_trees_say() {
    let (_home, reader) = trees();
    let machine = reader.read();
    let [up, down] = &machine.nics[..] else { panic!("{:?}", machine.nics) };
    assert_eq!((up.name.as_str(), up.driver.as_deref()), ("cep-test0", Some("mlx5_core")));
    assert_eq!((up.speed_mbit, up.mtu, up.numa_node), (Some(25_000), 9000, Some(1)));
    assert_eq!((up.arp_ignore, down.arp_ignore), (Some(1), Some(0)));
    assert_eq!((up.rx_queues, up.tx_queues, &up.cpus[..]), (3, 1, &[4, 5, 6, 7][..]));
    // No interface of this machine has this name, so it has no address either.
    assert_eq!((up.usage, down.usage), (NicUse::NoAddress, NicUse::Down));
    assert_eq!((down.driver.as_deref(), down.rx_queues), (None, 0));
    assert_eq!((machine.numa_node_count, machine.is_filtered), (2, Some(true)));
    assert_eq!(machine.congestion_control.as_deref(), Some("cubic"));
    assert_eq!((machine.tcp_rmem, machine.tcp_wmem), (Some([4096, 131_072, 6_291_456]), None));
    let [governor] = &machine.governors[..] else { panic!("{:?}", machine.governors) };
    assert_eq!(
        (governor.name.as_str(), governor.driver.as_deref()),
        ("powersave", Some("intel_pstate"))
    );
    assert!(machine.nics_error.is_none() && !machine.kernel.is_empty());
    // 16 slots of 1 MiB and two pages each way, header buffers and rings.
    assert_eq!(machine.locked_bytes_wanted, 2 * 16 * (1_048_576 + 8192) + 1_048_576 + 262_144);
}

#[test]
fn trees_that_are_not_there() {
    let home = tempfile::tempdir().unwrap();
    let machine =
        MachineReader { sys: home.path().join("sys"), proc: home.path().join("proc") }.read();
    assert!(
        machine.nics_error.is_some() && machine.nics.is_empty() && machine.governors.is_empty()
    );
    assert_eq!((machine.is_filtered, machine.tcp_rmem, machine.numa_node_count), (None, None, 1));
}

#[test]
fn what_a_node_uses() {
    let nic = |name: &str, up, ips: &[&str]| NicInfo {
        name: name.into(),
        up,
        mtu: 1500,
        speed_mbit: None,
        numa_node: None,
        cpus: Vec::new(),
        addresses: ips
            .iter()
            .map(|ip| NicAddress { ip: ip.parse().unwrap(), prefix_bits: 24 })
            .collect(),
    };
    let table = [
        (nic("eth0", true, &["10.0.0.1"]), NicUse::Rail),
        (nic("eth0", true, &["fe80::1", "fd00::1"]), NicUse::Rail),
        (nic("eth0", true, &["fe80::1"]), NicUse::NoAddress),
        (nic("eth0", true, &[]), NicUse::NoAddress),
        (nic("eth0", false, &["10.0.0.1"]), NicUse::Down),
        (nic("lo", true, &["127.0.0.1"]), NicUse::Loopback),
        (nic("docker0", true, &["172.17.0.1"]), NicUse::Inside),
        (nic("veth1a2b", true, &["10.0.0.1"]), NicUse::Inside),
    ];
    for (nic, expected) in table {
        assert_eq!(usage(&nic), expected, "{nic:?}");
    }
}
