//! Tables of what a node does about its masters, and of what it does not wait for any longer.

use super::attempt::AttemptFiles;
use super::channel::MasterLink;
use super::limits::SURVEYS_MAX;
use super::*;
use crate::core::error::{Code, Error};
use crate::core::node::machine::jobs::JobKind;
use crate::core::options::{CheckKind, TransferOptions};
use crate::core::wire::control::{
    self, FlowKey, Prepared, ResumeSession, RowState, Start, SurveyAnswer, SurveyQuestion,
    SurveySubject, ToMaster, ToNode, WireOptions,
};
use crate::core::wire::limits::share_of_one;

const TRANSFER: TransferIx = TransferIx(0);
const SECOND: u64 = 1_000_000_000;

fn prepare(attempt: u8) -> Prepare {
    let options: WireOptions = control::decode(&[0x08, 1]).expect("a size of blocks is enough");
    let transfer = TransferOptions { check: CheckKind::None, ..TransferOptions::default() };
    Prepare {
        transfer: [attempt; 16],
        id: "id".into(),
        attempt: [attempt; 16],
        flow_key: FlowKey([0; 32]),
        node_index: 0,
        rows: Vec::new(),
        options: WireOptions { transfer, ..options },
        replicas: Vec::new(),
        names_wait: false,
        nics: Vec::new(),
    }
}

/// A node, and the time.
struct Bench {
    now: Moment,
    machine: NodeMachine,
}

impl Bench {
    fn new(launched: bool) -> Bench {
        let now = Moment(SECOND);
        Bench { now, machine: NodeMachine::new(now, vec!["eth0".into()], launched) }
    }

    fn hear(&mut self, event: NodeEvent) -> Vec<NodeAction> {
        self.machine.handle(self.now, event);
        let mut actions = Vec::new();
        while let Some(action) = self.machine.poll_action() {
            // The driver answers these at once.
            match action {
                NodeAction::Join { transfer } => {
                    self.machine.handle(self.now, NodeEvent::Joined { transfer, result: Ok(()) });
                }
                NodeAction::Complete { transfer, message } => {
                    self.machine.handle(self.now, NodeEvent::Completed { transfer, message });
                }
                NodeAction::CountMoved { transfer } => {
                    let moved = NodeEvent::Moved { transfer, moved_bytes: 7 };
                    self.machine.handle(self.now, moved);
                }
                action => actions.push(action),
            }
        }
        actions
    }

    fn say(&mut self, session: u64, message: ToNode) -> Vec<NodeAction> {
        self.hear(NodeEvent::Message { session: SessionIx(session), message })
    }

    fn meet(&mut self, session: u64) {
        assert_eq!(
            self.hear(NodeEvent::SessionUp {
                session: SessionIx(session),
                origin: MasterOrigin(session % 2),
            }),
            []
        );
    }

    fn answer(&mut self, transfer: TransferIx, answer: JobAnswer) -> Vec<NodeAction> {
        self.hear(NodeEvent::Worker { transfer, answer })
    }

    /// A master has its transfer prepared on a session.
    fn prepare(&mut self, session: u64, attempt: u8) -> TransferIx {
        self.meet(session);
        let actions = self.say(session, ToNode::Prepare(prepare(attempt)));
        let [NodeAction::Begin { transfer, .. }] = actions[..] else { panic!("{actions:?}") };
        transfer
    }

    fn open(&mut self, transfer: TransferIx) {
        let prepared = Prepared { rows: Vec::<RowState>::new(), ..Prepared::default() };
        let opened = OpenedFiles { prepared, found: None };
        self.answer(transfer, JobAnswer::Opened(Ok(opened)));
    }

    /// Goes to the next moment at which something is due.
    fn wait(&mut self) -> Vec<NodeAction> {
        self.now = self.machine.poll_timeout().expect("something is waited for").max(self.now);
        self.hear(NodeEvent::Tick)
    }

