//! The text of a report.

use crate::core::report::tests::{failed, report};
use crate::core::report::{Report, gbit_per_s};

#[test]
fn people_read_result_bound_and_nodes() {
    let text = report().to_string();
    for expected in [
        "My Data File complete: 953.67 MiB in 1.000 s, 8.00 Gbit/s (1.500 s with start \
         and end: preallocate 0.250 s, commit 0.200 s)\n",
        "bound: 0.800 s, set by node6:55558; 80.0 % of it achieved\n",
        "scheduler: greedy; blocks of 1.00 MiB; check: crc64, 0123456789abcdef\n",
        "wasted: 0 B; stolen: 1.00 MiB; retries: 2\n",
        "replicas: 1.00 MiB of 953.67 MiB compared (a sample)\n",
        #[cfg(feature = "cli")]
        "80.0 % of 10 Gbit/s",
        #[cfg(feature = "cli")]
        "48.00 MiB",
        "\nwarning: node1:55553: eth0 is short of bytes\n",
        "path: splice (io_uring): node1:55553 eth0\n",
        "path: recv+direct (io_uring): node6:55558 eth0\n",
    ] {
        assert!(text.contains(expected), "{expected} is not in\n{text}");
    }
    assert!(!text.contains("error"));
}

#[test]
fn people_read_what_is_missing_and_what_to_do() {
    let text = failed().to_string();
    assert!(text.contains("error 3: node1:55553 was lost (run again to resume)\n"), "{text}");
    assert!(text.contains("missing: 100 bytes: 0-4 10-14 "), "{text}");
    assert!(text.contains("150-154 and 4 more ranges"), "{text}");
    assert!(!text.contains("bound") && !text.contains("achieved"), "{text}");
}

#[test]
fn no_time_passed_is_no_division_by_zero() {
    let report = Report { seconds: 0.0, gbit_per_s: gbit_per_s(5, 0.0), ..report() };
    assert_eq!(gbit_per_s(5, 0.0).to_bits(), 0f64.to_bits());
    let text = report.to_string();
    assert!(!text.contains("inf") && !text.contains("NaN"), "{text}");
}
