//! Synthetic machines with one problem each.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use crate::core::doctor::diagnosis::FindingLevel;
use crate::core::doctor::judge::*;
use crate::core::doctor::readings::{
    CpuGovernor, IoUring, KernelFeature, NicReading, NicUse, RingObstacle,
};

/// A machine without problems.
fn well() -> MachineReadings {
    MachineReadings {
        kernel: "6.12.1".into(),
        nics_error: None,
        netlink_error: None,
        nics: vec![nic("eth0")],
        cpus_allowed: (0..8).collect(),
        numa_node_count: 2,
        io_uring: Ok(IoUring { locked: Ok(()) }),
        lacks: Vec::new(),
        locked_bytes_wanted: 34 << 20,
        memlock_bytes: None,
        is_filtered: Some(false),
        confinement_obstacles: Vec::new(),
        confinement_weakness: None,
        capabilities: Some(0),
        congestion_control: Some("bbr".into()),
        tcp_rmem: Some([4096, 131_072, 1 << 30]),
        tcp_wmem: Some([4096, 16_384, 1 << 30]),
        governors: (0..8).map(|cpu| governor(cpu, "performance", "acpi-cpufreq")).collect(),
    }
}

fn nic(name: &str) -> NicReading {
    NicReading {
        name: name.into(),
        usage: NicUse::Rail,
        speed_mbit: Some(25_000),
        mtu: 9000,
        numa_node: Some(0),
        cpus: vec![0, 1, 2, 3],
        driver: Some("mlx5_core".into()),
        rx_queues: 8,
        tx_queues: 8,
        addresses: vec!["10.0.0.1/24".into()],
        arp_ignore: Some(1),
    }
}

fn governor(cpu: usize, name: &str, driver: &str) -> CpuGovernor {
    CpuGovernor { cpu, name: name.into(), driver: Some(driver.into()) }
}

fn obstacle() -> RingObstacle {
    RingObstacle { cause: "the cause".into(), remedy: "the remedy".into() }
}

/// Returns the findings other than `Ok`.
fn complaints(machine: MachineReadings) -> Vec<DoctorFinding> {
    let mut findings = judge(machine).findings;
    findings.retain(|finding| finding.level != FindingLevel::Ok);
    findings
}

#[test]
fn a_machine_that_is_well() {
    let diagnosis = judge(well());
    assert_eq!(complaints(well()), []);
    assert!(diagnosis.is_well());
    assert_eq!(diagnosis.path, KernelPath::IoUringRegistered);
    let looked_at: Vec<&str> =
        diagnosis.findings.iter().map(|finding| finding.about.as_str()).collect();
    let expected = [
        "eth0",
        "CPUs",
        "io_uring",
        "memlock",
        "seccomp",
        "governor",
        "confinement",
        "capabilities",
        "congestion control",
        "tcp_rmem",
        "tcp_wmem",
    ];
    assert_eq!(looked_at, expected);
}

type Spoil = fn(&mut MachineReadings);

