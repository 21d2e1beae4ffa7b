//! Networks with filters, routers, and NICs that share a subnet, in labs. Each transfer takes the
//! working path, and its report names the unreachable address and the lost time.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod support;

use std::fs;
use std::net::TcpListener;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::lab::Lab;
use support::proxy::{self, Gate, Verdict, Way};
use support::{Daemon, PROGRAM, cep_fast, code, json, stderr};

fn rows(mib: u64) -> String {
    let last = (mib << 20) - 1;
    format!(
        "id networks\n\
         writer 10.200.0.1:7000 pattern:5 0 0-{last}\n\
         reader 10.200.0.2:7000 null: 0 0-{last}\n"
    )
}

fn completed(lab: &Lab, mib: u64) -> Value {
    let output = lab.run(&rows(mib));
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    json(&output)
}

fn warnings(report: &Value) -> Vec<&str> {
    report["warnings"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect()
}

/// Returns the seconds of a command in which no byte moved.
fn lost_seconds(report: &Value) -> f64 {
    report["wall_seconds"].as_f64().unwrap() - report["seconds"].as_f64().unwrap()
}

/// Returns the bytes that each rail of a node moved.
fn moved(report: &Value, node: usize) -> Vec<u64> {
    let rails = report["nodes"][node]["rails"].as_array().unwrap().iter();
    rails
        .map(|rail| rail["bytes_sent"].as_u64().unwrap() + rail["bytes_received"].as_u64().unwrap())
        .collect()
}

/// Only the control address of the daemons is open.
const CONTROL_ONLY: &str = "add table inet wall
add chain inet wall in { type filter hook input priority 0; policy drop; }
add rule inet wall in ct state established,related accept
add rule inet wall in tcp dport 7000 accept
add rule inet wall in meta l4proto { icmp, icmpv6 } accept
";

fn names_the_data_address(output: &Output) -> bool {
    let said = stderr(output);
    said.contains("10.200.0.1:7000: its data address 10.200.0.1:")
        && said.contains("data ports")
        && !said.contains(":7000 from")
}

#[test]
fn a_firewall_that_lets_only_the_control_port_through_is_named_by_the_data_address_that_it_closes()
{
    let Some(lab) = Lab::up(2, 1, "1gbit") else { return };
    // Whichever side can be dialled is dialled: neither can.
    lab.network.nft(1, CONTROL_ONLY).unwrap();
    lab.network.nft(2, CONTROL_ONLY).unwrap();
    let began = Instant::now();
    let output = lab.run(&rows(1));
    assert_eq!(code(&output), 3, "{}", stderr(&output));
    assert!(names_the_data_address(&output), "{}", stderr(&output));
    assert!(
        began.elapsed() < Duration::from_secs(25),
        "before the stall timeout: {:?}",
        began.elapsed()
    );
    // The stall timeout may come first.
    let output = support::end_of(lab.start_with(&rows(1), &["--stall-timeout", "2s"]));
    assert_eq!(code(&output), 7, "{}", stderr(&output));
    assert!(names_the_data_address(&output), "{}", stderr(&output));
}

#[test]
fn two_nics_in_one_subnet_with_the_kernels_defaults_lose_a_second_once_and_say_so() {
    let addresses = "ip address flush dev eth1; ip address add 10.200.0.1$NODE/24 dev eth1";
    let change = |node: u32| {
        let defaults = "sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.eth0.rp_filter=1 \
                        net.ipv4.conf.eth1.rp_filter=1";
        format!("{}; {defaults}", addresses.replace("$NODE", &node.to_string()))
    };
    let (first, second) = (change(1), change(2));
    let Some(lab) = Lab::changed(2, 2, "200mbit", &[(1, &first), (2, &second)]) else { return };
    lab.join_switches();
    let report = completed(&lab, 32);
    let lost = "10.200.0.2:7000: eth1 lost 1.";
    assert!(
        warnings(&report).iter().any(|it| it.starts_with(lost) && it.contains("not bound it was")),
        "{report}"
    );
    assert!(lost_seconds(&report) < 3.0, "a second, and not ten: {report}");
    // The node remembers the working path.
    let report = completed(&lab, 32);
    assert!(!warnings(&report).iter().any(|it| it.contains(" lost ")), "{report}");
    assert!(lost_seconds(&report) < 0.9, "{report}");
}

/// Four subnets behind a router that connects the second NIC of one node to the third of the other,
/// and no other pair; the first ones share a switch.
const CROSSED: &str = "sysctl -qw net.ipv4.ip_forward=1
ip address add 10.50.11.254/24 dev br1
ip address add 10.50.21.254/24 dev br1
ip address add 10.50.12.254/24 dev br2
ip address add 10.50.22.254/24 dev br2
nft -f - <<END
add table inet router
add chain inet router forward { type filter hook forward priority 0; policy drop; }
add rule inet router forward ip saddr 10.200.0.0/24 ip daddr 10.200.0.0/24 accept
add rule inet router forward ip saddr 10.50.11.1 ip daddr 10.50.22.2 accept
add rule inet router forward ip saddr 10.50.22.2 ip daddr 10.50.11.1 accept
add rule inet router forward ip saddr 10.50.12.1 ip daddr 10.50.21.2 accept
add rule inet router forward ip saddr 10.50.21.2 ip daddr 10.50.12.1 accept
END
";

#[test]
fn a_router_that_carries_only_crossed_pairs_of_nics_is_found_out() {
    let change = |node: u32| {
        let nic = |nic: u32| {
            let net = format!("10.50.{node}{nic}");
            format!(
                "ip address flush dev eth{nic}; ip address add {net}.{node}/24 dev eth{nic}
ip rule add from {net}.{node} table 10{nic}; ip route add {net}.0/24 dev eth{nic} table 10{nic}
ip route add default via {net}.254 dev eth{nic} table 10{nic}"
            )
        };
        format!("{}\n{}", nic(1), nic(2))
    };
    let (first, second) = (change(1), change(2));
    let Some(lab) = Lab::changed(2, 3, "200mbit", &[(1, &first), (2, &second)]) else { return };
    lab.network.shell_at_the_switch(CROSSED).unwrap();
    let report = completed(&lab, 96);
    for nic in [1, 2] {
        let (lost, usual) =
            (format!("10.200.0.2:7000: eth{nic} lost 1."), format!("its flow to 10.50.1{nic}.1:"));
        let is_named = |it: &&str| it.starts_with(&lost) && it.contains(&usual);
        assert!(warnings(&report).iter().any(is_named), "{report}");
    }
    assert!(
        moved(&report, 1).iter().all(|bytes| *bytes > 4 << 20),
        "every NIC carries a part: {report}"
    );
    let report = completed(&lab, 48);
    assert!(warnings(&report).is_empty(), "it is known by now: {report}");
    assert!(
        moved(&report, 1).iter().all(|bytes| *bytes > 8 << 20),
        "every NIC carries a part: {report}"
    );
}

#[test]
fn a_rail_that_carried_nothing_is_named_with_its_nic_its_peer_and_the_cause() {
    let Some(lab) = Lab::up(2, 2, "200mbit") else { return };
    let cause = |report: &Value| {
        let begin = "10.200.0.2:7000: eth1 carried nothing from 10.200.0.1:7000: its data address \
                     10.201.0.1:";
        let said = warnings(report)
            .into_iter()
            .find(|it| it.starts_with(begin))
            .unwrap_or_else(|| panic!("{report}"));
        assert_eq!(moved(report, 1)[1], 0, "{report}");
        said.to_owned()
    };
    lab.network.nft(1, CUT).unwrap();
    let said = cause(&completed(&lab, 64));
    assert!(said.contains("no connection for ") && said.contains("data ports"), "{said}");
    lab.network.nft(1, REJECTED).unwrap();
    let said = cause(&completed(&lab, 64));
    assert!(said.contains("Connection refused"), "{said}");
}

#[test]
fn a_nic_whose_address_changes_is_opened_anew_for_the_next_transfer() {
    let Some(lab) = Lab::up(2, 2, "200mbit") else { return };
    completed(&lab, 1);
    for (node, address) in [(1, "10.201.0.91/24"), (2, "10.201.0.92/24")] {
        let change = format!("ip address flush dev eth1; ip address add {address} dev eth1");
        lab.network.shell(node, &change).unwrap();
    }
    let report = completed(&lab, 32);
    assert!(warnings(&report).is_empty() && lost_seconds(&report) < 0.9, "{report}");
    for node in [0, 1] {
        assert!(
            moved(&report, node).iter().all(|bytes| *bytes > 8 << 20),
            "both NICs carry a part: {report}"
        );
    }
}

/// Rules by which a node receives no large packet, without an error to the sender.
const HOLE: &str = "add table inet hole
add chain inet hole in { type filter hook prerouting priority -300; }
add rule inet hole in meta l4proto tcp meta length > 1200 drop
";

#[test]
fn a_hole_in_the_path_mtu_of_the_only_rail_is_named_and_its_remedy_mends_it() {
    let single = "ethtool -K eth0 tso off gso off gro off";
    let Some(lab) = Lab::changed(2, 1, "200mbit", &[(1, single), (2, single)]) else { return };
    lab.network.nft(2, HOLE).unwrap();
    let output = support::end_of(lab.start_with(&rows(4), &["--stall-timeout", "4s"]));
    assert!([3, 7].contains(&code(&output)), "{}", stderr(&output));
    let report = json(&output);
    let begin = "10.200.0.1:7000: eth0 to 10.200.0.2: small packets pass, large ones do not: ";
    let named = |it: &&str| {
        it.starts_with(begin) && it.contains("MTU of 1500") && it.contains("tcp_mtu_probing=1")
    };
    assert!(warnings(&report).iter().any(named), "{report}");
    let probing = "sysctl -qw net.ipv4.tcp_mtu_probing=1";
    lab.network.shell(1, probing).unwrap();
    completed(&lab, 4);
}

/// Runs a transfer from `writer`, a name, with the given `hosts` file.
fn run_with_hosts(lab: &Lab, writer: &str, hosts: &str) -> Output {
    let last = (8 << 20) - 1;
    let rows =
        format!("writer {writer} pattern:5 0 0-{last}\nreader 10.200.0.2:7000 null: 0 0-{last}\n");
    fs::write(lab.path("spec"), format!("id names\n{rows}")).unwrap();
    fs::write(lab.path("hosts"), hosts).unwrap();
    let (hosts, key, spec) = (lab.path("hosts"), lab.path("key"), lab.path("spec"));
    let run = format!(
        "exec {PROGRAM} run --json --progress never --key-file {} {}",
        key.display(),
        spec.display()
    );
    let inside =
        format!("unshare --mount sh -ec 'mount --bind {} /etc/hosts; {run}'", hosts.display());
    support::run(lab.network.command(0, "sh").args(["-ec", &inside]))
}

#[test]
fn a_name_with_dead_addresses_is_reached_by_the_one_that_answers() {
    let Some(lab) = Lab::up(2, 1, "1gbit") else { return };
    let began = Instant::now();
    for addresses in [["77", "1", "78"], ["1", "77", "78"], ["77", "78", "1"]] {
        let hosts: String =
            addresses.iter().map(|host| format!("10.200.0.{host} twin\n")).collect();
        let output = run_with_hosts(&lab, "twin:7000", &hosts);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
    }
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "250 ms for each dead one: {:?}",
        began.elapsed()
    );
    let output = run_with_hosts(&lab, "gone:7000", "10.200.0.77 gone\n10.200.0.78 gone\n");
    assert_eq!(code(&output), 3, "{}", stderr(&output));
    for named in ["gone:7000: ", "10.200.0.77:7000: ", "10.200.0.78:7000: "] {
        assert_eq!(stderr(&output).matches(named).count(), 1, "{named} in {}", stderr(&output));
    }
}