    /// Has everything land, of a plan without bytes, and the master say that it did everywhere.
    fn land(&mut self, session: u64, transfer: TransferIx) {
        self.open(transfer);
        let start = Start { epoch: 1, ..Start::default() };
        self.say(session, ToNode::Start(start));
        self.answer(transfer, JobAnswer::Preallocated(Ok(())));
        self.hear(NodeEvent::Drained { transfer, rail: 0 });
        self.answer(transfer, JobAnswer::Committed(Ok(())));
        assert_eq!(self.machine.state(transfer), Some(ParticipantState::Landed));
    }

    fn link(&self) -> Option<MasterLink> {
        self.machine.attempts.get(&TRANSFER).map(|attempt| attempt.channel.link)
    }

    fn is_link(&self, expected: &str) -> bool {
        match self.link() {
            None => expected == "removed",
            Some(MasterLink::Up(SessionIx(session))) => expected == format!("up {session}"),
            Some(MasterLink::Lost(_)) => expected == "lost",
            Some(MasterLink::Leaving(_)) => expected == "leaving",
            Some(MasterLink::Gone) => expected == "gone",
        }
    }
}

fn resume(attempt: u8) -> ToNode {
    let (transfer, attempt) = ([attempt; 16], [attempt; 16]);
    ToNode::Resume(ResumeSession { transfer, attempt, heard: 0 })
}

fn cleared() -> NodeEvent {
    NodeEvent::Worker { transfer: TRANSFER, answer: JobAnswer::Cleared(Ok(())) }
}

/// An attempt in each state of the way to its master. Its participant does not end at once: it
/// waits for the worker that clears its files.
fn attempt_in(link: &str) -> Bench {
    let mut bench = Bench::new(false);
    bench.prepare(1, 1);
    bench.open(TRANSFER);
    match link {
        "up" => {}
        "lost" => _ = bench.hear(NodeEvent::SessionBroken { session: SessionIx(1) }),
        "leaving" => _ = bench.hear(NodeEvent::Closed { session: SessionIx(1), in_order: true }),
        "gone" => {
            bench.hear(NodeEvent::SessionBroken { session: SessionIx(1) });
            bench.meet(2);
            bench.say(2, ToNode::MakeWay { id: "id".into() });
        }
        other => panic!("{other}"),
    }
    bench.meet(3);
    bench
}

type Step = fn() -> NodeEvent;

#[test]
fn the_way_to_a_master_in_every_state_at_every_event() {
    let broken: Step = || NodeEvent::SessionBroken { session: SessionIx(1) };
    let closed: Step = || NodeEvent::Closed { session: SessionIx(1), in_order: true };
    let cut_off: Step = || NodeEvent::Closed { session: SessionIx(1), in_order: false };
    let garbled: Step = || NodeEvent::Garbled {
        session: SessionIx(1),
        error: Error::new(Code::Internal, "nonsense"),
    };
    let resumed: Step = || NodeEvent::Message { session: SessionIx(3), message: resume(1) };
    let other: Step = || NodeEvent::Message { session: SessionIx(3), message: resume(2) };
    let make_way: Step = || NodeEvent::Message {
        session: SessionIx(3),
        message: ToNode::MakeWay { id: "id".into() },
    };
    let elsewhere: Step = || NodeEvent::Message {
        session: SessionIx(3),
        message: ToNode::MakeWay { id: "another".into() },
    };
    let table: [(Step, [&str; 4]); 9] = [
        // Up, lost, leaving, gone.
        (broken, ["lost", "lost", "leaving", "gone"]),
        (closed, ["leaving", "lost", "leaving", "gone"]),
        (cut_off, ["lost", "lost", "leaving", "gone"]),
        (garbled, ["gone", "lost", "leaving", "gone"]),
        (resumed, ["up 3", "up 3", "leaving", "gone"]),
        (other, ["up 1", "lost", "leaving", "gone"]),
        (make_way, ["up 1", "gone", "leaving", "gone"]),
        (elsewhere, ["up 1", "lost", "leaving", "gone"]),
        (cleared, ["up 1", "lost", "removed", "removed"]),
    ];
    for (row, (event, expected)) in table.into_iter().enumerate() {
        for (link, expected) in ["up", "lost", "leaving", "gone"].into_iter().zip(expected) {
            let mut bench = attempt_in(link);
            bench.hear(event());
            assert!(bench.is_link(expected), "row {row}, {link}: {:?}", bench.link());
        }
    }
}

