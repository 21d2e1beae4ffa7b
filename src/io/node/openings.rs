//! Opening the flow of one rail pair: which ways are tried, when, and what is remembered of those
//! that fail.
//!
//! The usual way joins the rail pair's two rails, bound to the NIC here where the peer is in its
//! subnet. A connection over it may never come up: answers come in by another NIC, a filter drops
//! them, a router carries only other pairs of NICs. So the next way is tried while the first is
//! still waited for, and the first that comes up is taken, as RFC 8305 does for the addresses of a
//! name. The decision page on ways and addresses says which ways there are.
//!
//! Beside them the other side is called: asked, by way of the master, to dial this one. Where both
//! are cut off, the last way leads through the launcher. The decision page on whichever side can be
//! dialled has the times.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::routes::{FlowRoute, KnownRoute};
use crate::core::error::{Code, Error};

/// Time that the peer's kernel has to answer a connection. TCP asks at 0, 1 and 3 s.
pub(super) const CONNECT_WITHIN: Duration = Duration::from_secs(4);
/// Delay after which the first other way is tried beside the usual one.
const FIRST_STAGGER: Duration = Duration::from_secs(1);
/// Delay between further ones (RFC 8305, section 5).
const STAGGER: Duration = Duration::from_millis(250);
/// Delay after which the other side is called: longer than two kernels of this world need to
/// answer each other.
const CALL_AFTER: Duration = Duration::from_millis(300);
/// The same where another rail pair was answered: it is no firewall that keeps this one from it,
/// and both sides would be in each other's way before the kernel's own routes were tried.
const LATE_CALL_AFTER: Duration = Duration::from_millis(1500);
/// Delay after which the launcher's channel is tried, which takes a login: a call has had as much
/// time as a connection.
const CHANNEL_AFTER: Duration = Duration::from_millis(700);
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
    next_at: Instant,
    channel: Option<FlowRoute>,
    call: OpeningCall,
    began: Instant,
    failed: Vec<(FlowRoute, Error)>,
}

/// Whether the other side was called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum OpeningCall {
    /// It is to be called at this instant.
    Due { at: Instant, patience: Duration },
    /// It was, and has until then to come.
    Made { until: Instant },
    /// It has had its time, or is not called.
    Over { was_made: bool },
}

/// The ways of a flow, in the order in which they are tried.
pub(super) struct OpeningWays {
    /// The usual one first.
    pub(super) ways: Vec<FlowRoute>,
    /// The way through the launcher.
    pub(super) channel: Option<FlowRoute>,
    /// Time that the other side has to come once it is called; `None` if it is not called.
    pub(super) call_within: Option<Duration>,
    /// The one that came up the last time.
    pub(super) remembered: Option<KnownRoute>,
}

/// Next step to open a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum WayStep {
    /// Dial this way.
    Dial(FlowRoute),
    /// Call the other side.
    Call,
    /// No way is left.
    Fail,
}

impl FlowOpening {
    /// A flow that is opened by these ways; the remembered one is tried first.
    pub(super) fn new(
        now: Instant,
        ways: OpeningWays,
        weight_bytes: u64,
        pace_bytes_per_second: u64,
    ) -> Option<FlowOpening> {
        let OpeningWays { ways, mut channel, call_within, remembered } = ways;
        let usual = *ways.first()?;
        let mut untried = VecDeque::from(ways);
        let (mut call_at, mut next_at) = (now + CALL_AFTER, now);
        match remembered {
            // The usual way may be open again: it is tried beside the call.
            Some(KnownRoute::Called) if call_within.is_some() => {
                (call_at, next_at) = (now, now + FIRST_STAGGER);
            }
            Some(KnownRoute::Called) | None => {}
            Some(KnownRoute::Dialled(way)) => {
                channel = channel.filter(|it| *it != way);
                untried.retain(|it| *it != way);
                untried.push_front(way);
            }
        }
        let call = match call_within {
            Some(patience) => OpeningCall::Due { at: call_at, patience },
            None => OpeningCall::Over { was_made: false },
        };
        Some(FlowOpening {
            weight_bytes,
            pace_bytes_per_second,
            usual,
            untried,
            under_way: Vec::new(),
            next_at,
            channel,
            call,
            began: now,
            failed: Vec::new(),
        })
    }

