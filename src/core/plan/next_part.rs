//! Size of the next part of a group for one of its members: guided self-scheduling
//! (Polychronopoulos and Kuck 1987) in time, begun as TCP begins.
//!
//! A member should have work for a fixed part of the time that all of them still need together, by
//! the speeds that were measured. So parts become smaller towards the end, and all end together. A
//! member that has landed little gets no more than it has landed: its speed may be a burst.

/// Blocks of the first part of a member whose speed nobody knows. As many belong to a member that
/// turns out to carry nothing.
const FIRST_BLOCKS: f64 = 2.0;
/// A member has work for one in so many parts of the remaining time.
const PARTS: f64 = 3.0;
/// Work of a member, in seconds, below which parts do not become smaller: a report and a part take
/// tens of milliseconds, and more in a wide area.
const SECONDS_MIN: f64 = 0.5;
/// A member gets more when it has no more left than this part of what it should have.
const REFILL: f64 = 0.5;
/// A member reports when it has this part left of what it should have. Less than `REFILL`, because
/// the time that remains is shorter by then.
const REPORT: f64 = 0.35;
/// A member's total is not above this factor of what it has landed.
const GROWTH: f64 = 2.0;
/// Factor by which a block may end later than at the member that would end first.
const LATE: f64 = 1.1;
/// Blocks up to which a member gets more before it has landed any, if a sender of it has nothing to
/// send: those that have may be the slow ones.
const EARLY_BLOCKS: f64 = 4.0;
/// The first part is not above this part of the planned one.
const FIRST_PART: f64 = 0.5;

/// Progress of a member, by its last report.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(crate) struct MemberProgress {
    /// Bytes that it owns, and that have not landed.
    pub(crate) unlanded_bytes: f64,
    /// Bytes that it has received so far.
    pub(crate) landed_bytes: f64,
    /// Its measured speed, once it has received anything.
    pub(crate) bytes_per_second: Option<f64>,
    /// True if a sender of it has nothing to send to it.
    pub(crate) is_dry: bool,
}

/// A further part.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct NextPart {
    /// Size of the part.
    pub(crate) bytes: f64,
    /// Bytes left to the member at which it should get the next one.
    pub(crate) more_at: f64,
}

/// Returns the first part of a member that the plan would give `target_bytes`.
pub(crate) fn first_part(target_bytes: f64, block_bytes: f64, is_declared: bool) -> NextPart {
    let part = target_bytes * FIRST_PART;
    let most = if is_declared { part } else { part.min(FIRST_BLOCKS * block_bytes) };
    let bytes = most.max(block_bytes);
    NextPart { bytes, more_at: (bytes * REPORT).max(block_bytes) }
}

