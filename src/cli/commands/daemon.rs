//! `node`: the daemon.

use std::net::SocketAddr;
use std::process::ExitCode;

use affinity::Pinning;

use crate::cli::args::{NodeArgs, Pin, ThreadsPerNic};
use crate::error::{Code, Error, Result};
use crate::node::Threads;
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
        threads: match args.threads_per_nic {
            ThreadsPerNic::Auto => Threads::Auto,
            ThreadsPerNic::Count(count) => Threads::Each(count),
        },
        pinning: pinning(&args.pin, listen),
        nics: args.nics.clone(),
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

fn pinning(pin: &Pin, listen: SocketAddr) -> Pinning {
    match pin {
        Pin::None => Pinning::None,
        Pin::List(cpus) => Pinning::List(cpus.clone()),
        Pin::Auto => Pinning::Auto { spread: std::process::id() as usize + usize::from(listen.port()) },
    }
}