/// Name, change of the machine, level and subject of the finding, and a part of its remedy.
type Case = (&'static str, Spoil, FindingLevel, &'static str, &'static str);

const CASES: &[Case] = &[
    (
        "no sysfs",
        |m| (m.nics_error, m.nics) = (Some("gone".into()), Vec::new()),
        FindingLevel::Shortfall,
        "NICs",
        "mount",
    ),
    ("no NIC", |m| m.nics.clear(), FindingLevel::Shortfall, "NICs", "ip address add"),
    (
        "loopback only",
        |m| m.nics[0].usage = NicUse::Loopback,
        FindingLevel::Shortfall,
        "NICs",
        "ip address add",
    ),
    ("unknown speed", |m| m.nics[0].speed_mbit = None, FindingLevel::Note, "eth0", "speed=RATE"),
    (
        "small frames",
        |m| m.nics[0].mtu = 1500,
        FindingLevel::Note,
        "eth0",
        "ip link set dev eth0 mtu 9000",
    ),
    (
        "one queue",
        |m| m.nics[0].rx_queues = 1,
        FindingLevel::Note,
        "eth0",
        "ethtool -L eth0 combined 8",
    ),
    ("unknown memory node", |m| m.nics[0].numa_node = None, FindingLevel::Note, "eth0", "--pin"),
    (
        "the wrong socket",
        |m| m.cpus_allowed = vec![4, 5],
        FindingLevel::Shortfall,
        "eth0",
        "taskset -c 0-3 ",
    ),
    (
        "a CPU too few",
        |m| (m.nics.push(nic("eth1")), m.cpus_allowed = vec![1]).0,
        FindingLevel::Shortfall,
        "CPUs",
        "srun",
    ),
    ("one for the other", |m| twins(m), FindingLevel::Shortfall, "eth0", "conf.all.arp_ignore=1"),
    (
        "no ring",
        |m| m.io_uring = Err(obstacle()),
        FindingLevel::Shortfall,
        "io_uring",
        "the remedy",
    ),
    (
        "a weak Landlock",
        |m| m.confinement_weakness = Some("weak".into()),
        FindingLevel::Note,
        "confinement",
        "Linux 6.2",
    ),
    (
        "no order",
        |m| m.lacks = vec![KernelFeature::PacketOrder],
        FindingLevel::Note,
        "TCP_INFO",
        "Linux 5.4",
    ),
    (
        "no openat2",
        |m| m.lacks = vec![KernelFeature::Openat2],
        FindingLevel::Note,
        "openat2",
        "Linux 5.6",
    ),
    (
        "no binding",
        |m| m.lacks = vec![KernelFeature::BindToNic],
        FindingLevel::Note,
        "SO_BINDTODEVICE",
        "CAP_NET_RAW",
    ),
    (
        "no cachestat",
        |m| m.lacks = vec![KernelFeature::Cachestat],
        FindingLevel::Note,
        "cachestat",
        "Linux 6.5",
    ),
    (
        "no options",
        |m| m.lacks = vec![KernelFeature::RingOptions],
        FindingLevel::Note,
        "io_uring",
        "Linux 6.7",
    ),
    (
        "memory refused",
        |m| ring(m).locked = Err(obstacle()),
        FindingLevel::Shortfall,
        "memlock",
        "ulimit -l unlimited",
    ),
    (
        "a limit for others",
        |m| m.memlock_bytes = Some(8 << 20),
        FindingLevel::Note,
        "memlock",
        "(34816 is the least",
    ),
    (
        "reno",
        |m| m.congestion_control = Some("reno".into()),
        FindingLevel::Note,
        "congestion control",
        "=cubic",
    ),
    (
        "rmem",
        |m| m.tcp_rmem = Some([1, 2, 6 << 20]),
        FindingLevel::Shortfall,
        "tcp_rmem",
        "tcp_rmem=\"1 2 312500000\"",
    ),
    (
        "wmem",
        |m| m.tcp_wmem = Some([1, 2, 4 << 20]),
        FindingLevel::Shortfall,
        "tcp_wmem",
        "tcp_wmem=\"1 2 312500000\"",
    ),
    (
        "lowest clock",
        |m| m.governors[3].name = "powersave".into(),
        FindingLevel::Shortfall,
        "governor",
        "cpupower",
    ),
    (
        "ondemand",
        |m| m.governors[0].name = "ondemand".into(),
        FindingLevel::Note,
        "governor",
        "-g performance",
    ),
    (
        "advice",
        |m| m.governors[0] = governor(0, "powersave", "intel_pstate"),
        FindingLevel::Note,
        "governor",
        "cpupower",
    ),
];

/// A second NIC in the subnet of the first.
fn twins(machine: &mut MachineReadings) {
    machine.nics.push(NicReading { addresses: vec!["10.0.0.2/24".into()], ..nic("eth1") });
    machine.nics.iter_mut().for_each(|nic| nic.arp_ignore = Some(0));
}

fn ring(machine: &mut MachineReadings) -> &mut IoUring {
    machine.io_uring.as_mut().unwrap()
}

#[test]
fn one_thing_wrong_is_one_finding() {
    for (what, spoil, level, about, remedy) in CASES {
        let mut machine = well();
        spoil(&mut machine);
        let found = complaints(machine.clone());
        let [finding] = &found[..] else { panic!("{what}: {found:#?}") };
        assert_eq!((finding.level, finding.about.as_str()), (*level, *about), "{what}");
        assert!(finding.remedy.as_ref().unwrap().contains(remedy), "{what}: {finding}");
        assert!(finding.cost.is_some(), "{what}");
        assert_eq!(judge(machine).is_well(), *level != FindingLevel::Shortfall, "{what}");
    }
}

#[test]
fn what_is_not_known_is_not_judged() {
    let machine = MachineReadings {
        is_filtered: None,
        capabilities: None,
        congestion_control: None,
        tcp_rmem: None,
        tcp_wmem: None,
        governors: Vec::new(),
        cpus_allowed: Vec::new(),
        ..well()
    };
    let diagnosis = judge(machine);
    assert!(diagnosis.is_well());
    let looked_at: Vec<&str> =
        diagnosis.findings.iter().map(|finding| finding.about.as_str()).collect();
    assert_eq!(looked_at, ["eth0", "io_uring", "memlock", "confinement"]);
}

#[test]
fn interfaces_that_never_lead_out_are_shown_and_not_judged() {
    for usage in [NicUse::Loopback, NicUse::Inside] {
        let mut machine = well();
        machine.nics.push(NicReading { usage, mtu: 1500, speed_mbit: None, ..nic("other") });
        assert_eq!(complaints(machine), [], "{usage}");
    }
    for (usage, remedy) in
        [(NicUse::Down, "ip link set dev eth1 up"), (NicUse::NoAddress, "ip address add")]
    {
        let mut machine = well();
        machine.nics.push(NicReading { usage, mtu: 1500, ..nic("eth1") });
        let found = complaints(machine.clone());
        assert_eq!((found.len(), found[0].level), (1, FindingLevel::Note));
        assert!(found[0].remedy.as_ref().unwrap().starts_with(remedy), "{found:?}");
        // A software interface that is down is not missed.
        machine.nics[1].driver = None;
        assert_eq!(complaints(machine), [], "{usage}");
    }
}

#[test]
fn the_path_is_the_ladder_that_rails_climb_down() {
    let table: [(Spoil, KernelPath); 3] = [
        (|_| (), KernelPath::IoUringRegistered),
        (|m| ring(m).locked = Err(obstacle()), KernelPath::IoUringUnregistered),
        (|m| m.io_uring = Err(obstacle()), KernelPath::Plain),
    ];
    for (spoil, path) in table {
        let mut machine = well();
        spoil(&mut machine);
        assert_eq!(judge(machine).path, path);
    }
}

#[test]
fn a_filter_is_worth_a_note_and_more_where_there_is_no_ring() {
    let found = complaints(MachineReadings { is_filtered: Some(true), ..well() });
    assert!(found.len() == 1 && found[0].found.contains("lets io_uring pass"), "{found:?}");
    let found = complaints(MachineReadings {
        is_filtered: Some(true),
        io_uring: Err(obstacle()),
        ..well()
    });
    let about: Vec<&str> = found.iter().map(|finding| finding.about.as_str()).collect();
    assert_eq!(about, ["io_uring", "seccomp"]);
}

#[test]
fn buffers_are_measured_by_the_fastest_nic_and_by_a_floor() {
    let wanted = |speed_mbit, most| {
        let mut machine = well();
        machine.nics[0].speed_mbit = speed_mbit;
        machine.tcp_wmem = Some([4096, 16_384, most]);
        let mut findings = judge(machine).findings;
        findings.retain(|finding| {
            finding.about == "tcp_wmem" && finding.level == FindingLevel::Shortfall
        });
        let remedy = findings.pop()?.remedy?;
        Some(remedy.rsplit(' ').next()?.trim_end_matches('"').parse::<u64>().unwrap())
    };
    let table = [
        (None, 4 << 20, Some(6 << 20)),
        (None, 6 << 20, None),
        (Some(100), 4 << 20, Some(6 << 20)),
        (Some(10_000), 64 << 20, Some(125_000_000)),
        (Some(10_000), 125_000_000, None),
        (Some(400_000), 1 << 30, Some(i32::MAX as u64)),
        (Some(400_000), i32::MAX as u64, None),
    ];
    for (speed_mbit, most, expected) in table {
        assert_eq!(wanted(speed_mbit, most), expected, "{speed_mbit:?} Mbit/s, {most}");
    }
    let mut machine = well();
    (machine.nics[0].speed_mbit, machine.tcp_wmem) = (Some(10_000), Some([1, 2, 4 << 20]));
    let text = complaints(machine)[0].to_string();
    assert!(
        text.contains("up to a round trip of 3.4 ms; at 100 ms it gets 335.54 Mbit/s"),
        "{text}"
    );
}

#[test]
fn the_worst_comes_first_and_scripts_can_read_it() {
    let mut machine = well();
    (machine.nics[0].mtu, machine.tcp_wmem) = (1500, Some([1, 2, 3]));
    let diagnosis = judge(machine);
    assert!(diagnosis.findings.is_sorted_by_key(|finding| finding.level));
    assert_eq!(diagnosis.findings[0].about, "tcp_wmem");
    let json: serde_json::Value = serde_json::from_str(&diagnosis.json()).unwrap();
    assert_eq!(json["shortfalls"], 1);
    assert_eq!(json["path"], "io-uring-registered");
    assert_eq!((&json["nics"][0]["use"], &json["nics"][0]["mtu"]), (&"rail".into(), &1500.into()));
    assert_eq!(json["findings"][0]["level"], "shortfall");
    assert!(!diagnosis.json().contains('\n'));
}

#[test]
fn people_read_a_table_and_sentences() {
    let mut machine = well();
    (machine.nics[0].mtu, machine.nics[0].cpus) = (1500, vec![0, 1, 3]);
    let text = judge(machine).to_string();
    for part in [
        "Linux 6.12.1; data path: io_uring with registered slots\n",
        "25.00 Gbit/s",
        "0-1,3",
        "mlx5_core",
        "8 rx, 8 tx",
        "note       eth0: MTU 1500\n           costs: 5.9 % of the line is headers",
        "\n           try: ip link set dev eth0 mtu 9000",
        "ok         memlock: 34.00 MiB wanted, limit unlimited",
        "Nothing was found",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn a_kernel_that_cannot_confine_is_noted_and_capabilities_are_told() {
    let about = |machine: MachineReadings, what: &str| {
        judge(machine).findings.into_iter().find(|finding| finding.about == what).unwrap()
    };
    assert_eq!(about(well(), "confinement").level, FindingLevel::Ok);
    let old = MachineReadings { confinement_obstacles: vec!["no Landlock".into()], ..well() };
    let finding = about(old, "confinement");
    assert_eq!((finding.level, finding.found.as_str()), (FindingLevel::Note, "no Landlock"));
    assert!(finding.cost.is_some() && finding.remedy.is_some());
    let some = MachineReadings { capabilities: Some(1 << 14), ..well() };
    let found = about(some, "capabilities").found;
    let (has, lacks) = found.split_once("could use").unwrap();
    assert!(has.contains("CAP_IPC_LOCK") && !lacks.contains("CAP_IPC_LOCK"), "{found}");
    assert!(lacks.contains("CAP_DAC_READ_SEARCH (read files of all users)"), "{found}");
    let unknown = MachineReadings { capabilities: None, ..well() };
    assert!(judge(unknown).findings.iter().all(|finding| finding.about != "capabilities"));
}