#[test]
fn an_attempt_whose_lease_is_over_is_cancelled() {
    let mut bench = attempt_in("lost");
    let began = bench.now;
    while bench.is_link("lost") {
        bench.wait();
    }
    assert_eq!(bench.now.since(began), LEASE);
    assert!(bench.is_link("gone"));
    bench.hear(cleared());
    assert!(bench.is_link("removed"));
}

/// What a session says of an attempt, by the first message on it.
fn sent(actions: &[NodeAction]) -> Vec<ToMaster> {
    let sent = actions.iter().filter_map(|action| match action {
        NodeAction::Send { message, .. } => Some(control::decode(message).expect("it is ours")),
        _ => None,
    });
    sent.collect()
}

#[test]
fn who_comes_back_hears_what_it_has_not_heard_and_in_order() {
    let mut bench = attempt_in("lost");
    // It goes on alone.
    let said = bench.say(3, resume(1));
    let said = sent(&said);
    assert!(
        matches!(said[..], [ToMaster::Resumed { heard: 1 }, ToMaster::Prepared(_)]),
        "{said:?}"
    );
    let told = ToNode::Resume(ResumeSession { transfer: [1; 16], attempt: [1; 16], heard: 1 });
    bench.meet(4);
    let said = bench.say(4, told);
    assert!(matches!(sent(&said)[..], [ToMaster::Resumed { heard: 1 }]), "{said:?}");
    let replaced = NodeAction::CloseSession { session: SessionIx(3) };
    assert!(said.contains(&replaced), "{said:?}");
}

#[test]
fn who_means_an_attempt_that_nobody_knows_is_told_so() {
    let mut bench = attempt_in("lost");
    let said = bench.say(3, resume(9));
    assert!(matches!(sent(&said)[..], [ToMaster::Failed { .. }]), "{said:?}");
}

#[test]
fn a_new_attempt_waits_until_the_one_before_has_left_its_files() {
    let mut bench = attempt_in("lost");
    assert!(
        bench
            .say(3, ToNode::Prepare(prepare(2)))
            .iter()
            .all(|action| !matches!(action, NodeAction::Begin { .. }))
    );
    let actions = bench.hear(cleared());
    let begun = actions.iter().filter(|it| matches!(it, NodeAction::Begin { .. })).count();
    assert_eq!(begun, 1, "{actions:?}");
    let order = |wanted: fn(&NodeAction) -> bool| actions.iter().position(wanted);
    assert!(
        order(|it| matches!(it, NodeAction::Forget { .. }))
            < order(|it| matches!(it, NodeAction::Begin { .. })),
        "{actions:?}"
    );
}

/// The end was not heard, the attempt began all the same, and its master waited for a report.
#[test]
fn an_attempt_that_is_ended_while_it_waits_for_an_earlier_one_never_begins() {
    for end in [ToNode::Cancel { reason: "enough".into(), forgets: false }, ToNode::Finish] {
        let mut bench = attempt_in("lost");
        bench.say(3, ToNode::Prepare(prepare(2)));
        assert!(bench.link().is_some(), "the one before is not cleared");
        let said = bench.say(3, end);
        assert!(matches!(sent(&said)[..], [ToMaster::Report(_)]), "{said:?}");
        let actions = bench.hear(cleared());
        let begins = |it: &NodeAction| matches!(it, NodeAction::Begin { .. });
        assert!(!actions.iter().any(begins), "{actions:?}");
        let actions = bench.hear(NodeEvent::Closed { session: SessionIx(3), in_order: true });
        assert_eq!(actions, [NodeAction::CloseSession { session: SessionIx(3) }]);
    }
}

