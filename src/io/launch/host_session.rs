//! A host's session: what it says, and what it is answered, until its node listens.

use std::io::{self, PipeReader, Write};
use std::net::SocketAddr;
use std::process::ChildStdin;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;

use zeroize::Zeroizing;

use super::child::{self, ChildWords, pass_on};
use super::deployment::ProgramDeployment;
use super::lifeline::LifelineHolder;
use crate::core::error::{Code, Error};
use crate::core::launch::host_script::HostLine;
use crate::core::launch::orders::NodeOrders;
use crate::core::node::ready_line;
use crate::core::units::printable;

/// What happened on a host.
pub(super) enum HostEvent {
    /// Its session stands.
    Open,
    /// Something is on its way to it.
    Progress,
    /// Its node listens.
    Listens(Vec<SocketAddr>),
    /// It cannot be served.
    Failed(Error),
    /// Its session has ended, after these words.
    Ended(ChildWords),
}

/// One session.
pub(super) struct HostSession {
    pub(super) name: String,
    pub(super) orders: NodeOrders,
    pub(super) secret: Zeroizing<String>,
    /// Until it is a lifeline.
    pub(super) stdin: Option<ChildStdin>,
    pub(super) deployment: Arc<ProgramDeployment>,
    pub(super) holder: LifelineHolder,
    pub(super) events: Sender<(usize, HostEvent)>,
    /// Place of the host.
    pub(super) at: usize,
}

/// How far the program has come to the host.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ProgramState {
    Unknown,
    /// It was asked to look again.
    Looked,
    Sent,
}

impl HostSession {
    /// Starts the thread that reads what the host says.
    pub(super) fn start(self, output: PipeReader) -> io::Result<()> {
        let name = format!("host {}", self.name);
        thread::Builder::new().name(name).spawn(move || self.follow(output)).map(drop)
    }

    fn follow(mut self, output: PipeReader) {
        let (mut words, mut program) = (ChildWords::default(), ProgramState::Unknown);
        let mut lines = child::lines(output);
        let (mut runs, mut listens) = (false, false);
        for line in lines.by_ref() {
            match HostLine::parse(&line) {
                Some(HostLine::Runs { .. }) => {
                    self.tell(HostEvent::Open);
                    // A banner is nobody's error.
                    words.clear();
                    runs = true;
                    self.give_orders();
                }
                Some(HostLine::Needs { system, machine, .. }) => {
                    self.tell(HostEvent::Open);
                    if let Err(error) = self.answer_need((&system, &machine), &mut program) {
                        return self.tell(HostEvent::Failed(error));
                    }
                }
                Some(HostLine::Stored) => {
                    self.deployment.first_is_done();
                    self.tell(HostEvent::Progress);
                }
                // A banner may say anything.
                Some(HostLine::Dialled) => {}
                None if !runs => words.keep(line),
                None => match ready_line::parse_all(&line) {
                    Some(Ok(addresses)) => {
                        words.lines().iter().for_each(|line| pass_on(line, Some(&self.name)));
                        self.tell(HostEvent::Listens(addresses));
                        listens = true;
                        break;
                    }
                    Some(Err(_)) => {
                        let what =
                            format!("the node said {} instead of its address", printable(&line));
                        let error = Error::new(Code::Unreachable, what)
                            .remedy("install the same version there as here");
                        return self.tell(HostEvent::Failed(error));
                    }
                    None => words.keep(line),
                },
            }
        }
        if !listens {
            self.deployment.first_is_done();
            return self.tell(HostEvent::Ended(words));
        }
        // Later output is for people. It is always read, so that nobody waits for a full pipe.
        lines.for_each(|line| pass_on(&line, Some(&self.name)));
    }

    fn answer_need(&mut self, host: (&str, &str), program: &mut ProgramState) -> Result<(), Error> {
        if *program == ProgramState::Sent {
            let what = "the program that was sent there is not of this version";
            return Err(Error::new(Code::Unreachable, what).remedy(
                "put a static build of this version beside this program (tools/release), or \
                 install it there",
            ));
        }
        let is_again = *program == ProgramState::Looked;
        let Some(mut stdin) = self.stdin.take() else { return Ok(()) };
        let progress = || self.tell(HostEvent::Progress);
        let was_sent = self.deployment.answer(host, is_again, &mut stdin, progress)?;
        *program = if was_sent { ProgramState::Sent } else { ProgramState::Looked };
        self.stdin = Some(stdin);
        Ok(())
    }

    fn give_orders(&mut self) {
        let Some(mut stdin) = self.stdin.take() else { return };
        // A node that has ended says why by itself.
        let orders = self.orders.line();
        let given = stdin
            .write_all(orders.as_bytes())
            .and_then(|()| stdin.write_all(self.secret.as_bytes()))
            .and_then(|()| stdin.write_all(b"\n"));
        if given.is_ok() {
            self.holder.hold(stdin);
        }
    }

    fn tell(&self, event: HostEvent) {
        // The launcher may have stopped waiting.
        let _ = self.events.send((self.at, event));
    }
}
