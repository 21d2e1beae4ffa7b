//! `status` and `cancel`: one question to a running master.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};
use serde_json::Value;

use super::output::{print, print_json};
use super::own_transfers;
use super::own_transfers::OwnTransfers;
use super::status_text::in_words;
use crate::app::cli::args::{CancelArgs, KeyArgs, MasterArgs, StatusArgs};
use crate::app::transfer::resolve_one;
use crate::core::error::{Code, Error, Result};
use crate::core::spec::NodeAddress;
use crate::core::wire::control;
use crate::core::wire::control::{MasterQuery, QueryAnswer};
use crate::core::wire::version::ConnectionKind;
use crate::io::session::{
    Connection, ConnectionHello, DialKey, DialProgress, HelloReply, IncomingData, PeerDialer,
    SiteAccess, dial,
};

/// Time for a master to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// `status`: that of the master at an address, or of all transfers of one's own on this machine.
pub(super) fn status(args: &StatusArgs) -> Result<ExitCode> {
    let Some(address) = address_of(&args.master)? else {
        return own_transfers::status(args.json);
    };
    let status = ask(address, &args.master.keys, MasterQuery::Status)?;
    if args.json { print_json(&status.to_string()) } else { print(&in_words(&status)) }?;
    Ok(ExitCode::SUCCESS)
}

/// `cancel`: the transfer of the master at an address, or some of one's own on this machine.
pub(super) fn cancel(args: &CancelArgs) -> Result<ExitCode> {
    let Some(address) = address_of(&args.master)? else {
        let choice = match &args.transfer {
            Some(name) => OwnTransfers::Named(name),
            None if args.all => OwnTransfers::All,
            None => OwnTransfers::Only,
        };
        return own_transfers::cancel(choice);
    };
    let status = ask(address, &args.master.keys, MasterQuery::Cancel)?;
    print(&format!("cancelling: {}", in_words(&status)))?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the address of the master, if one is named. Keys are for such masters.
fn address_of(master: &MasterArgs) -> Result<Option<&NodeAddress>> {
    if master.address.is_none()
        && (master.keys.key_file.is_some() || master.keys.allow_file.is_some())
    {
        let what = "a key is for a master at an address, and none is given";
        return Err(Error::new(Code::Usage, what)
            .remedy("name the master as HOST:PORT, or leave out --key-file and --allow-file"));
    }
    Ok(master.address.as_ref())
}

/// Sends a query to the master at an address, and waits for its answer, which is JSON.
fn ask(address: &NodeAddress, files: &KeyArgs, query: MasterQuery) -> Result<Value> {
    let addresses = resolve_one(address)?;
    let access = SiteAccess::load(files.key_file.as_deref(), files.allow_file.as_deref())?;
    let key = access.master_key()?;
    let failed =
        |error: std::io::Error| Error::new(Code::Internal, format!("no event queue: {error}"));
    let now = Instant::now();
    let poll = Poll::new().map_err(failed)?;
    let mut client = MasterClient {
        poll,
        reach: PeerDialer::new(now, &addresses, now + ANSWER_WITHIN),
        attempts: Vec::new(),
    };
    let answer = client.converse(&key, query, &address.to_string());
    let answer = answer.map_err(|error| error.at(address))?;
    // Control characters are escaped when it is printed.
    let answer: Value = serde_json::from_str(&answer).map_err(|_| {
        Error::new(Code::Internal, format!("{address}: the answer is no JSON"))
            .remedy("name a master of this version")
    })?;
    match answer["refused"]["message"].as_str() {
        Some(message) => Err(Error::new(Code::Refused, message).at(address)),
        None => Ok(answer),
    }
}

/// A client of a master, which may listen at any of several addresses.
struct MasterClient {
    poll: Poll,
    reach: PeerDialer,
    /// Dialled connections; the index is the token.
    attempts: Vec<Option<(SocketAddr, Connection)>>,
}

impl MasterClient {
    fn converse(&mut self, key: &DialKey, query: MasterQuery, name: &str) -> Result<String> {
        let mut connection = self.connect(key, name)?;
        connection.send(&control::encode(&query).map_err(Error::from)?)?;
        loop {
            connection.ready(&NOBODY)?;
            match connection.receive()? {
                IncomingData::Message(bytes) => {
                    return Ok(control::decode::<QueryAnswer>(&bytes)?.json);
                }
                IncomingData::Pending => {}
                IncomingData::Closed { .. } => {
                    return Err(Error::new(
                        Code::Unreachable,
                        "the master ended before it answered",
                    ));
                }
            }
            if Instant::now() >= self.reach.deadline() {
                return Err(Error::new(Code::Unreachable, "the master did not answer in time"));
            }
            self.wait(self.reach.deadline())?;
        }
    }

    /// The first connection that is up.
    fn connect(&mut self, key: &DialKey, name: &str) -> Result<Connection> {
        loop {
            let now = Instant::now();
            while let Some(address) = self.reach.next(now) {
                if let Err(error) = self.dial(address, key) {
                    self.reach.fail(now, address, DialProgress::Connecting, error);
                }
            }
            for attempt in &mut self.attempts {
                let Some((address, connection)) = attempt else { continue };
                let error = match connection.ready(&NOBODY) {
                    Ok(()) if connection.is_up() => {
                        return Ok(attempt.take().expect("it is one").1);
                    }
                    Ok(()) if connection.deadline().is_none_or(|due| now < due) => continue,
                    Ok(()) => connection.overdue(),
                    Err(error) => error,
                };
                self.reach.fail(now, *address, connection.progress(), error);
                *attempt = None;
            }
            if self.reach.is_over() {
                return Err(self.reach.error(name));
            }
            self.wait(
                self.reach
                    .due()
                    .map_or(self.reach.deadline(), |due| due.min(self.reach.deadline())),
            )?;
        }
    }

    fn dial(&mut self, address: SocketAddr, key: &DialKey) -> Result<()> {
        let hello = ConnectionHello { kind: ConnectionKind::Client, key_id: [0; 16] };
        let mut connection =
            Connection::initiate(dial(address, None)?, hello, key, &[], self.reach.deadline())?;
        connection.register(self.poll.registry(), Token(self.attempts.len()))?;
        self.attempts.push(Some((address, connection)));
        Ok(())
    }

    /// Waits for something to happen, or until `until`.
    fn wait(&mut self, until: Instant) -> Result<()> {
        let mut events = Events::with_capacity(8);
        match self.poll.poll(&mut events, Some(until.saturating_duration_since(Instant::now()))) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => {
                Err(Error::new(Code::Internal, format!("the event queue failed: {error}")))
            }
            _ => Ok(()),
        }
    }
}

/// A client lets nobody in.
const NOBODY: fn(&ConnectionHello) -> Option<HelloReply> = |_| None;
