//! Questions to nodes about their paths, on control sessions of their own, before a transfer.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use super::dialing::{NodeDialing, PLACES};
use super::file_limit;
use crate::core::error::{Code, Error, Result};
use crate::core::master::machine::SESSION_WITHIN;
use crate::core::wire::control;
use crate::core::wire::control::{NodeAdvert, SurveyAnswer, SurveyQuestion, ToMaster, ToNode};
use crate::core::wire::limits::SURVEY_MAX;
use crate::io::clock::awake;
use crate::io::session::{Connection, ConnectionHello, DialKey, HelloReply, IncomingData};

/// Time for a node to answer the questions of one message: as for opening files.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// Limit on the nodes that are dialled at once, see the master's machine.
const DIALS_MAX: usize = 256;

/// A node to ask.
pub(crate) struct SurveyPeer {
    /// Its name, for errors.
    pub(crate) name: String,
    /// At least one, best first.
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) key: DialKey,
}

/// Control sessions with nodes, for questions.
pub(crate) struct SurveySessions {
    poll: Poll,
    nodes: Vec<SurveyedNode>,
}

struct SurveyedNode {
    peer: SurveyPeer,
    dialing: Option<NodeDialing>,
    connection: Option<Connection>,
    advert: Option<NodeAdvert>,
}

impl SurveySessions {
    /// Meets all nodes.
    ///
    /// # Errors
    /// Those of the first node that cannot be met, with its name.
    pub(crate) fn meet(peers: Vec<SurveyPeer>) -> Result<SurveySessions> {
        file_limit::make(peers.len(), 1)?;
        let poll = Poll::new().map_err(|error| {
            let what = Error::new(Code::Internal, format!("no event queue: {error}"));
            crate::io::system_calls::perhaps_filtered(what, &error, "epoll")
        })?;
        let node = |peer| SurveyedNode { peer, dialing: None, connection: None, advert: None };
        let mut sessions = SurveySessions { poll, nodes: peers.into_iter().map(node).collect() };
        let (mut dialled, mut next) = (Vec::new(), 0);
        while next < sessions.nodes.len() || !dialled.is_empty() {
            while dialled.len() < DIALS_MAX && next < sessions.nodes.len() {
                let (now, node) = (awake(), &mut sessions.nodes[next]);
                let until = now + SESSION_WITHIN;
                node.dialing = Some(NodeDialing::new(now, &node.peer.addresses, until));
                dialled.push(next);
                next += 1;
            }
            sessions.dial(&mut dialled)?;
        }
        Ok(sessions)
    }

    /// Has the nodes that are being dialled come a step further.
    fn dial(&mut self, dialled: &mut Vec<usize>) -> Result<()> {
        let (now, count) = (awake(), self.nodes.len());
        let registry = self.poll.registry();
        for &index in &*dialled {
            let SurveyedNode { peer, dialing, .. } = &mut self.nodes[index];
            let Some(dialing) = dialing else { continue };
            dialing.fail_overdue(now);
            let token = |place: usize| Token(place * count + index);
            while dialing.dial_next(now, &peer.key, |connection, place| {
                connection.register(registry, token(place))
            }) {}
            if dialing.is_over() {
                return Err(dialing.error(&peer.name));
            }
        }
        let due = dialled.iter().filter_map(|&index| self.nodes[index].dialing.as_ref()?.due());
        let due = due.min().unwrap_or(now + SESSION_WITHIN);
        for (index, place) in self.wait(due)? {
            self.nodes[index].dialing_ready(place)?;
        }
        dialled.retain(|&index| self.nodes[index].dialing.is_some());
        Ok(())
    }