    /// The instant at which [`FlowOpening::step`] is due although nothing has failed.
    pub(super) fn due(&self) -> Option<Instant> {
        let next = (!self.untried.is_empty()).then_some(self.next_at);
        let channel = self.channel.map(|_| self.began + CHANNEL_AFTER);
        let call = match self.call {
            OpeningCall::Due { at, .. } => Some(at),
            OpeningCall::Made { until } => Some(until),
            OpeningCall::Over { .. } => None,
        };
        next.into_iter().chain(channel).chain(call).min()
    }

    /// The next thing to do. Call it until there is none.
    pub(super) fn step(&mut self, now: Instant) -> Option<WayStep> {
        match self.call {
            OpeningCall::Due { at, patience } if now >= at => {
                self.call = OpeningCall::Made { until: now + patience };
                return Some(WayStep::Call);
            }
            OpeningCall::Made { until } if now >= until => {
                self.call = OpeningCall::Over { was_made: true };
                if self.is_over() {
                    return Some(WayStep::Fail);
                }
            }
            _ => {}
        }
        let way = match self.channel {
            Some(_) if now >= self.began + CHANNEL_AFTER => self.channel.take(),
            _ if now < self.next_at => None,
            _ => {
                let way = self.untried.pop_front();
                let is_first = self.under_way.is_empty() && self.failed.is_empty();
                self.next_at = now + if is_first { FIRST_STAGGER } else { STAGGER };
                way
            }
        }?;
        self.under_way.push(way);
        Some(WayStep::Dial(way))
    }

    /// Another rail pair of the same two nodes is up.
    pub(super) fn other_is_up(&mut self) {
        if let OpeningCall::Due { at, .. } = &mut self.call {
            *at = (*at).max(self.began + LATE_CALL_AFTER);
        }
    }

    /// A way did not come up. True where no other is left or still waited for.
    pub(super) fn fail(&mut self, now: Instant, way: FlowRoute, error: Error) -> bool {
        self.under_way.retain(|other| *other != way);
        self.failed.push((way, error));
        if self.under_way.is_empty() {
            // Nothing is waited for: what is left need not wait either.
            self.next_at = now;
            if let OpeningCall::Due { at, .. } = &mut self.call {
                *at = now;
            }
        }
        self.is_over()
    }

    /// Returns true if the other side was called, and may still come.
    pub(super) fn is_called(&self) -> bool {
        matches!(self.call, OpeningCall::Made { .. })
    }

    /// Returns true if no way is left, nor waited for.
    fn is_over(&self) -> bool {
        let is_called = !matches!(self.call, OpeningCall::Over { .. });
        let has_ways = !self.untried.is_empty() || !self.under_way.is_empty();
        !is_called && !has_ways && self.channel.is_none()
    }