#[test]
fn complete_files_are_remembered_until_the_good_bye() {
    let mut bench = Bench::new(false);
    bench.prepare(1, 1);
    bench.land(1, TRANSFER);
    let actions = bench.say(1, ToNode::Finish);
    let discards = |it: &NodeAction| {
        matches!(it, NodeAction::Work { job: NodeJob::Clear(ClearMode::Discard { .. }), .. })
    };
    assert!(actions.iter().any(discards), "{actions:?}");
    let actions = bench.hear(cleared());
    let kept = |it: &NodeAction| matches!(it, NodeAction::Forget { keeps_files: true, .. });
    assert!(actions.iter().any(kept), "{actions:?}");
    let actions = bench.hear(NodeEvent::Closed { session: SessionIx(1), in_order: true });
    assert_eq!(actions, [NodeAction::Work { transfer: TRANSFER, job: NodeJob::Confirm }]);
    let actions = bench.answer(TRANSFER, JobAnswer::Confirmed);
    // A node that offers and wants kept a descriptor of each of its sources for good.
    assert!(actions.contains(&NodeAction::Release { transfer: TRANSFER }), "{actions:?}");
    assert!(actions.contains(&NodeAction::CloseSession { session: SessionIx(1) }), "{actions:?}");
    assert!(bench.is_link("removed"));
}

#[test]
fn a_good_bye_is_enough_for_who_has_landed() {
    let mut bench = Bench::new(false);
    bench.prepare(1, 1);
    bench.land(1, TRANSFER);
    let actions = bench.hear(NodeEvent::Closed { session: SessionIx(1), in_order: true });
    let job = NodeJob::Clear(ClearMode::Confirm);
    assert_eq!(actions, [NodeAction::Work { transfer: TRANSFER, job }]);
    bench.hear(cleared());
    assert!(bench.is_link("leaving"), "what has no name is given up as well");
    let actions = bench.hear(cleared());
    assert_eq!(
        actions.last(),
        Some(&NodeAction::CloseSession { session: SessionIx(1) }),
        "the master hears of it by the end of its session"
    );
}

#[test]
fn a_launched_node_ends_with_its_master() {
    let mut bench = Bench::new(true);
    bench.prepare(1, 1);
    bench.open(TRANSFER);
    let actions = bench.hear(NodeEvent::Closed { session: SessionIx(1), in_order: false });
    assert!(!actions.contains(&NodeAction::Exit), "its files come first: {actions:?}");
    let actions = bench.hear(cleared());
    assert_eq!(actions.last(), Some(&NodeAction::Exit), "{actions:?}");
    let mut alone = Bench::new(true);
    assert_eq!(alone.wait(), [NodeAction::Exit], "nobody came");
    assert_eq!(alone.now.since(Moment(SECOND)), LEASE);
}

#[test]
fn a_node_of_several_transfers_takes_one_after_the_other_and_ends_with_its_launcher() {
    let mut bench = Bench::new(true);
    bench.machine = bench.machine.with_several_transfers(true);
    for round in 1..4 {
        bench.prepare(round, u8::try_from(round).expect("a small number"));
        let transfer = TransferIx(u32::try_from(round).expect("a small number") - 1);
        bench.land(round, transfer);
        let closed = NodeEvent::Closed { session: SessionIx(round), in_order: true };
        let actions = bench.hear(closed);
        assert!(!actions.contains(&NodeAction::Exit), "{actions:?}");
        // How its files came to be is forgotten first, and then they are let go.
        for _ in 0..2 {
            let actions = bench.answer(transfer, JobAnswer::Cleared(Ok(())));
            assert!(!actions.contains(&NodeAction::Exit), "{actions:?}");
        }
        assert!(bench.machine.state(transfer).is_none());
    }
    // It rests in some rounds, however long they are.
    assert_eq!(bench.machine.poll_timeout(), None);
    let actions = bench.hear(NodeEvent::Launcher { is_silent: true });
    assert_eq!(actions, [NodeAction::Exit]);
    let mut alone = Bench::new(true);
    alone.machine = alone.machine.with_several_transfers(true);
    assert_eq!(alone.wait(), [NodeAction::Exit], "nobody came");
}

