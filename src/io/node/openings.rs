//! Opening the flow of one rail pair: which ways are tried, when, and what is remembered of those
//! that fail.
//!
//! The usual way joins the rail pair's two rails, bound to the NIC here where the peer is in its
//! subnet. A connection over it may never come up: answers come in by another NIC, a filter drops
//! them, a router carries only other pairs of NICs. So the next way is tried while the first is
//! still waited for, and the first that comes up is taken, as RFC 8305 does for the addresses of a
//! name. The decision page on ways and addresses says which ways there are.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::routes::FlowRoute;
use crate::core::error::{Code, Error};

/// Time that the peer's kernel has to answer a connection. TCP asks at 0, 1 and 3 s.
pub(super) const CONNECT_WITHIN: Duration = Duration::from_secs(4);
/// Delay after which the first other way is tried beside the usual one.
const FIRST_STAGGER: Duration = Duration::from_secs(1);
/// Delay between further ones (RFC 8305, section 5).
const STAGGER: Duration = Duration::from_millis(250);
/// A flow that came up later than this has cost time that the report tells.
pub(super) const LATE: Duration = Duration::from_millis(900);
/// Addresses that one message names.
const NAMED_MAX: usize = 4;

/// A flow that is being opened.
#[derive(Debug)]
pub(super) struct FlowOpening {
    pub(super) weight_bytes: u64,
    pub(super) pace_bytes_per_second: u64,
    usual: FlowRoute,
    untried: VecDeque<FlowRoute>,
    under_way: Vec<FlowRoute>,
    /// The instant at which the next way is tried, although others are still waited for.
    next_at: Option<Instant>,
    began: Instant,
    failed: Vec<(FlowRoute, Error)>,
}

impl FlowOpening {
    /// A flow that is opened by `ways`, the first of which is the usual one; `remembered` is tried
    /// before it.
    pub(super) fn new(
        now: Instant,
        ways: Vec<FlowRoute>,
        remembered: Option<FlowRoute>,
        weight_bytes: u64,
        pace_bytes_per_second: u64,
    ) -> Option<FlowOpening> {
        let usual = *ways.first()?;
        let mut untried = VecDeque::from(ways);
        if let Some(way) = untried
            .iter()
            .position(|way| Some(*way) == remembered)
            .and_then(|at| untried.remove(at))
        {
            untried.push_front(way);
        }
        let (under_way, failed) = (Vec::new(), Vec::new());
        Some(FlowOpening {
            weight_bytes,
            pace_bytes_per_second,
            usual,
            untried,
            under_way,
            next_at: Some(now),
            began: now,
            failed,
        })
    }

    /// The instant at which [`FlowOpening::next`] is due although nothing has failed.
    pub(super) fn due(&self) -> Option<Instant> {
        self.next_at.filter(|_| !self.untried.is_empty())
    }

    /// The next way to try.
    pub(super) fn next(&mut self, now: Instant) -> Option<FlowRoute> {
        let way = self.untried.pop_front()?;
        let is_first = self.under_way.is_empty() && self.failed.is_empty();
        self.next_at = Some(now + if is_first { FIRST_STAGGER } else { STAGGER });
        self.under_way.push(way);
        Some(way)
    }

    /// A way did not come up. True where no other is left or still waited for.
    pub(super) fn fail(&mut self, way: FlowRoute, error: Error) -> bool {
        self.under_way.retain(|other| *other != way);
        self.failed.push((way, error));
        self.under_way.is_empty() && self.untried.is_empty()
    }

    /// Returns true if another way should be tried now: none is waited for any more.
    pub(super) fn is_idle(&self) -> bool {
        self.under_way.is_empty()
    }

    /// The outcome of a flow that came up by `way`: late, or by another way than the usual one.
    pub(super) fn came_up(&self, now: Instant, way: FlowRoute) -> FlowOutcome {
        let took = now.saturating_duration_since(self.began);
        FlowOutcome { took: (took >= LATE).then_some(took), is_detour: way != self.usual }
    }