    /// The outcome of a flow that came up by `way`, or because the other side was called: late, or
    /// by another way than the usual one.
    pub(super) fn came_up(&self, now: Instant, way: Option<FlowRoute>) -> FlowOutcome {
        let took = now.saturating_duration_since(self.began);
        FlowOutcome { took: (took >= LATE).then_some(took), is_detour: way != Some(self.usual) }
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
        if self.call == (OpeningCall::Over { was_made: true }) {
            let nic = nic_of(self.usual.port);
            error.message += &format!("; and it does not reach {nic} here, when it is asked to");
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

    const USUAL: [u8; 4] = [10, 0, 1, 1];
    const CALL_WITHIN: Duration = Duration::from_secs(5);

    fn way(address: [u8; 4], port: u16, is_bound: bool) -> FlowRoute {
        let address = (address, port).into();
        FlowRoute { port: 1, address, rail: 0, is_bound, is_channel: false }
    }

    fn three_ways() -> Vec<FlowRoute> {
        let other = way([10, 0, 0, 1], 1000, false);
        vec![way(USUAL, 1001, true), way(USUAL, 1001, false), other]
    }

    fn opening(now: Instant, remembered: Option<KnownRoute>, calls: bool) -> FlowOpening {
        let channel =
            calls.then(|| FlowRoute { is_channel: true, ..way([127, 0, 0, 1], 9, false) });
        let call_within = calls.then_some(CALL_WITHIN);
        let ways = OpeningWays { ways: three_ways(), channel, call_within, remembered };
        FlowOpening::new(now, ways, 1, 0).expect("there are ways")
    }

    fn nic_of(port: usize) -> String {
        format!("eth{port}")
    }

    fn refused() -> Error {
        Error::new(Code::Unreachable, "refused").remedy("look there")
    }

    /// The steps of an opening that nothing answers, with their milliseconds.
    fn steps(opening: &mut FlowOpening, start: Instant) -> Vec<(u128, WayStep)> {
        let mut found = Vec::new();
        while let Some(due) = opening.due() {
            while let Some(step) = opening.step(due) {
                found.push(((due - start).as_millis(), step));
            }
        }
        found
    }

    #[test]
    fn other_ways_are_tried_beside_one_that_is_not_answered() {
        let start = Instant::now();
        let (mut tried, ways) = (opening(start, None, false), three_ways());
        let dialled = |at: u128, way: usize| (at, WayStep::Dial(ways[way]));
        let expected = [dialled(0, 0), dialled(1000, 1), dialled(1250, 2)];
        assert_eq!(steps(&mut tried, start), expected);
        let took = Some(Duration::from_millis(1300));
        let at = |ms: u64| start + Duration::from_millis(ms);
        assert_eq!(tried.came_up(at(1300), Some(ways[1])), FlowOutcome { took, is_detour: true });
        assert_eq!(
            tried.came_up(at(10), Some(ways[0])),
            FlowOutcome { took: None, is_detour: false }
        );
    }

    #[test]
    fn the_other_side_is_called_soon_and_the_launcher_after_it() {
        let start = Instant::now();
        let (mut tried, ways) = (opening(start, None, true), three_ways());
        let channel = tried.channel.expect("there is one");
        let found = steps(&mut tried, start);
        let expected = [
            (0, WayStep::Dial(ways[0])),
            (300, WayStep::Call),
            (700, WayStep::Dial(channel)),
            (1000, WayStep::Dial(ways[1])),
            (1250, WayStep::Dial(ways[2])),
        ];
        assert_eq!(found, expected);
        assert!(!tried.is_called(), "it has had its time");
        let now = start + CALL_WITHIN;
        let mut ended: Vec<bool> = Vec::new();
        for way in [channel, ways[0], ways[1], ways[2]] {
            ended.push(tried.fail(now, way, refused()));
        }
        assert_eq!(ended, [false, false, false, true]);
        let text = tried.error(nic_of).to_string();
        assert!(text.contains("it does not reach eth1 here"), "{text}");
    }

    #[test]
    fn a_call_that_nobody_answers_ends_the_last() {
        let start = Instant::now();
        let mut tried = opening(start, None, true);
        tried.channel = None;
        let mut called = 0;
        // Each refusal makes room for the next way at once, and for the call.
        while let Some(step) = tried.step(start) {
            match step {
                WayStep::Dial(way) => assert!(!tried.fail(start, way, refused())),
                WayStep::Call => called += 1,
                WayStep::Fail => panic!("the call is waited for"),
            }
        }
        assert!(called == 1 && tried.is_called());
        let at = |ms: u64| start + Duration::from_millis(ms);
        assert_eq!(tried.due(), Some(at(5000)));
        assert_eq!(tried.step(at(4999)), None);
        assert_eq!(tried.step(at(5000)), Some(WayStep::Fail));
    }

    #[test]
    fn every_address_that_was_tried_is_named_when_all_have_failed() {
        let start = Instant::now();
        let mut tried = opening(start, None, false);
        let mut is_over = false;
        for way in &three_ways() {
            assert!(!is_over && tried.step(start) == Some(WayStep::Dial(*way)));
            is_over = tried.fail(start, *way, refused());
        }
        assert!(is_over);
        let text = tried.error(nic_of).to_string();
        assert!(text.starts_with(
            "its data address 10.0.1.1:1001 from eth1: refused; its data address 10.0.0.1:1000 "
        ));
        assert!(text.contains("data ports") && text.matches("10.0.1.1").count() == 1, "{text}");
    }

    #[test]
    fn a_remembered_way_is_tried_first() {
        let (now, ways) = (Instant::now(), three_ways());
        let mut again = opening(now, Some(KnownRoute::Dialled(ways[2])), false);
        let found = steps(&mut again, now);
        let order: Vec<WayStep> = found.into_iter().map(|(_, step)| step).collect();
        assert_eq!(order, [ways[2], ways[0], ways[1]].map(WayStep::Dial));
        assert!(again.came_up(now, Some(ways[2])).is_detour);
        let mut called = opening(now, Some(KnownRoute::Called), true);
        assert_eq!(called.step(now), Some(WayStep::Call));
        assert_eq!(called.step(now), None, "the usual way is tried beside it a second later");
    }
}