/// A node on another host was left behind for half a minute where a network vanished.
#[test]
fn a_launched_node_ends_once_both_its_launcher_and_its_master_are_out_of_reach() {
    let mut bench = Bench::new(true);
    bench.prepare(1, 1);
    bench.open(TRANSFER);
    let silent = |is_silent| NodeEvent::Launcher { is_silent };
    let ends = |actions: Vec<NodeAction>| actions.contains(&NodeAction::Exit);
    assert!(!ends(bench.hear(silent(true))), "its master is there");
    assert!(!ends(bench.hear(silent(false))));
    assert!(!ends(bench.hear(NodeEvent::SessionBroken { session: SessionIx(1) })), "it may return");
    assert!(ends(bench.hear(silent(true))));
    let mut alone = Bench::new(true);
    assert!(ends(alone.hear(silent(true))), "nobody came");
}

/// The first of two hosts had given up before the second one had the program.
#[test]
fn a_launched_node_waits_for_its_first_master_while_its_launcher_is_heard() {
    let mut bench = Bench::new(true);
    bench.machine = bench.machine.with_launcher_beats(true);
    assert_eq!(bench.machine.poll_timeout(), None);
    bench.now = bench.now + 10 * LEASE;
    assert_eq!(bench.hear(NodeEvent::Tick), []);
    let actions = bench.hear(NodeEvent::Launcher { is_silent: true });
    assert_eq!(actions, [NodeAction::Exit]);
}

#[test]
fn a_source_that_was_written_to_makes_a_report_a_failure() {
    let mut bench = attempt_in("up");
    bench.say(1, ToNode::Finish);
    let error = Error::new(Code::Data, "the source changed");
    let actions = bench.answer(TRANSFER, JobAnswer::Cleared(Err(error)));
    assert!(
        matches!(&sent(&actions)[..], [ToMaster::Failed { stats: Some(_), .. }]),
        "{actions:?}"
    );
}

/// A worker that hung kept its transfer, its slots and its id for ever, and the next attempt with
/// that id waited for it.
#[test]
#[expect(clippy::type_complexity, reason = "a table with functions")]
fn in_every_state_an_attempt_ends_although_its_worker_never_answers() {
    let start = || ToNode::Start(Start { epoch: 1, ..Start::default() });
    let steps: [(&str, fn(&mut Bench)); 4] = [
        ("opening", |_| {}),
        ("making room", |bench| bench.open(TRANSFER)),
        ("draining", |bench| _ = bench.answer(TRANSFER, JobAnswer::Preallocated(Ok(())))),
        ("naming", |bench| _ = bench.hear(NodeEvent::Drained { transfer: TRANSFER, rail: 0 })),
    ];
    for hangs_at in 0..steps.len() {
        for is_cancelled in [false, true] {
            let mut bench = Bench::new(false);
            bench.prepare(1, 1);
            for (number, (_, step)) in steps.iter().enumerate().take(hangs_at + 1) {
                step(&mut bench);
                if number == 1 {
                    bench.say(1, start());
                }
            }
            if is_cancelled {
                let reason = "enough".into();
                bench.say(1, ToNode::Cancel { reason, forgets: false });
            }
            let (began, hangs) = (bench.now, steps[hangs_at].0);
            let mut actions = Vec::new();
            while bench.machine.state(TRANSFER).is_some() {
                actions.extend(bench.wait());
                assert!(bench.now.since(began) < Duration::from_secs(900), "{hangs}");
            }
            assert!(!sent(&actions).is_empty(), "{hangs}: the master hears of it");
            bench.hear(NodeEvent::SessionBroken { session: SessionIx(1) });
            bench.prepare(2, 2);
        }
    }
}

#[test]
fn what_a_worker_answers_too_late_changes_nothing() {
    let mut bench = Bench::new(false);
    bench.prepare(1, 1);
    while bench.machine.state(TRANSFER).is_some() {
        bench.wait();
    }
    bench.open(TRANSFER);
    for answer in [JobAnswer::Preallocated(Ok(())), JobAnswer::Left, JobAnswer::Flushed] {
        assert_eq!(bench.answer(TRANSFER, answer), []);
    }
    assert_eq!(bench.machine.state(TRANSFER), None);
}

