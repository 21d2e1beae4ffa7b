//! Tables of what a master does about its sessions.

use super::*;
use crate::core::master::attempt::{AttemptConfig, TransferIdentity};
use crate::core::master::roster::Roster;
use crate::core::options::TransferOptions;
use crate::core::spec::Spec;
use crate::core::wire::control::{NodeStats, Prepared};

const NODE: NodeIx = NodeIx(1);

fn address(last: u8) -> SocketAddr {
    ([10, 0, 0, last], 7).into()
}

/// It speaks of two NICs, of which one has two threads.
fn advert() -> NodeAdvert {
    let rail = |nic: &str, address| RailAdvert {
        nic: nic.into(),
        address,
        line: None,
        mtu: None,
        numa: None,
    };
    NodeAdvert {
        software: String::new(),
        rails: vec![
            rail("eth0", address(1)),
            rail("eth0", ([10, 0, 0, 1], 8).into()),
            rail("eth1", address(2)),
        ],
        cores: 1,
        boot_id: String::new(),
        incarnation: 1,
    }
}

fn master(nodes: usize) -> MasterMachine {
    let readers: String =
        (1..nodes).map(|node| format!("reader n{node}:1 null: 0 0-99\n")).collect();
    let text = format!("id sessions\nwriter n0:1 pattern:1 0 0-99\n{readers}");
    let spec = Spec::parse("sessions", &text).expect("a specification");
    let roster = Roster::new(&spec);
    let identity = TransferIdentity {
        id: "id".into(),
        transfer: [1; 16],
        attempt: [2; 16],
        flow_key: [3; 32],
    };
    let config = AttemptConfig::new(&spec, &roster, identity, TransferOptions::default());
    let coordinator = Coordinator::new(Moment(0), roster, config);
    MasterMachine::new(Moment(0), coordinator, vec![Ok(vec![address(1)]); nodes])
}

fn actions(master: &mut MasterMachine) -> Vec<MasterAction> {
    std::iter::from_fn(|| master.poll_action()).collect()
}

fn error() -> Error {
    Error::new(Code::Unreachable, "it broke")
}

fn met(node: NodeIx) -> MasterEvent {
    MasterEvent::Met { node, address: address(1), advert: advert() }
}

fn stage(master: &MasterMachine) -> &'static str {
    match master.links[NODE.at()].stage {
        LinkStage::Absent => "absent",
        LinkStage::Meeting => "meeting",
        LinkStage::Up => "up",
        LinkStage::Broken(_) => "broken",
        LinkStage::Gone => "gone",
    }
}

fn master_in(stage: &str) -> MasterMachine {
    let mut master = master(2);
    let steps = match stage {
        "meeting" => vec![],
        "up" => vec![met(NODE)],
        "broken" => vec![met(NODE), MasterEvent::Broken { node: NODE, error: error() }],
        "gone" => vec![met(NODE), MasterEvent::Closed { node: NODE }],
        other => panic!("{other}"),
    };
    steps.into_iter().for_each(|event| master.handle(Moment(1), event));
    actions(&mut master);
    master
}

#[test]
#[expect(clippy::type_complexity, reason = "a table with functions")]
fn a_session_in_every_state_at_every_event() {
    let message = |message| MasterEvent::Message { node: NODE, message };
    let failed = || ToMaster::Failed { error: error(), stats: None };
    let table: [(fn() -> MasterEvent, [&str; 4]); 5] = [
        // Meeting, up, broken, gone.
        (|| met(NODE), ["up", "up", "broken", "gone"]),
        (|| MasterEvent::Reconnected { node: NODE }, ["meeting", "up", "broken", "gone"]),
        (
            || MasterEvent::Broken { node: NODE, error: error() },
            ["gone", "broken", "broken", "gone"],
        ),
        (|| MasterEvent::Closed { node: NODE }, ["gone", "gone", "gone", "gone"]),
        (|| MasterEvent::Unusable { node: NODE, error: error() }, ["gone", "gone", "gone", "gone"]),
    ];
    let messages = [
        (message(ToMaster::Resumed { heard: 1 }), ["meeting", "up", "up", "gone"]),
        // It had told nothing yet, so that nothing of it is lost. Without it the transfer is over.
        (message(failed()), ["gone", "up", "up", "gone"]),
        (message(ToMaster::Report(NodeStats::default())), ["gone", "up", "gone", "gone"]),
    ];
    let events = table.map(|(event, expected)| (event(), expected)).into_iter().chain(messages);
    for (row, (event, expected)) in events.enumerate() {
        for (before, after) in ["meeting", "up", "broken", "gone"].into_iter().zip(expected) {
            let mut master = master_in(before);
            master.handle(Moment(2), event.clone());
            assert_eq!(stage(&master), after, "row {row}, {before}");
        }
    }
}

/// Its session was resumed a moment after the last good-byes were waited for, and stood until the
/// process ended, told nothing.
#[test]
fn a_session_that_is_broken_at_the_end_is_dropped() {
    let mut master = master_in("broken");
    master.handle(Moment(2), MasterEvent::Cancel { reason: "enough".into() });
    let mut now = Moment(2);
    while !master.is_closing() {
        now = master.poll_timeout().expect("good-byes have a deadline").max(now);
        master.handle(now, MasterEvent::Tick);
    }
    let actions = actions(&mut master);
    let dropped = |action: &MasterAction| matches!(action, MasterAction::Drop { node: NODE });
    assert!(actions.iter().any(dropped), "{actions:?}");
    assert_eq!(stage(&master), "gone");
}

