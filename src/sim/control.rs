//! What goes between the simulated master and its nodes, and what a node's machines want done.

use std::time::Duration;

use super::cluster::{Cluster, Happening, Job, Way};
use crate::engine::FlowIx;
use crate::engine::member::{self, Member};
use crate::engine::pull;
use crate::engine::serve;
use crate::error::{Code, Error};
use crate::master::conduct;
use crate::units::{NodeIx, covers};
use crate::wire::control::{self, Advert, Prepare, Rail, ToMaster, ToNode};

/// What a simulated node says of itself: one NIC whose speed it does not know.
fn advert() -> Advert {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    let rail = Rail { nic: "sim0".into(), address, line: None, mtu: None, numa: None };
    Advert {
        software: "simulator".into(),
        rails: vec![rail],
        cores: 1,
        boot_id: String::new(),
        incarnation: 1,
    }
}

impl Cluster {
    pub(super) fn node_up(&mut self, node: NodeIx) {
        if self.nodes[node.at()].alive && !self.nodes[node.at()].lost {
            self.nodes[node.at()].met = true;
            self.conductor.handle(self.now, conduct::Event::NodeUp { node, advert: advert() });
            self.follow_master();
        }
    }

    pub(super) fn node_hears(&mut self, node: NodeIx, message: &[u8]) {
        if !self.nodes[node.at()].alive {
            return;
        }
        let message = control::decode::<ToNode>(message).expect("the master speaks the protocol");
        if let ToNode::MakeWay { .. } = message {
            // Attempts follow one another here.
            return;
        }
        self.nodes[node.at()].talk.hear();
        match message {
            ToNode::Prepare(prepare) => self.prepare(node, &prepare),
            message => {
                if matches!(message, ToNode::Cancel { forgets: true, .. }) {
                    self.nodes[node.at()].disk.forget();
                }
                self.member(node, member::Event::Master(message));
            }
        }
    }

    /// The master is done, and says so.
    pub(super) fn good_bye(&mut self, node: NodeIx) {
        let state = &mut self.nodes[node.at()];
        state.is_dismissed = true;
        if std::mem::take(&mut state.remembers) && state.alive {
            state.disk.confirm();
        }
        self.member(node, member::Event::Master(ToNode::Finish));
    }

    pub(super) fn master_hears(&mut self, node: NodeIx, message: &[u8]) {
        if self.is_orphaned {
            return;
        }
        let message = control::decode::<ToMaster>(message).expect("nodes speak the protocol");
        self.nodes[node.at()].heard_of += u32::from(message.is_counted());
        self.history.hear(self.now, node, &message);
        self.conductor.handle(self.now, conduct::Event::Message { node, message });
        self.follow_master();
    }

    pub(super) fn follow_master(&mut self) {
        while let Some(action) = self.conductor.poll_action() {
            let conduct::Action { node, message } = action;
            if !self.nodes[node.at()].parted {
                let bytes =
                    control::encode(&message).expect("transfers in the simulator are small");
                self.in_order(
                    Way::ToNode(node),
                    self.world.latency,
                    Happening::ToNode(node, bytes),
                );
            }
        }
    }

    /// A node gets ready.
    fn prepare(&mut self, node: NodeIx, prepare: &Prepare) {
        let state = &mut self.nodes[node.at()];
        let mut member = Member::new(member::Terms::of(prepare, 1));
        let prepared = state.disk.prepare(prepare).map(|ready| {
            if let Some(found) = ready.found {
                state.found.clone_from(&found);
                member.handle(self.now, member::Event::Found(found));
            }
            ready.prepared
        });
        state.member = Some(member);
        let delay = self.disk_seconds(0);
        self.after(delay, Happening::Member(node, member::Event::Prepared(prepared)));
    }

    pub(super) fn member(&mut self, node: NodeIx, event: member::Event) {
        let state = &mut self.nodes[node.at()];
        if let Some(member) = state.member.as_mut().filter(|_| state.alive) {
            member.handle(self.now, event);
            self.follow(node);
        }
    }

    /// Carries out everything that a node's machines want, until they want nothing.
    pub(super) fn follow(&mut self, node: NodeIx) {
        loop {
            let state = &mut self.nodes[node.at()];
            if let Some(event) = state.pull.poll_owner() {
                if let Some(member) = &mut state.member {
                    member.handle(self.now, member::Event::Owner(event));
                }
            } else if let Some(action) = state.member.as_mut().and_then(Member::poll_action) {
                self.member_action(node, action);
            } else if let Some(action) = state.pull.poll_action() {
                self.pull_action(node, action);
            } else if let Some(action) = state.serve.poll_action() {
                self.serve_action(node, action);
            } else {
                break;
            }
        }
        let state = &mut self.nodes[node.at()];
        state.check_slots();
        if state.draining && state.writing == 0 {
            state.draining = false;
            self.after(Duration::ZERO, Happening::Member(node, member::Event::Drained));
        }
        self.rearm(node);
    }