#[test]
fn a_worker_that_reads_is_waited_for() {
    let mut bench = Bench::new(false);
    bench.prepare(1, 1);
    for read_bytes in 1..10 {
        bench.now = bench.now + Duration::from_secs(20);
        let actions = bench.hear(NodeEvent::Reading { transfer: TRANSFER, read_bytes });
        assert_eq!(sent(&actions), [ToMaster::Comparing { read_bytes }]);
    }
    assert_eq!(bench.machine.state(TRANSFER), Some(ParticipantState::Preparing));
}

#[test]
fn files_that_were_opened_while_rails_ended_wait_for_those() {
    let mut bench = Bench::new(false);
    bench.prepare(1, 1);
    bench.hear(NodeEvent::RailsEnding);
    bench.open(TRANSFER);
    assert_eq!(bench.machine.state(TRANSFER), Some(ParticipantState::Preparing));
    bench.wait();
    assert_eq!(bench.machine.state(TRANSFER), Some(ParticipantState::Ready), "not for ever");
    assert_eq!(bench.machine.attempts[&TRANSFER].files, AttemptFiles::Open);
}

#[test]
fn every_wait_names_its_remedy() {
    for job in [
        JobKind::Open,
        JobKind::Preallocate,
        JobKind::Drain,
        JobKind::Commit,
        JobKind::Leave,
        JobKind::Clear,
        JobKind::Confirm,
    ] {
        let error = job.overdue(job.within(Duration::from_secs(30)));
        assert!(error.code == Code::Stalled && error.remedy.is_some(), "{error}");
    }
}

#[test]
fn a_master_that_prepares_without_end_leaves_others_room() {
    let mut bench = Bench::new(false);
    bench.machine = NodeMachine::new(bench.now, vec!["eth0".into()], false).with_transfers_max(8);
    let refusal = |actions: &[NodeAction]| {
        let [NodeAction::Send { message, .. }] = actions else { return None };
        match control::decode::<ToMaster>(message) {
            Ok(ToMaster::Failed { error, .. }) => Some(error.message),
            _ => None,
        }
    };
    let mut prepared = |session: u64| {
        bench.meet(session);
        let id = format!("t{session}");
        bench.say(session, ToNode::Prepare(Prepare { id, ..prepare(session as u8) }))
    };
    for session in [2, 4, 6, 8, 10, 12] {
        assert!(matches!(prepared(session)[..], [NodeAction::Begin { .. }]), "{session}");
    }
    let said = refusal(&prepared(14)).expect("three quarters are of one address");
    assert!(said.contains("6 transfers at once, which masters of one address"), "{said}");
    for session in [1, 3] {
        assert!(matches!(prepared(session)[..], [NodeAction::Begin { .. }]), "{session}");
    }
    let said = refusal(&prepared(5)).expect("all are taken");
    assert!(said.contains("8 transfers at once, which all"), "{said}");
}

#[test]
fn a_session_that_prepares_nothing_ends() {
    let mut bench = Bench::new(false);
    bench.meet(1);
    let began = bench.now;
    let actions = bench.wait();
    assert_eq!(bench.now, began + limits::PREPARE_WITHIN);
    let closed = NodeAction::CloseSession { session: SessionIx(1) };
    assert!(actions.contains(&closed), "{actions:?}");
    assert!(bench.machine.is_idle());
}

fn questions() -> ToNode {
    let question = SurveyQuestion { path: "/x".into(), subject: SurveySubject::Source };
    ToNode::Survey(vec![question])
}

fn surveyed(session: u64) -> NodeEvent {
    let answers = vec![SurveyAnswer::Token(false)];
    NodeEvent::Surveyed { session: SessionIx(session), answers }
}