/// Of two addresses of one NIC the first will do, and the NIC that the session went over is likely
/// what broke.
#[test]
fn a_session_that_broke_is_dialled_over_other_nics_first_and_every_address_twice() {
    let mut master = master_in("broken");
    let (mut dialled, mut now) = (Vec::new(), Moment(1));
    while stage(&master) == "broken" {
        now = master.poll_timeout().expect("a retry is due").max(now);
        master.handle(now, MasterEvent::Tick);
        for action in actions(&mut master) {
            if let MasterAction::Dial { node, address, until } = action {
                assert_eq!((node, until.since(now)), (NODE, ANSWER_WITHIN));
                dialled.push(address);
                master.handle(now, MasterEvent::Broken { node, error: error() });
            }
        }
    }
    let same = [address(1); 2];
    let pass = || std::iter::once(address(2)).chain(same);
    assert_eq!(dialled, pass().chain(pass()).collect::<Vec<_>>());
    assert_eq!(now.since(Moment(1)), PAUSE * (dialled.len() as u32 - 1));
}

#[test]
fn who_is_back_is_asked_how_far_it_heard_and_told_nothing_else_before() {
    let mut master = master_in("broken");
    master.handle(Moment(2), MasterEvent::Tick);
    actions(&mut master);
    master.handle(Moment(3), MasterEvent::Reconnected { node: NODE });
    let told = actions(&mut master);
    assert!(
        matches!(told[..], [MasterAction::Send { message: ToNode::Resume(_), .. }]),
        "{told:?}"
    );
    // All nodes are met by now, and it is prepared; not on a session that is being resumed.
    master.handle(Moment(4), met(NodeIx(0)));
    let told = actions(&mut master);
    assert!(
        told.iter().all(|it| matches!(it, MasterAction::Send { node: NodeIx(0), .. })),
        "{told:?}"
    );
    let resumed = ToMaster::Resumed { heard: 0 };
    master.handle(Moment(5), MasterEvent::Message { node: NODE, message: resumed });
    let told = actions(&mut master);
    assert!(
        matches!(told[..], [MasterAction::Send { node: NODE, message: ToNode::Prepare(_) }]),
        "{told:?}"
    );
}

#[test]
fn nodes_are_dialled_a_few_at_a_time() {
    let mut master = master(DIALS_MAX + 10);
    let is_meet = |it: &MasterAction| matches!(it, MasterAction::Meet { .. });
    assert_eq!(actions(&mut master).into_iter().filter(is_meet).count(), DIALS_MAX);
    master.handle(Moment(1), met(NodeIx(7)));
    assert_eq!(actions(&mut master).into_iter().filter(is_meet).count(), 1);
}

/// Records were left beside the files of a receiver that had not heard of the end, and nobody was
/// told.
#[test]
fn receivers_are_waited_for_at_the_end_and_not_for_ever() {
    for hears in [true, false] {
        let mut master = master(2);
        [NodeIx(0), NODE].into_iter().for_each(|node| master.handle(Moment(1), met(node)));
        let mut now = Moment(1);
        let awaited = BTreeSet::from([NODE]);
        master.closing = Some((now + GOODBYE_WITHIN, awaited));
        assert!(!master.is_over());
        if hears {
            master.handle(now, MasterEvent::Closed { node: NODE });
        } else {
            now = master.poll_timeout().expect("it is waited for");
            master.handle(now, MasterEvent::Tick);
        }
        assert!(master.is_over());
        assert_eq!(now.since(Moment(1)), if hears { Duration::ZERO } else { GOODBYE_WITHIN });
    }
}

/// The node had never been prepared, said that it knew nothing of the attempt, and was lost.
#[test]
fn a_session_that_breaks_before_its_node_is_prepared_goes_on_from_the_start() {
    for has_told in [false, true] {
        let mut master = master(2);
        [NodeIx(0), NODE].into_iter().for_each(|node| master.handle(Moment(1), met(node)));
        if has_told {
            let message = ToMaster::Prepared(Prepared::default());
            master.handle(Moment(1), MasterEvent::Message { node: NODE, message });
        }
        master.handle(Moment(1), MasterEvent::Broken { node: NODE, error: error() });
        master.handle(Moment(2), MasterEvent::Tick);
        master.handle(Moment(3), MasterEvent::Reconnected { node: NODE });
        actions(&mut master);
        let message = ToMaster::Failed { error: error(), stats: None };
        master.handle(Moment(4), MasterEvent::Message { node: NODE, message });
        assert_eq!(stage(&master), if has_told { "gone" } else { "up" });
        let is_prepared = |it: &MasterAction| {
            matches!(it, MasterAction::Send { node: NODE, message: ToNode::Prepare(_) })
        };
        assert_eq!(actions(&mut master).iter().any(is_prepared), !has_told);
    }
}