    fn member_action(&mut self, node: NodeIx, action: member::Action) {
        use member::Action;
        let now = self.now;
        let state = &mut self.nodes[node.at()];
        match action {
            Action::Preallocate { wanted, holes, kept, forgets } => {
                self.do_later(node, Job::Preallocate { wanted, holes, kept, forgets });
            }
            Action::Open { lane, weight, .. } => {
                self.after(
                    3 * self.world.latency,
                    Happening::FlowOpened { receiver: node, lane, weight },
                );
            }
            Action::Lease { flow, pieces } => {
                state.pull.handle(now, pull::Event::Lease { flow, pieces })
            }
            Action::Revoke { flow, pieces } => {
                state.pull.handle(now, pull::Event::Revoke { flow, pieces })
            }
            Action::Close { flow } => {
                self.close_fetching(node, flow, &Error::new(Code::Cancelled, "closed"))
            }
            Action::Offer { span } => {
                state.relay.land(span);
                while let Some((flow, ask)) = state.relay.poll_ready() {
                    state.serve.handle(serve::Event::Request { flow, ask });
                }
            }
            Action::Withdraw { span } => {
                for (flow, ask) in state.relay.give_up(span) {
                    self.serve_action(node, serve::Action::Refuse { flow, ask, code: Code::Data });
                }
            }
            Action::Drain => {
                let flows: Vec<FlowIx> = state.fetching.keys().copied().collect();
                state.parked.clear();
                state.draining = true;
                for flow in flows {
                    self.close_fetching(node, flow, &Error::new(Code::Cancelled, "drained"));
                }
            }
            Action::Commit { landed_everywhere, checks } => {
                state.committed.get_or_insert(now);
                self.do_later(node, Job::Commit { landed_everywhere, checks });
            }
            Action::Tell(message) => {
                let bytes =
                    control::encode(&message).expect("transfers in the simulator are small");
                if message.is_counted() {
                    state.talk.say(bytes.clone());
                }
                if !state.parted {
                    self.in_order(
                        Way::ToMaster(node),
                        self.world.latency,
                        Happening::ToMaster(node, bytes),
                    );
                }
            }
            Action::Keep { pieces } => {
                state.disk.keep(&pieces);
                self.do_later(node, Job::Flush);
            }
            Action::Leave => self.do_later(node, Job::Leave),
            Action::Confirm if state.is_dismissed => state.disk.confirm(),
            Action::Confirm => state.remembers = true,
            Action::Discard => state.disk.discard(),
            Action::End => {
                let serving: Vec<FlowIx> = state.serving.keys().copied().collect();
                for flow in serving {
                    self.close_serving(
                        node,
                        flow,
                        &Error::new(Code::Cancelled, "the transfer has ended"),
                    );
                }
            }
        }
    }

    fn do_later(&mut self, node: NodeIx, job: Job) {
        let delay = self.disk_seconds(0);
        self.after(delay, Happening::Done(node, job));
    }

    /// A node's disk does what its member has asked for.
    pub(super) fn done(&mut self, node: NodeIx, job: Job) {
        use member::Event;
        let state = &mut self.nodes[node.at()];
        if !state.alive {
            return;
        }
        let event = match job {
            Job::Preallocate { wanted, holes, kept, forgets } => {
                let done = state.disk.preallocate(&wanted, &holes, &kept, forgets);
                let found =
                    state.found.iter().map(|piece| piece.span).filter(|span| covers(&kept, *span));
                let empty = holes
                    .iter()
                    .flat_map(|hole| state.wanted.iter().filter_map(|it| it.intersection(*hole)));
                state.landed.extend(found.chain(empty));
                Event::Preallocated(done)
            }
            Job::Flush => {
                state.disk.flush();
                Event::Kept
            }
            Job::Commit { landed_everywhere, checks } => {
                Event::Committed(state.disk.commit(landed_everywhere, &checks))
            }
            Job::Leave => {
                state.disk.discard();
                Event::Left
            }
        };
        self.member(node, event);
    }

    /// What a disk takes for so many bytes.
    pub(super) fn disk_seconds(&mut self, bytes: u64) -> Duration {
        let whims =
            Duration::from_nanos(self.random.below(self.world.disk_whims.as_nanos() as u64 + 1));
        self.world.disk_latency
            + whims
            + Duration::from_secs_f64(bytes as f64 / self.world.disk_bytes_per_second)
    }
}