/// Returns the next part of `members[at]` of a group of which `rest_bytes` have no owner, if it
/// should get one now. `members` are those that can get any.
pub(crate) fn next_part(
    rest_bytes: f64,
    block_bytes: f64,
    members: &[MemberProgress],
    at: usize,
) -> Option<NextPart> {
    let MemberProgress { unlanded_bytes, landed_bytes, bytes_per_second, is_dry } = members[at];
    let Some(rate) = bytes_per_second.filter(|rate| *rate > 0.0) else {
        // It may have had nothing but zeros, or a sender of it has nothing to send.
        let is_low = unlanded_bytes < EARLY_BLOCKS * block_bytes;
        return (is_low && is_dry).then_some(NextPart { bytes: block_bytes, more_at: block_bytes });
    };
    let rates: f64 = members.iter().filter_map(|it| it.bytes_per_second).sum();
    let unlanded: f64 = members.iter().map(|it| it.unlanded_bytes).sum();
    let seconds = (rest_bytes + unlanded) / rates;
    let horizon = (seconds / PARTS).max(SECONDS_MIN).min(seconds);
    let most = (GROWTH * landed_bytes).max(FIRST_BLOCKS * block_bytes);
    let aim = (rate * horizon).min(most);
    let bytes = aim - unlanded_bytes;
    if bytes >= block_bytes {
        let is_low = is_dry || unlanded_bytes <= REFILL * aim;
        let more_at = (aim * REPORT).max(block_bytes);
        return is_low.then_some(NextPart { bytes, more_at });
    }
    // Less than a block is a block for the member that is through with it in time, or first.
    let ends = |it: &MemberProgress| {
        let rate = it.bytes_per_second.filter(|rate| *rate > 0.0)?;
        Some((it.unlanded_bytes + block_bytes) / rate)
    };
    let first = members.iter().filter_map(ends).fold(f64::INFINITY, f64::min);
    let is_through = ends(&members[at])? <= (first * LATE).max(seconds);
    let is_low = is_dry || unlanded_bytes < block_bytes;
    (is_low && is_through).then_some(NextPart { bytes: block_bytes, more_at: block_bytes })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BLOCK: f64 = 1e6;

    /// Deals `blocks` to members of these speeds, each of which reports when it is low. Returns the
    /// seconds until all have landed, and the parts.
    fn deal(blocks: u32, speeds: &[f64], is_declared: bool) -> (f64, usize) {
        let mut rest = f64::from(blocks) * BLOCK;
        let (mut members, mut more_at) = (Vec::new(), Vec::new());
        let target = rest / speeds.len() as f64;
        for _ in speeds {
            let part = first_part(target, BLOCK, is_declared);
            let bytes = ((part.bytes / BLOCK).round() * BLOCK).min(rest);
            rest -= bytes;
            members.push(MemberProgress { unlanded_bytes: bytes, ..MemberProgress::default() });
            more_at.push(part.more_at);
        }
        let (mut seconds, mut parts, tick) = (0.0, 0, 0.01);
        while rest > 0.0 || members.iter().any(|it| it.unlanded_bytes > 0.0) {
            seconds += tick;
            for (member, speed) in members.iter_mut().zip(speeds) {
                let landed = (speed * tick).min(member.unlanded_bytes);
                member.unlanded_bytes -= landed;
                member.landed_bytes += landed;
                member.bytes_per_second = Some(*speed);
            }
            for at in (0..speeds.len())
                .filter(|at| rest > 0.0 && members[*at].unlanded_bytes <= more_at[*at])
                .collect::<Vec<_>>()
            {
                let Some(next) = next_part(rest, BLOCK, &members, at) else { continue };
                let bytes = ((next.bytes / BLOCK).round().max(1.0) * BLOCK).min(rest);
                (rest, more_at[at], parts) = (rest - bytes, next.more_at, parts + 1);
                members[at].unlanded_bytes += bytes;
            }
            assert!(seconds < 1e6, "{rest} bytes are left with {members:?}");
        }
        (seconds, parts)
    }

    #[test]
    fn a_member_of_unknown_speed_owns_a_few_blocks() {
        let part = first_part(1e12, BLOCK, false);
        assert_eq!((part.bytes, part.more_at), (2.0 * BLOCK, BLOCK));
        let unknown = |blocks: f64, is_dry| MemberProgress {
            unlanded_bytes: blocks * BLOCK,
            is_dry,
            ..MemberProgress::default()
        };
        assert_eq!(next_part(1e12, BLOCK, &[unknown(2.0, false)], 0), None);
        assert!(next_part(1e12, BLOCK, &[unknown(3.0, true)], 0).is_some());
        assert_eq!(next_part(1e12, BLOCK, &[unknown(4.0, true)], 0), None);
    }

    #[test]
    fn a_burst_at_the_start_is_no_speed() {
        let burst = MemberProgress {
            landed_bytes: 3.0 * BLOCK,
            bytes_per_second: Some(1e9),
            ..MemberProgress::default()
        };
        let next = next_part(1e12, BLOCK, &[burst], 0).expect("it has nothing left");
        assert!(next.bytes <= 6.0 * BLOCK, "{next:?}");
    }

    #[test]
    fn of_few_blocks_a_slow_member_gets_as_many_as_it_can_land_in_time() {
        let (seconds, _) = deal(24, &[10e6, 10e6, 2e6], false);
        assert!(seconds < 1.25, "{seconds} s, and 1.1 are the least in whole blocks");
    }

    proptest! {
        #[test]
        fn all_end_together_in_few_parts(
            blocks in 1u32..20_000,
            speeds in proptest::collection::vec(1e6f64..200e6, 1..8),
            is_declared: bool,
        ) {
            let bound = f64::from(blocks) * BLOCK / speeds.iter().sum::<f64>();
            let slowest = speeds.iter().copied().fold(f64::INFINITY, f64::min);
            let (seconds, parts) = deal(blocks, &speeds, is_declared);
            // A declared speed that is wrong costs half of its part.
            let half = f64::from(blocks) / 2.0 / speeds.len() as f64;
            let first = if is_declared { half.max(2.0) } else { 2.0 };
            let first_seconds = (first + 1.0) * BLOCK / slowest;
            let allowed = (1.05 * bound + 0.3 + 1.1 * BLOCK / slowest).max(first_seconds + 0.1);
            prop_assert!(seconds <= allowed, "{} s of {} and {}", seconds, bound, allowed);
            prop_assert!(parts <= 90 * speeds.len(), "{} parts", parts);
        }
    }
}
