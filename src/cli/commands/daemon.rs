//! `node`: the daemon.

use std::net::SocketAddr;
use std::process::ExitCode;

use crate::cli::args::{NodeArgs, Pin};
use crate::error::{Code, Error, Result};
use crate::node::options::Options;
use crate::session::Key;
use crate::transfer::resolve;

pub(super) fn node(args: &NodeArgs) -> Result<ExitCode> {
    let listen = resolve(std::slice::from_ref(&args.listen)).pop().expect("one name gives one answer")?;
    let key = key(args, listen)?;
    crate::node::run(Options {
        listen,
        root: args.root.clone(),
        key,
        launched: args.launched,
        slots: args.slots,
        cpu: cpu(&args.pin, listen),
        nic: args.nics.first().cloned(),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// A launched node gets its secret on standard input, a daemon from its key file.
fn key(args: &NodeArgs, listen: SocketAddr) -> Result<Key> {
    if args.launched {
        let mut line = String::new();
        std::io::stdin()
            .read_line(&mut line)
            .map_err(|error| Error::new(Code::Refused, format!("no secret on standard input: {error}")))?;
        return Key::from_hex(line.trim());
    }
    Options::check_key(listen, args.key_file.is_some())?;
    args.key_file.as_deref().map_or_else(|| Ok(Key::open()), Key::load)
}

/// The CPU of the rail. Several nodes on one machine spread over its CPUs, by their ports and processes.
fn cpu(pin: &Pin, listen: SocketAddr) -> Option<usize> {
    match pin {
        Pin::None => None,
        Pin::List(cpus) => cpus.first().copied(),
        Pin::Auto => {
            let cpus = affinity::cpus_allowed().unwrap_or_default();
            let spread = std::process::id() as usize + usize::from(listen.port());
            (!cpus.is_empty()).then(|| cpus[spread % cpus.len()])
        }
    }
}
