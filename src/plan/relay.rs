//! What receivers that want the same bytes could reach by feeding each other.

/// The least time in which `receivers` all come to have `bytes` that senders of `sender_rates` hold, where each receiver
/// may pass on what it has: the bytes must leave the senders once, reach the slowest receiver, and be sent as often as
/// there are receivers by all together. Splitting the bytes into a part for each receiver, own part first, attains it where
/// speeds are equal (as Mundinger, Weber and Weiss show for uplinks, "Optimal scheduling of peer-to-peer file
/// dissemination", 2008).
///
/// Rates are payload bytes per second; a receiver is `(receives, sends)`, with 0 for one that cannot pass on.
#[allow(dead_code, reason = "relaying comes with plans that use it")]
pub(crate) fn least_seconds(bytes: f64, sender_rates: &[f64], receivers: &[(f64, f64)]) -> f64 {
    let sent: f64 = sender_rates.iter().sum();
    let passed_on: f64 = receivers.iter().map(|(_, sends)| sends).sum();
    let slowest = receivers.iter().map(|(receives, _)| *receives).fold(f64::INFINITY, f64::min);
    let all = receivers.len() as f64 * bytes / (sent + passed_on);
    (bytes / sent).max(bytes / slowest).max(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_of_three_bounds_holds() {
        // One sender of equal speed: a copy's time, however many receivers.
        let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
        let equal = |count: usize| least_seconds(100.0, &[10.0], &vec![(10.0, 10.0); count]);
        assert!([1, 2, 16].into_iter().all(|count| near(equal(count), 10.0)));
        // Receivers that cannot pass on: the sender sends all copies itself.
        assert!(near(least_seconds(100.0, &[10.0], &[(10.0, 0.0); 4]), 40.0));
        // A slow receiver is late, whoever feeds it.
        assert!(near(least_seconds(100.0, &[10.0], &[(10.0, 10.0), (1.0, 1.0)]), 100.0));
    }
}
