//! `launched`: the node that a launcher on another host describes on standard input.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use crate::app::cli::args::LaunchedArgs;
use crate::core::error::{Code, Error, Result};
use crate::core::launch::host_script::{dialect, runs, skips};
use crate::core::launch::orders::{NodeOrders, ORDERS_BYTES_MAX};
use crate::io::launch::lifeline::TimedInput;

/// Task of a program that a launcher has found or sent.
pub(super) enum LaunchedTask {
    /// Say whether it is the right one.
    Answer(bool),
    /// Carry out the command of these words.
    Node(Vec<OsString>),
    /// Dial the node at this address, and pass on what comes.
    Channel(SocketAddr),
}

pub(super) fn launched(args: &LaunchedArgs) -> Result<LaunchedTask> {
    if let Some(asked) = &args.speaks {
        return Ok(LaunchedTask::Answer(*asked == dialect()));
    }
    if let Some(hash) = &args.is {
        return Ok(LaunchedTask::Answer(own_hash().is_some_and(|own| own == *hash)));
    }
    // Nobody reads it where the launcher is gone.
    let mut out = io::stdout().lock();
    let host = std::env::var("SLURMD_NODENAME").ok();
    if host.is_some() {
        let _ = say_if_narrow(&mut io::stderr());
    }
    let _ = writeln!(out, "{}", runs(host.as_deref())).and_then(|()| out.flush());
    drop(out);
    let orders = read_orders()?;
    if let Some(node) = orders.dial {
        return Ok(LaunchedTask::Channel(node));
    }
    let mut words: Vec<String> =
        ["cep-fast", "node", "--launched", "--beats", "--listen"].map(String::from).to_vec();
    words.push(SocketAddr::new(reached_at(), orders.port).to_string());
    words.extend(orders.arguments);
    Ok(LaunchedTask::Node(words.into_iter().map(Into::into).collect()))
}

/// Warns where a job has one of many CPUs, as jobs have that ask for none.
fn say_if_narrow(to: &mut impl Write) -> io::Result<()> {
    let allowed = affinity::cpus_allowed().map_or(0, |cpus| cpus.len());
    let all = nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_ONLN);
    let all = all.ok().flatten().unwrap_or(1);
    if allowed != 1 || all < 2 {
        return Ok(());
    }
    writeln!(
        to,
        "warning: the job has one of {all} CPUs here, which all NICs share: ask for more with \
         sbatch --cpus-per-task or --exclusive"
    )
}

/// Returns the address at which the login of this session came in: the others reach it there, too.
/// Without one, all of them: a job has that of the session that submitted it, on another host.
fn reached_at() -> IpAddr {
    let connection = std::env::var("SSH_CONNECTION").unwrap_or_default();
    let address = connection.split(' ').nth(2).and_then(|address| address.parse::<IpAddr>().ok());
    address
        .filter(|address| UdpSocket::bind((*address, 0)).is_ok())
        .unwrap_or(Ipv4Addr::UNSPECIFIED.into())
}

/// Reads the line of orders, and nothing of the secret after it. What other hosts of a job are sent
/// before is passed over.
fn read_orders() -> Result<NodeOrders> {
    let refused = |what: String| {
        Error::new(Code::Usage, format!("standard input: {what}"))
            .remedy("this command is for launchers: start a node with cep-fast node")
    };
    let mut stdin = TimedInput::open().map_err(|error| refused(error.to_string()))?;
    loop {
        let line = read_line(&mut stdin).map_err(|error| refused(error.to_string()))?;
        match skips(&line) {
            None => return NodeOrders::parse(&line).map_err(refused),
            Some(bytes) => skip(&mut stdin, bytes).map_err(|error| refused(error.to_string()))?,
        }
    }
}

/// Reads bytes that are for others, however long they take as long as some come.
fn skip(stdin: &mut TimedInput, mut bytes: u64) -> io::Result<()> {
    let mut chunk = vec![0; 64 << 10];
    while bytes > 0 {
        let most = chunk.len().min(usize::try_from(bytes).unwrap_or(usize::MAX));
        match stdin.read(&mut chunk[..most])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => bytes -= read as u64,
        }
        stdin.wait_anew();
    }
    Ok(())
}

/// Reads a line without its end, and nothing after it.
fn read_line(stdin: &mut TimedInput) -> io::Result<String> {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while line.len() < ORDERS_BYTES_MAX {
        match stdin.read(&mut byte) {
            Ok(1) if byte[0] != b'\n' => line.push(byte[0]),
            Ok(1) => return Ok(String::from_utf8_lossy(&line).into_owned()),
            Ok(_) => return Err(io::Error::other("it ended before the orders")),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("the orders are too long"))
}

/// Returns the BLAKE3 of this program.
fn own_hash() -> Option<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open("/proc/self/exe").ok()?).ok()?;
    Some(hasher.finalize().to_hex().to_string())
}
