//! `node`: the daemon.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;

use affinity::PinningPolicy;
use nix::sys::prctl::set_dumpable;

use crate::app::cli::args::{AllowedKind, ConfineArg, KeyArgs, NodeArgs, PinArg, ThreadsPerNic};
use crate::app::cli::root_arg::declared_roots;
use crate::app::cli::signals;
use crate::app::doctor;
use crate::app::transfer::resolve_first;
use crate::core::error::{Code, Error, Result};
use crate::core::spec::NodeAddress;
use crate::io::confine::ConfineMode;
use crate::io::launch::lifeline;
use crate::io::launch::lifeline::{LauncherSign, TimedInput};
use crate::io::log::say;
use crate::io::node::options::NodeOptions;
use crate::io::node::{AllowedKinds, NodeStop, ThreadCount};
use crate::io::session::{Identity, Key, SiteAccess};
use crate::io::store::{RootOptions, RootRights};

pub(super) fn node(args: &NodeArgs) -> Result<ExitCode> {
    let listen = resolve_first(&args.listen)?;
    if !args.launched {
        say_if_inside(&args.listen, listen);
        NodeOptions::check_key(listen, args.keys.key_file.is_some())?;
    }
    NodeOptions::check_roots(args.roots.len())?;
    let roots = RootOptions {
        declared: declared_roots(&args.roots, Path::is_dir)?,
        allowed: allowed(args),
        rights: RootRights { reads: !args.no_serve, writes: !args.no_write },
    };
    let access = access(args)?;
    let options = NodeOptions {
        listen,
        ports: args.ports,
        roots,
        confine: match args.confine {
            ConfineArg::Auto => ConfineMode::Auto,
            ConfineArg::Off => ConfineMode::Off,
            ConfineArg::Required => ConfineMode::Required,
        },
        access,
        wire_min: args.wire_min,
        launched: args.launched,
        beats: args.beats,
        measured: args.measured,
        // Before the node is confined: its limits are those of whoever started it.
        diagnosis: args.examined.then(|| doctor::examine().json()),
        transfers_max: usize::from(args.transfers),
        slots: args.slots,
        threads: match args.threads_per_nic {
            ThreadsPerNic::Auto => ThreadCount::Auto,
            ThreadsPerNic::Count(count) => ThreadCount::Each(count),
        },
        pinning: pinning(&args.pin, listen),
        nics: args.nics.clone(),
    };
    let (launched, beats) = (args.launched, args.beats);
    crate::io::node::run(options, |stop| {
        if launched {
            watch_launcher(stop.clone(), beats)?;
        }
        signals::stop_on_signals(stop)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Ends the node with its launcher, whose end of standard input closes then.
fn watch_launcher(stop: NodeStop, beats: bool) -> Result<()> {
    let tell = move |sign| match sign {
        LauncherSign::Gone => stop.stop(),
        LauncherSign::Silent => stop.launcher_is_silent(true),
        LauncherSign::Back => stop.launcher_is_silent(false),
    };
    lifeline::watch(beats, tell).map_err(|error| {
        Error::new(Code::Internal, format!("standard input cannot be watched: {error}"))
    })
}

/// Returns the kinds of data that the node serves. A launched node serves the user who started it,
/// with that user's rights; a daemon serves all holders of the key.
fn allowed(args: &NodeArgs) -> AllowedKinds {
    let allows = |kind| args.launched || args.allow.contains(&kind);
    AllowedKinds { memory: allows(AllowedKind::Mem), devices: allows(AllowedKind::Devices) }
}

/// Returns the keys: of a launched node from standard input, of a daemon from its files.
fn access(args: &NodeArgs) -> Result<SiteAccess> {
    if args.launched {
        let stdin = TimedInput::open().map_err(|error| {
            Error::new(Code::Refused, format!("no secret on standard input: {error}"))
        })?;
        let key = Key::read_line(stdin).map_err(|error| error.at("standard input"))?;
        return Ok(SiteAccess::of(Identity::of(key)));
    }
    let KeyArgs { key_file, allow_file } = &args.keys;
    let Some(file) = key_file else {
        NodeOptions::check_insecure(false, args.insecure_no_key)?;
        return Ok(SiteAccess::of(Identity::open()));
    };
    // From here on there is a secret in memory: no core dump contains it, and no other process of
    // this user can read it. If the kernel or a filter refuses, the daemon runs without this
    // protection.
    let _ = set_dumpable(false);
    let access = SiteAccess::load(Some(file), allow_file.as_deref())?;
    access.check_allow().map(|()| access)
}

/// Warns about a host whose own name resolves to a loopback address, such as `127.0.1.1` in
/// `/etc/hosts`: masters on other hosts cannot reach it.
fn say_if_inside(asked: &NodeAddress, listen: SocketAddr) {
    let is_name = asked.host.parse::<IpAddr>().is_err() && asked.host != "localhost";
    if is_name && listen.ip().is_loopback() {
        say(&format!(
            "{listen} leads to this machine only ({} is a loopback address here, look at \
             /etc/hosts): listen on an address that other machines reach",
            asked.host
        ));
    }
}

fn pinning(pin: &PinArg, listen: SocketAddr) -> PinningPolicy {
    match pin {
        PinArg::None => PinningPolicy::None,
        PinArg::List(cpus) => PinningPolicy::List(cpus.clone()),
        PinArg::Auto => {
            PinningPolicy::Auto { spread: std::process::id() as usize + usize::from(listen.port()) }
        }
    }
}