#[test]
fn a_survey_is_answered_on_its_session_and_what_it_made_goes_with_the_session() {
    let ends: [fn() -> NodeEvent; 3] = [
        || NodeEvent::SessionBroken { session: SessionIx(1) },
        || NodeEvent::Closed { session: SessionIx(1), in_order: true },
        || NodeEvent::Closed { session: SessionIx(1), in_order: false },
    ];
    for end in ends {
        let mut bench = Bench::new(false);
        bench.meet(1);
        let asked = bench.say(1, questions());
        assert!(matches!(asked[..], [NodeAction::Survey { session: SessionIx(1), .. }]));
        let answered = bench.hear(surveyed(1));
        assert!(matches!(sent(&answered)[..], [ToMaster::Surveyed(_)]), "{answered:?}");
        let ended = bench.hear(end());
        assert!(ended.contains(&NodeAction::EndSurvey { session: SessionIx(1) }), "{ended:?}");
    }
    // A session that ends before its answer is there.
    let mut bench = Bench::new(false);
    bench.meet(1);
    bench.say(1, questions());
    bench.hear(NodeEvent::SessionBroken { session: SessionIx(1) });
    assert_eq!(bench.hear(surveyed(1)), [NodeAction::EndSurvey { session: SessionIx(1) }]);
}

#[test]
fn a_session_asks_one_survey_at_a_time_and_a_node_takes_a_limited_number() {
    let mut bench = Bench::new(false);
    bench.meet(1);
    bench.say(1, questions());
    let again = bench.say(1, questions());
    assert!(matches!(sent(&again)[..], [ToMaster::Failed { .. }]), "{again:?}");
    assert!(again.contains(&NodeAction::CloseSession { session: SessionIx(1) }));
    // Sessions of odd numbers are of one origin; the first survey is still under way.
    let of_one = u64::try_from(share_of_one(SURVEYS_MAX)).expect("a small number");
    for session in (1..of_one).map(|at| 2 * at + 1) {
        bench.meet(session);
        let asked = bench.say(session, questions());
        assert!(matches!(asked[..], [NodeAction::Survey { .. }]), "{session}: {asked:?}");
    }
    let (full, other) = (2 * of_one + 1, 2);
    bench.meet(full);
    let refused = bench.say(full, questions());
    assert!(
        matches!(&sent(&refused)[..], [ToMaster::Failed { error, .. }]
            if error.code == Code::Refused),
        "{refused:?}"
    );
    bench.meet(other);
    let asked = bench.say(other, questions());
    assert!(matches!(asked[..], [NodeAction::Survey { .. }]), "another origin finds room");
    bench.hear(surveyed(3));
    let asked = bench.say(full, questions());
    assert!(matches!(asked[..], [NodeAction::Survey { .. }]), "one has ended: {asked:?}");
}

#[test]
fn a_launched_node_waits_for_the_transfer_that_a_survey_is_for_and_serves_it_alone() {
    let mut bench = Bench::new(true);
    bench.meet(1);
    let closed = bench.hear(NodeEvent::Closed { session: SessionIx(1), in_order: true });
    assert!(closed.contains(&NodeAction::Exit), "nothing was asked: {closed:?}");

    let mut bench = Bench::new(true);
    bench.meet(1);
    bench.say(1, questions());
    bench.hear(surveyed(1));
    let closed = bench.hear(NodeEvent::Closed { session: SessionIx(1), in_order: true });
    assert!(!closed.contains(&NodeAction::Exit), "{closed:?}");
    bench.prepare(2, 1);
    bench.meet(3);
    let mut other = prepare(2);
    other.id = "another".into();
    let refused = bench.say(3, ToNode::Prepare(other));
    assert!(matches!(sent(&refused)[..], [ToMaster::Failed { .. }]), "{refused:?}");

    // A transfer that does not come is waited for as long as a master is.
    let mut bench = Bench::new(true);
    bench.meet(1);
    bench.say(1, questions());
    bench.hear(surveyed(1));
    bench.hear(NodeEvent::SessionBroken { session: SessionIx(1) });
    let (before, waited) = (bench.now, bench.wait());
    assert!(waited.contains(&NodeAction::Exit) && bench.now == before + LEASE, "{waited:?}");
}
