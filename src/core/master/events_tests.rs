//! Events, from the states that a coordinator is brought into.

use super::*;
use crate::core::master::attempt::{AttemptConfig, TransferIdentity};
use crate::core::master::coordinator::{CoordinatorAction, CoordinatorEvent};
use crate::core::master::planning::MadePlan;
use crate::core::options::TransferOptions;
use crate::core::units::Moment;
use crate::core::wire::control::{
    FlowLoss, NodeStats, Prepared, RailAdvert, RowState, ToMaster, ToNode,
};

const NOW: Moment = Moment(1);
const ROWS: &str = "id \"t\"\nwriter a:1 pattern:1 0 0-99\nwriter b:1 pattern:1 0 0-99\n\
                    reader c:1 null: 0 0-99\nreader d:1 null: 0 0-49\n";

fn at(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn coordinator() -> Coordinator {
    let spec = Spec::parse("test", ROWS).expect("a specification");
    let roster = Roster::new(&spec);
    let identity =
        TransferIdentity { id: "t".into(), transfer: [1; 16], attempt: [2; 16], flow_key: [3; 32] };
    let terms = AttemptConfig::new(&spec, &roster, identity, TransferOptions::default());
    Coordinator::new(NOW, roster, terms)
}

fn up(coordinator: &mut Coordinator, nodes: std::ops::Range<u32>) {
    for node in nodes.map(NodeIx) {
        let address = std::net::SocketAddr::from(([10, 0, 0, 1], 40_000));
        let rail =
            RailAdvert { nic: "eth0".into(), address, line: None, mtu: Some(1500), numa: None };
        let advert = NodeAdvert {
            software: "test".into(),
            rails: vec![rail],
            cores: 1,
            boot_id: "a boot".into(),
            incarnation: 1,
        };
        coordinator.handle(NOW, CoordinatorEvent::NodeUp { node, advert });
    }
}

/// A coordinator whose receivers move.
fn moving() -> Coordinator {
    let mut coordinator = coordinator();
    up(&mut coordinator, 0..4);
    while let Some(CoordinatorAction { node, message }) = coordinator.poll_action() {
        if let ToNode::Prepare(prepare) = message {
            let rows = vec![RowState::default(); prepare.rows.len()];
            let replicas =
                vec![1; crate::core::check::replica_hash::value_count(&prepare.replicas)];
            let prepared = Prepared { rows, replicas, ..Prepared::default() };
            tell(&mut coordinator, node.0, ToMaster::Prepared(prepared));
        }
    }
    assert_eq!(coordinator.phase(), TransferPhase::Moving);
    coordinator
}

fn tell(coordinator: &mut Coordinator, node: u32, message: ToMaster) {
    coordinator.handle(NOW, CoordinatorEvent::Message { node: NodeIx(node), message });
}

fn landed(bytes: u64) -> ToMaster {
    ToMaster::Progress {
        received_bytes: bytes,
        sent_bytes: 0,
        delivered: Vec::new(),
        left: Vec::new(),
        missing_bytes: 0,
        lost: Vec::new(),
    }
}

fn name(event: &TransferEvent) -> String {
    serde_json::to_value(event).expect("it is JSON")["event"].as_str().expect("a name").into()
}

fn names(events: &[TransferEvent]) -> Vec<String> {
    events.iter().map(name).collect()
}

#[test]
fn a_transfer_begins_with_what_is_wanted() {
    let spec = Spec::parse("test", ROWS).expect("a specification");
    let teller = EventTeller { version: "1.2.3", pid: 7 };
    let wanted = TransferEvent::Start {
        transfer: "t".into(),
        version: "1.2.3".into(),
        pid: 7,
        nodes_total: 4,
        rows: 4,
        bytes_total: 150,
    };
    assert_eq!(TransferEvent::start(teller, &spec), wanted);
}

#[test]
fn nodes_are_told_of_once_as_they_answer() {
    let (mut watch, mut coordinator) = (EventWatch::default(), coordinator());
    assert_eq!(watch.look(at(0.0), &coordinator), []);
    for (nodes, names, reached) in [(0..1, vec!["a:1"], 1), (1..4, vec!["b:1", "c:1", "d:1"], 4)] {
        up(&mut coordinator, nodes);
        let nodes = names.into_iter().map(String::from).collect();
        let wanted = TransferEvent::Reached { nodes, reached, nodes_total: 4 };
        assert_eq!(watch.look(at(0.1), &coordinator), [wanted]);
        assert_eq!(watch.look(at(0.2), &coordinator), []);
    }
}

#[test]
fn a_late_look_misses_nothing_and_keeps_the_order() {
    let mut coordinator = moving();
    let error = Error::new(Code::Unreachable, "it is \"gone\"");
    coordinator.incidents.add(NodeIncident::Broken { node: NodeIx(0), error: error.clone() });
    coordinator.handle(NOW, CoordinatorEvent::NodeBack { node: NodeIx(0), heard: 1 });
    coordinator.handle(NOW, CoordinatorEvent::NodeDown { node: NodeIx(1), error: error.clone() });
    let failed = ToMaster::Failed { error: Error::new(Code::Data, "no disk"), stats: None };
    tell(&mut coordinator, 3, failed);
    coordinator.warn("this is odd".into());
    let events = EventWatch::default().look(at(0.5), &coordinator);
    let wanted = ["reached", "plan", "loss", "restored", "loss", "loss", "warning"];
    assert_eq!(names(&events), wanted);
    let loss = |what, node: &str, code, reason: &str| TransferEvent::Loss {
        what,
        node: node.into(),
        nic: None,
        peer: None,
        code,
        reason: reason.into(),
    };
    assert_eq!(events[2], loss(LostKind::Session, "a:1", 3, "it is \"gone\""));
    assert_eq!(events[3], TransferEvent::Restored { node: "a:1".into() });
    assert_eq!(events[4], loss(LostKind::Node, "b:1", 3, "it is \"gone\""));
    assert_eq!(events[5], loss(LostKind::Node, "d:1", 5, "no disk"));
}

#[test]
fn a_lost_flow_has_its_nic_and_its_peer() {
    let mut coordinator = moving();
    let mut watch = EventWatch::default();
    watch.look(at(0.0), &coordinator);
    let [nic, peer, reason] = ["eth1", "a:1", "reset"].map(String::from);
    let loss = FlowLoss { nic: nic.clone(), peer: peer.clone(), reason: reason.clone() };
    coordinator.incidents.add(NodeIncident::Flow { node: NodeIx(2), loss });
    let wanted = TransferEvent::Loss {
        what: LostKind::Flow,
        node: "c:1".into(),
        nic: Some(nic),
        peer: Some(peer),
        code: 3,
        reason,
    };
    assert_eq!(watch.look(at(0.1), &coordinator), [wanted]);
}

#[test]
fn a_cancelled_node_is_no_loss() {
    let mut coordinator = moving();
    coordinator.handle(NOW, CoordinatorEvent::Cancel { reason: "enough".into() });
    let error = Error::new(Code::Cancelled, "enough");
    tell(&mut coordinator, 2, ToMaster::Failed { error, stats: None });
    let events = EventWatch::default().look(at(0.5), &coordinator);
    assert_eq!(names(&events), ["reached", "plan"]);
}

#[test]
fn the_plan_has_its_bound_and_newer_ones_their_cause() {
    let mut coordinator = moving();
    let mut watch = EventWatch::default();
    let events = watch.look(at(0.0), &coordinator);
    let TransferEvent::Plan { plan: 1, predicted_seconds, bound_seconds, bottleneck, .. } =
        &events[1]
    else {
        panic!("{events:?}")
    };
    assert!(*predicted_seconds >= bound_seconds.expect("a plan has one"));
    assert!(bottleneck.as_ref().is_some_and(|it| it.contains("c:1")), "{bottleneck:?}");

    let (slow, lost) = ([NodeIx(0)], [NodeIx(2), NodeIx(3)]);
    for (plan, slow, lost, why) in [
        (2, &[][..], &[][..], "faster"),
        (3, &slow, &[], "slower"),
        (4, &[], &lost, "nodes that pass bytes on are lost"),
        (5, &slow, &lost, "slower than the plan assumed, and others are lost"),
    ] {
        let made = MadePlan { seconds: 1.5, slow: slow.to_vec(), lost: lost.to_vec() };
        coordinator.planning.add_made(made);
        let events = watch.look(at(0.1), &coordinator);
        let [TransferEvent::Replan { plan: told, why: said, slow: a, lost: b, .. }] = &events[..]
        else {
            panic!("{events:?}")
        };
        assert!(*told == plan && said.contains(why), "{plan}: {said}");
        assert_eq!((a.len(), b.len()), (slow.len(), lost.len()));
    }
}

#[test]
fn progress_comes_once_a_second_with_rates_since_the_last() {
    let mut coordinator = moving();
    let mut watch = EventWatch::default();
    watch.look(at(0.0), &coordinator);
    tell(&mut coordinator, 2, landed(40));
    assert_eq!(watch.look(at(0.9), &coordinator), []);
    let rate = |bytes: u64, seconds| gbit_per_s(bytes, seconds);
    let told = |events: &[TransferEvent]| match events {
        [TransferEvent::Progress { bytes, gbit_per_s, nodes, nodes_total: 2, .. }] => {
            let nodes = nodes.iter().map(|it| (it.bytes, it.gbit_per_s)).collect::<Vec<_>>();
            (*bytes, *gbit_per_s, nodes)
        }
        events => panic!("{events:?}"),
    };
    let wanted = (40, rate(40, 1.0), vec![(40, rate(40, 1.0)), (0, 0.0)]);
    assert_eq!(told(&watch.look(at(1.0), &coordinator)), wanted);
    tell(&mut coordinator, 3, landed(10));
    assert_eq!(watch.look(at(1.9), &coordinator), []);
    let wanted = (50, rate(10, 2.0), vec![(40, 0.0), (10, rate(10, 2.0))]);
    assert_eq!(told(&watch.look(at(3.0), &coordinator)), wanted, "a look may come late");
}

#[test]
fn a_warning_is_told_once_also_if_the_report_has_it() {
    let mut coordinator = moving();
    let mut watch = EventWatch::default();
    watch.look(at(0.0), &coordinator);
    let stats = NodeStats { warnings: vec!["eth0 is slow".into()], ..NodeStats::default() };
    coordinator.peers[NodeIx(2)].report(stats);
    coordinator.warn("own".into());
    let warning = |text: &str| TransferEvent::Warning { message: text.into() };
    assert_eq!(watch.look(at(0.1), &coordinator), [warning("own"), warning("c:1: eth0 is slow")]);
    assert_eq!(watch.look(at(0.2), &coordinator), []);
    let mut report = Report::failed("t", "auto", "crc64", &Error::new(Code::Data, "x"));
    report.warnings = vec!["own".into(), "at the end".into()];
    let events = watch.end(&report);
    assert_eq!(events, [warning("at the end"), TransferEvent::end(&report)]);
}

#[test]
fn thousands_of_losses_are_told_as_one_from_some_number_on() {
    let mut coordinator = moving();
    let mut watch = EventWatch::default();
    watch.look(at(0.0), &coordinator);
    let mut told = 0;
    for _ in 0..30 {
        for _ in 0..100 {
            let error = Error::new(Code::Unreachable, "gone");
            coordinator.incidents.add(NodeIncident::Broken { node: NodeIx(0), error });
        }
        told += watch.look(at(0.1), &coordinator).len();
    }
    assert_eq!(told, 1024 + 1);
}
