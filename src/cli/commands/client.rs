//! `status` and `cancel`: one question to a running master.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};
use serde_json::Value;

use super::output::{print, print_json};
use crate::cli::args::{CancelArgs, MasterArgs, StatusArgs};
use crate::error::{Code, Error, Result};
use crate::session::{Admission, Connection, Hello, Incoming, Key, dial};
use crate::transfer::resolve;
use crate::units::{human_bytes, printable};
use crate::wire::control::{self, Answer, Query};
use crate::wire::version::Kind;

/// How long a master may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

pub(super) fn status(args: &StatusArgs) -> Result<ExitCode> {
    let status = ask(&args.master, Query::Status)?;
    if args.json { print_json(&status.to_string()) } else { print(&in_words(&status)) }?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn cancel(args: &CancelArgs) -> Result<ExitCode> {
    let status = ask(&args.master, Query::Cancel)?;
    print(&format!("cancelling: {}", in_words(&status)))?;
    Ok(ExitCode::SUCCESS)
}

fn in_words(status: &Value) -> String {
    let bytes = |field: &str| human_bytes(status[field].as_u64().unwrap_or(0));
    let (transfer, phase) = (status["transfer"].as_str().unwrap_or("?"), status["phase"].as_str().unwrap_or("?"));
    let (transfer, phase) = (printable(transfer), printable(phase));
    format!("{transfer}: {phase}, {} of {}", bytes("bytes"), bytes("bytes_total"))
}

/// Sends a query and waits for its answer, which is JSON.
fn ask(master: &MasterArgs, query: Query) -> Result<Value> {
    let address = resolve(std::slice::from_ref(&master.address)).pop().expect("one name gives one answer")?;
    let key = master.key_file.as_deref().map_or_else(|| Ok(Key::open()), Key::load)?;
    let answer = converse(address, &key, query).map_err(|error| error.at(&master.address))?;
    // Whatever it says goes on as we print it.
    serde_json::from_str(&answer).map_err(|_| {
        Error::new(Code::Internal, format!("{}: the answer is no JSON", master.address))
            .remedy("name a master of this version")
    })
}

fn converse(address: std::net::SocketAddr, key: &Key, query: Query) -> Result<String> {
    let failed = |error: std::io::Error| Error::new(Code::Internal, format!("no event queue: {error}"));
    let deadline = Instant::now() + ANSWER_WITHIN;
    let mut poll = Poll::new().map_err(failed)?;
    let hello = Hello { kind: Kind::Client, key_id: [0; 16] };
    let mut connection = Connection::initiate(dial(address, None)?, hello, key, &[], deadline)?;
    connection.register(poll.registry(), Token(0))?;
    let nobody = |_: &Hello| None::<Admission>;
    let (mut events, mut asked) = (Events::with_capacity(8), false);
    loop {
        connection.ready(&nobody)?;
        if connection.is_up() && !asked {
            asked = true;
            connection.send(&control::encode(&query).map_err(Error::from)?)?;
        }
        if asked {
            match connection.receive()? {
                Incoming::Message(bytes) => return Ok(control::decode::<Answer>(&bytes)?.json),
                Incoming::Pending => {}
                Incoming::Closed { .. } => {
                    return Err(Error::new(Code::Unreachable, "the master ended before it answered"));
                }
            }
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::new(Code::Unreachable, "the master did not answer in time"));
        }
        match poll.poll(&mut events, Some(left)) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => return Err(failed(error)),
            _ => {}
        }
    }
}