    /// Waits for events of connections: the node of each, and the place of its connection.
    fn wait(&mut self, until: Instant) -> Result<Vec<(usize, usize)>> {
        let mut events = Events::with_capacity(256);
        match self.poll.poll(&mut events, Some(until.saturating_duration_since(awake()))) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => {
                return Err(Error::new(Code::Internal, format!("the event queue failed: {error}")));
            }
        }
        let count = self.nodes.len();
        let place = |event: &mio::event::Event| {
            let Token(token) = event.token();
            (token % count, token / count)
        };
        let places: Vec<(usize, usize)> = events.iter().map(place).collect();
        assert!(places.iter().all(|(_, place)| *place < PLACES), "{places:?}");
        Ok(places)
    }

    /// Returns the node's own description.
    pub(crate) fn advert(&self, node: usize) -> Option<&NodeAdvert> {
        self.nodes[node].advert.as_ref()
    }

    /// Asks each node its questions, and returns the answers in their order. A node that fails to
    /// answer one says so in the answer.
    ///
    /// # Errors
    /// `Stalled` for a node that does not answer in time; those of a session that breaks, and
    /// refusals of a whole survey. All of them name the node.
    pub(crate) fn ask(
        &mut self,
        questions: &[Vec<SurveyQuestion>],
    ) -> Result<Vec<Vec<SurveyAnswer>>> {
        let mut answers: Vec<Vec<SurveyAnswer>> = vec![Vec::new(); questions.len()];
        loop {
            let mut asked = Vec::new();
            for (index, questions) in questions.iter().enumerate() {
                let rest = &questions[answers[index].len()..];
                if !rest.is_empty() {
                    let part = &rest[..rest.len().min(SURVEY_MAX)];
                    self.nodes[index].ask(part)?;
                    asked.push((index, part));
                }
            }
            if asked.is_empty() {
                return Ok(answers);
            }
            self.hear(asked, &mut answers)?;
        }
    }

    /// Waits for the answers to one message for each of `asked`.
    fn hear(
        &mut self,
        mut asked: Vec<(usize, &[SurveyQuestion])>,
        answers: &mut [Vec<SurveyAnswer>],
    ) -> Result<()> {
        let deadline = awake() + ANSWER_WITHIN;
        loop {
            let mut waiting = Vec::with_capacity(asked.len());
            for (index, part) in asked {
                match self.nodes[index].answers(part)? {
                    Some(part) => answers[index].extend(part),
                    None => waiting.push((index, part)),
                }
            }
            let Some(&(first, part)) = waiting.first() else { return Ok(()) };
            if awake() >= deadline {
                let node = &self.nodes[first];
                let what = format!(
                    "{} does not say in time what {} is",
                    node.peer.name,
                    part[0].path.display()
                );
                return Err(Error::new(Code::Stalled, what)
                    .remedy("look whether a file system of that host hangs"));
            }
            for (index, _) in self.wait(deadline)? {
                self.nodes[index].ready()?;
            }
            asked = waiting;
        }
    }

    /// Ends the sessions. Nodes remove their tokens then.
    pub(crate) fn close(mut self) {
        for connection in self.nodes.iter_mut().filter_map(|node| node.connection.as_mut()) {
            // A node that is gone needs no good-bye.
            let _ = connection.close();
        }
    }
}

fn nobody(_: &ConnectionHello) -> Option<HelloReply> {
    None
}

impl SurveyedNode {
    /// Something happened to a connection that is being dialled.
    fn dialing_ready(&mut self, place: usize) -> Result<()> {
        let Some(dialing) = &mut self.dialing else { return self.ready() };
        let Some(connection) = dialing.connection(place) else { return Ok(()) };
        match connection.ready(&nobody) {
            Ok(()) if connection.is_up() => {
                let taken = self.dialing.take().and_then(|dialing| dialing.take(place));
                let Some((_, mut connection)) = taken else { return Ok(()) };
                let advert = control::decode(&connection.take_payload());
                self.advert = Some(advert.map_err(|error| self.named(error.into()))?);
                self.connection = Some(connection);
            }
            Ok(()) => {}
            Err(error) => dialing.fail(awake(), place, error),
        }
        Ok(())
    }

    /// Something happened to the connection.
    fn ready(&mut self) -> Result<()> {
        let Some(connection) = &mut self.connection else { return Ok(()) };
        connection.ready(&nobody).map_err(|error| self.named(error))
    }

    fn ask(&mut self, questions: &[SurveyQuestion]) -> Result<()> {
        tracing::debug!("{}: asked about {} paths", self.peer.name, questions.len());
        let message = control::encode(&ToNode::Survey(questions.to_vec()));
        let message = message.map_err(|error| self.named(error.into()))?;
        let Some(connection) = &mut self.connection else { return Ok(()) };
        connection.send(&message).map_err(|error| self.named(error))
    }

    /// The answers to the questions that were asked, once they are there.
    fn answers(&mut self, questions: &[SurveyQuestion]) -> Result<Option<Vec<SurveyAnswer>>> {
        let Some(connection) = &mut self.connection else {
            return Err(self.named(Error::new(Code::Internal, "it was not met")));
        };
        let received = connection.receive().map_err(|error| self.named(error))?;
        let message = match received {
            IncomingData::Message(bytes) => control::decode::<ToMaster>(&bytes),
            IncomingData::Pending => return Ok(None),
            IncomingData::Closed { .. } => {
                let what = "the node ended its control session";
                return Err(self.named(Error::new(Code::Unreachable, what)));
            }
        };
        let fit = |answers: &[SurveyAnswer]| {
            answers.len() == questions.len()
                && answers.iter().zip(questions).all(|(answer, it)| answer.fits(it.subject))
        };
        match message.map_err(|error| self.named(error.into()))? {
            ToMaster::Surveyed(answers) if fit(&answers) => Ok(Some(answers)),
            // A node of another version takes the question for a fault of the protocol.
            ToMaster::Failed { error, .. } if error.code == Code::Internal => {
                Err(self.named(error.remedy("run the same version of cep-fast on both nodes")))
            }
            ToMaster::Failed { error, .. } => Err(self.named(error)),
            _ => Err(self.named(Error::new(Code::Internal, "its answers fit no question"))),
        }
    }

    fn named(&self, error: Error) -> Error {
        error.at(&self.peer.name)
    }
}
