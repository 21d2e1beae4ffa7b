//! Asking the masters of one's own transfers on this machine.

use std::ffi::OsString;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mio::net::UnixStream;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::local_frames::{framed, message};
use super::local_socket::{is_unfinished, pid_of, remove_unfinished};
use super::private_directory::PrivateDirectory;
use crate::core::error::{Code, Error, Result};
use crate::core::wire::control;
use crate::core::wire::control::{MasterQuery, QueryAnswer};
use crate::core::wire::limits::MESSAGE_BYTES_MAX;
use crate::io::session::may_ask_owner;

/// Time for all masters to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// Masters that are asked at once: each takes a descriptor.
const ASKED_MAX: usize = 128;
/// The pause before another try where a master has too many clients in its queue.
const PAUSE: Duration = Duration::from_millis(20);

/// A socket at which the master of a transfer may listen.
#[derive(Clone, Debug)]
pub(crate) struct LocalMaster {
    /// Its process.
    pub(crate) pid: u32,
    directory: Rc<PrivateDirectory>,
    name: OsString,
}

/// What came of a question.
#[derive(Debug)]
pub(crate) enum LocalAnswer {
    /// The state of the transfer as JSON.
    Json(String),
    /// Nobody listens: the transfer has ended.
    Ended,
    /// It did not answer.
    Failed(Error),
}

/// Returns the sockets of this user's transfers on this machine.
pub(crate) fn masters() -> Vec<LocalMaster> {
    let mut masters = Vec::new();
    for directory in PrivateDirectory::all().into_iter().map(Rc::new) {
        for name in directory.sockets() {
            let Some(pid) = pid_of(&name) else { continue };
            if is_unfinished(&name) {
                remove_unfinished(&directory, &name);
            } else {
                masters.push(LocalMaster { pid, directory: Rc::clone(&directory), name });
            }
        }
    }
    masters
}

/// Asks masters, and returns what came of it, in their order. Sockets at which nobody listens are
/// removed.
///
/// # Errors
/// `Internal` if the question cannot be encoded, or not be waited for.
pub(crate) fn ask(masters: &[&LocalMaster], query: MasterQuery) -> Result<Vec<LocalAnswer>> {
    let question = framed(&query)?;
    let mut answers = Vec::with_capacity(masters.len());
    for some in masters.chunks(ASKED_MAX) {
        let deadline = Instant::now() + ANSWER_WITHIN;
        let mut asked: Vec<AskedMaster<'_>> =
            some.iter().map(|master| AskedMaster::new(master)).collect();
        loop {
            asked.iter_mut().for_each(|one| one.go_on(&question));
            let now = Instant::now();
            if now >= deadline || asked.iter().all(|one| one.answer.is_some()) {
                break;
            }
            wait(&asked, deadline - now)?;
        }
        answers.extend(asked.into_iter().map(AskedMaster::answer));
    }
    Ok(answers)
}

/// Waits until one of those who were asked has something to say, for `within` at most.
fn wait(asked: &[AskedMaster<'_>], within: Duration) -> Result<()> {
    let waiting = asked.iter().filter(|one| one.answer.is_none());
    let is_queued = waiting.clone().any(|one| one.stream.is_none());
    let within = if is_queued { within.min(PAUSE) } else { within };
    let streams = waiting.filter_map(|one| one.stream.as_ref());
    let mut polled: Vec<PollFd<'_>> =
        streams.map(|stream| PollFd::new(stream.as_fd(), PollFlags::POLLIN)).collect();
    let timeout = PollTimeout::try_from(within).unwrap_or(PollTimeout::MAX);
    match poll(&mut polled, timeout) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(Error::new(Code::Internal, format!("cannot wait for answers: {error}"))),
    }
}

/// A master that is asked.
struct AskedMaster<'a> {
    master: &'a LocalMaster,
    /// The connection, once it is made.
    stream: Option<UnixStream>,
    inbox: Vec<u8>,
    answer: Option<LocalAnswer>,
}

impl AskedMaster<'_> {
    fn new(master: &LocalMaster) -> AskedMaster<'_> {
        AskedMaster { master, stream: None, inbox: Vec::new(), answer: None }
    }

    fn go_on(&mut self, question: &[u8]) {
        if self.answer.is_none() && self.stream.is_none() {
            self.connect(question);
        }
        if self.answer.is_none() && self.stream.is_some() {
            self.read();
        }
    }

    fn connect(&mut self, question: &[u8]) {
        let LocalMaster { directory, name, .. } = self.master;
        match UnixStream::connect(directory.path(name)) {
            Ok(mut stream) => match stream.write(question) {
                _ if !may_ask_owner(&stream) => self.fail("another user listens there"),
                Ok(written) if written == question.len() => self.stream = Some(stream),
                _ => self.answer = Some(LocalAnswer::Ended),
            },
            // Its queue is full.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                directory.remove(name);
                self.answer = Some(LocalAnswer::Ended);
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.answer = Some(LocalAnswer::Ended);
            }
            Err(error) => self.fail(&error.to_string()),
        }
    }

    fn read(&mut self) {
        let Some(stream) = &mut self.stream else { return };
        let mut bytes = vec![0; 1 << 16];
        loop {
            match stream.read(&mut bytes) {
                Ok(0) => return self.answer = Some(LocalAnswer::Ended),
                Ok(read) => self.inbox.extend(&bytes[..read]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // It ended before it took the question.
                Err(_) => return self.answer = Some(LocalAnswer::Ended),
            }
            match message(&self.inbox, MESSAGE_BYTES_MAX).map(|it| it.map(control::decode)) {
                Ok(None) => {}
                Ok(Some(Ok(QueryAnswer { json }))) => {
                    return self.answer = Some(LocalAnswer::Json(json));
                }
                Ok(Some(Err(_))) | Err(_) => {
                    return self.fail("its answer is of another version of this program");
                }
            }
        }
    }

    fn fail(&mut self, why: &str) {
        self.answer = Some(LocalAnswer::Failed(unanswered(self.master.pid, why)));
    }

    fn answer(self) -> LocalAnswer {
        let why = "it starts its nodes, or is stopped";
        self.answer.unwrap_or_else(|| LocalAnswer::Failed(unanswered(self.master.pid, why)))
    }
}

fn unanswered(pid: u32, why: &str) -> Error {
    Error::new(Code::Unreachable, format!("the transfer of process {pid} does not answer: {why}"))
        .remedy("try again; the process itself ends its transfer at SIGINT")
}
