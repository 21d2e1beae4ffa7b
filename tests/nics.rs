//! NICs of flows, in labs: flows stay on their NICs, and the report names those that do not.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod support;

use serde_json::{Value, json};
use support::lab::Lab;
use support::{code, stderr};

fn moved(lab: &Lab, mib: u64) -> Value {
    let last = (mib << 20) - 1;
    let rows = format!(
        "writer 10.200.0.1:7000 pattern:5 0 0-{last}\nreader 10.200.0.2:7000 null: 0 0-{last}\n"
    );
    let output = lab.run(&format!("id nics\n{rows}"));
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    support::json(&output)
}

/// Moves eth1 of a node into the subnet of eth0, and to the same switch.
const SAME_SUBNET: &str = "ip address flush dev eth1; ip address add 10.200.0.1$NODE/24 dev eth1";

#[test]
fn two_nics_in_one_subnet_carry_a_part_each() {
    let change = |node: u32| {
        let addresses = SAME_SUBNET.replace("$NODE", &node.to_string());
        format!(
            "{addresses}; sysctl -qw net.ipv4.conf.all.arp_ignore=1 \
             net.ipv4.conf.all.arp_announce=2"
        )
    };
    let (first, second) = (change(1), change(2));
    // The switches of the first and second NICs become one network.
    let changes = [(1, first.as_str()), (2, &second)];
    let Some(lab) = Lab::changed(2, 2, "200mbit", &changes) else { return };
    lab.join_switches();
    let report = moved(&lab, 64);
    assert_eq!(report["warnings"], json!([]));
    for node in [0, 1] {
        for rail in report["nodes"][node]["rails"].as_array().unwrap() {
            let bytes =
                rail["bytes_sent"].as_u64().unwrap() + rail["bytes_received"].as_u64().unwrap();
            assert!(bytes > 20 << 20, "about half of it: {report}");
        }
    }
    // Without binding, the kernel's route for the subnet sends everything over one NIC, and its
    // rate is the limit.
    assert!(report["gbit_per_s"].as_f64().unwrap() > 0.3, "{report}");
}

#[test]
fn payload_that_a_route_takes_elsewhere_is_a_warning_that_names_node_and_nic() {
    let change = |node: u32| {
        format!(
            "ip address flush dev eth1; ip address add 10.201.0.{node}/32 dev eth1; ip route add \
             10.201.0.0/24 dev eth0"
        )
    };
    let (first, second) = (change(1), change(2));
    let Some(lab) = Lab::changed(2, 2, "1gbit", &[(1, &first), (2, &second)]) else { return };
    let report = moved(&lab, 96);
    let warnings: Vec<&str> =
        report["warnings"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    let [sent, received] = warnings[..] else { panic!("{report}") };
    assert!(sent.starts_with("10.200.0.1:7000: the rail of eth1 sent "), "{sent}");
    assert!(received.starts_with("10.200.0.2:7000: the rail of eth1 received "), "{received}");
}

#[test]
fn doctor_tries_every_pair_of_rails_and_names_the_nic_that_did_not_carry_its_own() {
    let Some(lab) = Lab::up(2, 2, "200mbit") else { return };
    let doctor = |peer: &str| {
        let output = support::run(
            lab.inside(1).args(["doctor", peer, "--json", "--key-file"]).arg(lab.path("key")),
        );
        (code(&output), support::json(&output), stderr(&output))
    };
    let (_, found, said) = doctor("10.200.0.2:7000");
    let pairs = found["peer"]["pairs"].as_array().unwrap_or_else(|| panic!("{found} {said}"));
    assert_eq!(pairs.len(), 4, "two rails, two directions: {found}");
    for pair in pairs {
        assert_eq!(
            (&pair["carried_by"], &pair["peer_carried_by"]),
            (&pair["nic"], &pair["peer_nic"]),
            "{pair}"
        );
        assert_eq!(pair["nic"], pair["peer_nic"], "those of one subnet");
        // At most the line rate and its burst; how much less depends on the machine.
        let rate = pair["gbit_per_s"].as_f64().unwrap();
        assert!(rate > 0.01 && rate < 0.25, "{pair}");
    }
    // A NIC that is cut off silently.
    let rules = "add table inet cut
add chain inet cut in { type filter hook input priority 0; }
add rule inet cut in iifname eth1 drop
";
    lab.network.nft(2, rules).unwrap();
    let (status, found, _) = doctor("10.200.0.2:7000");
    let dead =
        |finding: &&Value| finding["found"].as_str().unwrap().starts_with("it carried nothing");
    let dead: Vec<&Value> = found["findings"].as_array().unwrap().iter().filter(dead).collect();
    assert!(
        status == 5
            && dead.len() == 2
            && dead.iter().all(|it| it["about"].as_str().unwrap().starts_with("eth1 ")),
        "{found}"
    );
    let says_why =
        |it: &Value| it["found"].as_str().unwrap().contains(": its data address 10.201.0.");
    assert!(dead.iter().any(|it| says_why(it)), "{found}");
    let (status, found, said) = doctor("10.200.0.2:7001");
    assert!(status == 3 && found["peer"].is_null() && said.contains("10.200.0.2:7001"), "{said}");
}

#[test]
fn a_row_names_the_nics_that_its_node_uses() {
    let Some(lab) = Lab::up(2, 2, "200mbit") else { return };
    let last = (16 << 20) - 1;
    let spec = |nics: &str| {
        format!(
            "id nics\nwriter 10.200.0.1:7000 pattern:5 0 0-{last}{nics}\n\
             reader 10.200.0.2:7000 null: 0 0-{last}\n"
        )
    };
    for (nics, used) in [(" nics=eth1", "eth1"), (" nics=10.200.0.1", "eth0")] {
        let output = lab.run(&spec(nics));
        assert_eq!(code(&output), 0, "{nics}: {}", stderr(&output));
        let report = support::json(&output);
        let rails = report["nodes"][0]["rails"].as_array().unwrap();
        let with: Vec<_> = rails.iter().map(|it| it["nic"].as_str()).collect();
        assert_eq!(with, [Some(used)], "{nics}: {report}");
        assert!(rails[0]["bytes_sent"].as_i64() > Some(last), "{nics}: {report}");
    }
    let output = lab.run(&spec(" nics=eth1,eth7"));
    assert_eq!(code(&output), 2, "{}", stderr(&output));
    let said = stderr(&output);
    let expected = ["10.200.0.1:7000", "line 2", "no NIC eth7", "eth0, eth1", "--nic eth7"];
    expected.iter().for_each(|word| assert!(said.contains(word), "{word}: {said}"));
}
