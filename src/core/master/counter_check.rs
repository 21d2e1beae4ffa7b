//! Check of the payload that rails report against the byte counters of their NICs: payload that
//! took another path is found.

use std::collections::BTreeMap;

use crate::core::spec::NodeAddress;
use crate::core::units::{MIB, human_bytes};
use crate::core::wire::control::RailStats;

/// Lowest part of the payload that the NIC must have counted. The NIC counts headers, too, so a
/// smaller part means that another device carried payload. The tolerance is for counters that are
/// read a moment late.
const COUNTED_PART: f64 = 0.98;
/// Payload below which the counters prove nothing.
const PAYLOAD_BYTES_MIN: u64 = MIB;
/// Bytes that may have been queued in sockets of flows that closed before sending them: twice the
/// kernel's usual limit.
const UNSENT_BYTES_MAX: u64 = 8 * MIB;

/// Returns a sentence for each NIC and direction of a node that counted fewer bytes than its rails
/// moved.
pub(super) fn warnings(node: &NodeAddress, rails: &[RailStats]) -> Vec<String> {
    // A NIC may have several rails. All of them report the same counters.
    let mut nics: BTreeMap<&str, CounterSum> = BTreeMap::new();
    for rail in rails {
        let Some(counted) = rail.counted else { continue };
        let nic = nics.entry(&rail.nic).or_default();
        nic.payload.0 += rail.sent_bytes;
        nic.payload.1 += rail.received_bytes;
        nic.counted = (nic.counted.0.max(counted.0), nic.counted.1.max(counted.1));
    }
    let mut warnings = Vec::new();
    for (nic, CounterSum { payload, counted }) in nics {
        if is_short(payload.0.saturating_sub(UNSENT_BYTES_MAX), counted.0) {
            warnings.push(sentence(node, nic, "sent", payload.0, counted.0, SENT_REMEDY));
        }
        if is_short(payload.1, counted.1) {
            warnings.push(sentence(node, nic, "received", payload.1, counted.1, RECEIVED_REMEDY));
        }
    }
    warnings
}

#[derive(Default)]
struct CounterSum {
    payload: (u64, u64),
    counted: (u64, u64),
}

fn is_short(payload: u64, counted: u64) -> bool {
    payload > PAYLOAD_BYTES_MIN && payload as f64 * COUNTED_PART > counted as f64
}

fn sentence(
    node: &NodeAddress,
    nic: &str,
    verb: &str,
    payload: u64,
    counted: u64,
    cause: &str,
) -> String {
    let (payload, counted) = (human_bytes(payload), human_bytes(counted));
    format!(
        "{node}: the rail of {nic} {verb} {payload}, but {nic} itself counted {counted}: {cause}"
    )
}

const SENT_REMEDY: &str = "the kernel's routes send them over another NIC (look at `ip rule` and \
                           `ip route get PEER from ADDRESS`), or the peer is on the same machine";
const RECEIVED_REMEDY: &str = "they came in by another NIC, which answers for its address \
                               (`cep-fast doctor` there says how to mend that) or to which the \
                               peers' routes lead, or the peer is on the same machine";

#[cfg(test)]
mod tests {
    use super::*;

    fn rail(nic: &str, sent: u64, received: u64, counted: (u64, u64)) -> RailStats {
        let (sent_bytes, received_bytes) = (sent * MIB, received * MIB);
        let counted = Some((counted.0 * MIB, counted.1 * MIB));
        let (path, driver) = (String::new(), String::new());
        let nic = nic.into();
        let faults = 0;
        RailStats { nic, sent_bytes, received_bytes, counted, faults, path, driver, wire: None }
    }

    fn warned(rails: &[RailStats]) -> Vec<String> {
        warnings(&NodeAddress { host: "a".into(), port: 1 }, rails)
    }

    #[test]
    fn payload_that_a_nic_did_not_count_is_named() {
        let text = warned(&[rail("eth0", 0, 100, (3, 205)), rail("eth1", 0, 100, (2, 1))]);
        let [text] = &text[..] else { panic!("{text:?}") };
        assert!(
            text.starts_with(
                "a:1: the rail of eth1 received 100.00 MiB, but eth1 itself counted 1.00 MiB: "
            ),
            "{text}"
        );
        let text = warned(&[rail("eth1", 100, 0, (0, 0))]);
        assert!(
            text[0].contains("eth1 sent 100.00 MiB") && text[0].contains("ip route get"),
            "{text:?}"
        );
    }

    #[test]
    fn what_proves_nothing_is_no_warning() {
        let quiet = [
            rail("eth0", 100, 100, (104, 104)),
            rail("eth1", 0, 100, (0, 98)),
            rail("eth2", 1, 1, (0, 0)),
            rail("eth3", 108, 0, (100, 0)),
            RailStats { counted: None, ..rail("eth4", 100, 100, (0, 0)) },
        ];
        assert_eq!(warned(&quiet), [""; 0]);
    }

    #[test]
    fn several_rails_of_one_nic_are_compared_by_their_sum() {
        let whole = (0, 210);
        assert_eq!(warned(&[rail("eth0", 0, 100, whole), rail("eth0", 0, 100, whole)]), [""; 0]);
        let half = (0, 105);
        assert_eq!(warned(&[rail("eth0", 0, 100, half), rail("eth0", 0, 100, half)]).len(), 1);
    }
}