    /// The error of a flow that did not come up, with the addresses that were tried.
    pub(super) fn error(&self, nic_of: impl Fn(usize) -> String) -> Error {
        let Some((way, first)) = self.failed.first() else {
            return Error::new(Code::Unreachable, "its flow could not be opened");
        };
        let at =
            |way: &FlowRoute| format!("its data address {} from {}", way.address, nic_of(way.port));
        let mut error = first.clone().at(at(way));
        let mut named = vec![(way.port, way.address)];
        for (way, other) in &self.failed[1..] {
            if named.len() < NAMED_MAX && !named.contains(&(way.port, way.address)) {
                named.push((way.port, way.address));
                error.message += &format!("; {}: {}", at(way), other.message);
            }
        }
        if error.code == Code::Unreachable {
            error.remedy = Some(DATA_PORTS.into());
        }
        error
    }

    /// The error so far, while it is still being opened: nothing has answered for so long.
    pub(super) fn so_far(&self, now: Instant, nic_of: impl Fn(usize) -> String) -> Option<Error> {
        let waited = now.saturating_duration_since(self.began);
        if waited < LATE {
            return None;
        }
        if !self.failed.is_empty() {
            return Some(self.error(nic_of));
        }
        let FlowRoute { address, port, .. } = self.usual;
        let what = format!(
            "its data address {address} from {}: no connection for {:.1} s",
            nic_of(port),
            waited.as_secs_f64()
        );
        Some(Error::new(Code::Unreachable, what).remedy(DATA_PORTS))
    }

    pub(super) fn usual(&self) -> FlowRoute {
        self.usual
    }
}

const DATA_PORTS: &str = "let TCP connections to the data ports of that node through: those of \
                          --ports there, else free ports of its kernel, in \
                          net.ipv4.ip_local_port_range";

/// The outcome of a flow that came up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FlowOutcome {
    /// Time that it took, where that is worth telling.
    pub(super) took: Option<Duration>,
    /// Another way than the usual one was taken.
    pub(super) is_detour: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opening(now: Instant, remembered: Option<FlowRoute>) -> (FlowOpening, Vec<FlowRoute>) {
        let way = |address: [u8; 4], port: u16, is_bound| FlowRoute {
            port: 1,
            address: (address, port).into(),
            rail: 0,
            is_bound,
        };
        let usual = [10, 0, 1, 1];
        let ways =
            vec![way(usual, 1001, true), way(usual, 1001, false), way([10, 0, 0, 1], 1000, false)];
        (FlowOpening::new(now, ways.clone(), remembered, 1, 0).expect("there are ways"), ways)
    }

    fn nic_of(port: usize) -> String {
        format!("eth{port}")
    }

    #[test]
    fn other_ways_are_tried_beside_one_that_is_not_answered() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let (mut opening, ways) = opening(start, None);
        assert_eq!((opening.due(), opening.next(start)), (Some(start), Some(ways[0])));
        assert_eq!((opening.due(), opening.next(at(1000))), (Some(at(1000)), Some(ways[1])));
        assert_eq!((opening.due(), opening.next(at(1250))), (Some(at(1250)), Some(ways[2])));
        assert_eq!((opening.due(), opening.next(at(2000))), (None, None));
        let took = Some(Duration::from_millis(1300));
        assert_eq!(opening.came_up(at(1300), ways[1]), FlowOutcome { took, is_detour: true });
        assert_eq!(opening.came_up(at(10), ways[0]), FlowOutcome { took: None, is_detour: false });
    }

    #[test]
    fn every_address_that_was_tried_is_named_when_all_have_failed() {
        let start = Instant::now();
        let (mut opening, ways) = opening(start, None);
        let mut refused = false;
        for way in &ways {
            assert!(!refused && opening.next(start) == Some(*way));
            refused =
                opening.fail(*way, Error::new(Code::Unreachable, "refused").remedy("look there"));
        }
        assert!(refused);
        let text = opening.error(nic_of).to_string();
        assert!(text.starts_with(
            "its data address 10.0.1.1:1001 from eth1: refused; its data address 10.0.0.1:1000 "
        ));
        assert!(text.contains("data ports") && text.matches("10.0.1.1").count() == 1, "{text}");
    }

    #[test]
    fn a_remembered_way_is_tried_first() {
        let now = Instant::now();
        let (_, ways) = opening(now, None);
        let (mut again, _) = opening(now, Some(ways[2]));
        assert_eq!(
            (again.next(now), again.next(now), again.next(now)),
            (Some(ways[2]), Some(ways[0]), Some(ways[1]))
        );
        assert!(again.came_up(now, ways[2]).is_detour);
    }
}