/// Resets the first connections, each at its first record of the handshake.
struct ResetFirst(AtomicU32);

impl Gate for ResetFirst {
    fn record(&self, _: Way, _: usize) -> Verdict {
        let is_left = |left: u32| left.checked_sub(1);
        let reset = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, is_left).is_ok();
        if reset { Verdict::Reset } else { Verdict::Pass }
    }

    fn half(&self) {}
}

#[test]
fn a_reset_in_the_handshake_of_a_control_session_is_tried_again() {
    let root = support::folder();
    let (sender, receiver) = (Daemon::start(root.path(), &[]), Daemon::start(root.path(), &[]));
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gate: Arc<dyn Gate> = Arc::new(ResetFirst(AtomicU32::new(2)));
    proxy::start(free, sender.address.parse().unwrap(), &gate);
    let spec = root.path().join("spec");
    let rows =
        format!("writer {free} pattern:5 0 0-99\nreader {} null: 0 0-99\n", receiver.address);
    fs::write(&spec, format!("id reset\n{rows}")).unwrap();
    let output = support::run(cep_fast(&["run", "--json", "--progress", "never"]).arg(&spec));
    assert_eq!(code(&output), 0, "{}", stderr(&output));
}

/// Rules by which eth1 drops everything silently.
const CUT: &str = "add table inet cut
add chain inet cut in { type filter hook input priority 0; }
add chain inet cut out { type filter hook output priority 0; }
add rule inet cut in iifname eth1 drop
add rule inet cut out oifname eth1 tcp flags & rst == 0 drop
";
/// Rules by which eth1 rejects everything with an error.
const REJECTED: &str = "flush chain inet cut in
add rule inet cut in iifname eth1 meta l4proto tcp reject with tcp reset
";
