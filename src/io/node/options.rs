//! Options of a daemon: where to listen, below which root, with which key.

use std::net::SocketAddr;
#[cfg(test)]
use std::path::Path;

use affinity::PinningPolicy;

use super::ciphers;
use super::threads::ThreadCount;
use crate::core::error::{Code, Error, Result};
use crate::core::launch::port_range::PortRange;
use crate::core::node::machine::NodeMachine;
#[cfg(test)]
use crate::core::node::machine::limits::TRANSFERS_DEFAULT;
use crate::core::options::{TransferOptions, WireLevel};
use crate::core::units::Moment;
use crate::core::wire::control::{NodeAdvert, RailAdvert};
use crate::core::wire::terms::{WirePolicy, WireRules};
use crate::io::confine::ConfineMode;
#[cfg(test)]
use crate::io::session::Identity;
use crate::io::session::SiteAccess;
use crate::io::store::RootOptions;
#[cfg(test)]
use crate::io::store::{AllowedKinds, DeclaredRoot, RootPlace, RootRights};

const KEY_REMEDY: &str =
    "make one with `cep-fast keygen FILE`, copy it to every node, and pass --key-file FILE";

/// The options of a daemon.
#[derive(Clone, Debug)]
pub(crate) struct NodeOptions {
    pub(crate) listen: SocketAddr,
    /// Ports that it may listen at; without them, any free ones.
    pub(crate) ports: Option<PortRange>,
    /// Directories to serve and to write below, with the rights there.
    pub(crate) roots: RootOptions,
    /// Whether the kernel keeps the node from all that it does not need.
    pub(crate) confine: ConfineMode,
    /// Its keys, the open one where there is none, and those that it lets in.
    pub(crate) access: SiteAccess,
    /// The least protection of the bytes on the wire.
    pub(crate) wire_min: WireLevel,
    /// A master has started it, so that it ends when that master is gone.
    pub(crate) launched: bool,
    /// Whoever has started it is heard regularly on standard input.
    pub(crate) beats: bool,
    /// It was started to be measured: by several transfers in turn, with the load of its machine.
    pub(crate) measured: bool,
    /// What was found on its machine, if it was started to be examined: one JSON object.
    pub(crate) diagnosis: Option<String>,
    /// Transfers that it takes part in at once.
    pub(crate) transfers_max: usize,
    pub(crate) slots: Option<u32>,
    /// CPUs that the threads of rails run on.
    pub(crate) pinning: PinningPolicy,
    pub(crate) threads: ThreadCount,
    /// The NICs to use, by name or address; without any, all that are up and lead out of this
    /// machine.
    pub(crate) nics: Vec<String>,
}

impl NodeOptions {
    /// Refuses to listen beyond this machine where anybody could come in.
    ///
    /// # Errors
    /// `Code::Refused`, with the remedy.
    pub(crate) fn check_key(listen: SocketAddr, has_key: bool) -> Result<()> {
        if has_key || listen.ip().is_loopback() {
            return Ok(());
        }
        Err(Error::new(
            Code::Refused,
            format!("{listen} can be reached from other machines, and there is no key"),
        )
        .remedy(KEY_REMEDY))
    }

    /// Refuses to start without a root. There is no default: one that was not thought of would open
    /// all that the daemon's user can reach to whoever holds the key.
    ///
    /// # Errors
    /// `Code::Usage` where none is given.
    pub(crate) fn check_roots(count: usize) -> Result<()> {
        if count > 0 {
            return Ok(());
        }
        let what = "there is no --root: a node serves and writes below directories, which have to \
                    be named";
        Err(Error::new(Code::Usage, what)
            .remedy("--root DIR; --root / for all that the node's user can reach"))
    }

    /// Refuses to start without a key where nobody has said that it is meant.
    ///
    /// # Errors
    /// `Code::Refused`, with the remedy.
    pub(crate) fn check_insecure(has_key: bool, insecure_no_key: bool) -> Result<()> {
        if has_key || insecure_no_key {
            return Ok(());
        }
        Err(Error::new(
            Code::Refused,
            "there is no key: whoever reaches the port would be asked for none",
        )
        .remedy(format!(
            "{KEY_REMEDY}; --insecure-no-key, for a loopback address alone, lets in processes of \
             this user without one"
        )))
    }

    /// Returns what is demanded of the flows of a transfer, and why the transfer is refused, if it
    /// is.
    pub(super) fn wire_policy(&self, options: &TransferOptions) -> (WirePolicy, Option<Error>) {
        let rules = WireRules { least: self.wire_min, ciphers: ciphers::available() };
        match rules.policy(options) {
            Ok(policy) => (policy, None),
            Err(error) => (rules.strictest(), Some(error)),
        }
    }

    /// The machine of a node with these options.
    pub(super) fn machine(&self, now: Moment, nics: Vec<String>) -> NodeMachine {
        NodeMachine::new(now, nics, self.launched)
            .with_transfers_max(self.transfers_max)
            .with_launcher_beats(self.beats)
            .with_several_transfers(self.measured)
    }

    /// The advert of this node.
    pub(super) fn advert(rails: Vec<RailAdvert>) -> NodeAdvert {
        NodeAdvert {
            software: format!("cep-fast {}", env!("CARGO_PKG_VERSION")),
            rails,
            cores: affinity::cpus_allowed()
                .map_or(1, |cpus| u32::try_from(cpus.len()).unwrap_or(u32::MAX)),
            boot_id: std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
                .unwrap_or_default()
                .trim()
                .into(),
            incarnation: u64::from(std::process::id()),
        }
    }

    #[cfg(test)]
    pub(super) fn for_tests() -> NodeOptions {
        NodeOptions {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            ports: None,
            roots: RootOptions {
                declared: vec![DeclaredRoot {
                    place: RootPlace::whole(Path::new("/")),
                    rights: RootRights::ALL,
                }],
                allowed: AllowedKinds::ALL,
                rights: RootRights::ALL,
            },
            confine: ConfineMode::Off,
            access: SiteAccess::of(Identity::open()),
            wire_min: WireLevel::Clear,
            launched: false,
            beats: false,
            measured: false,
            diagnosis: None,
            transfers_max: TRANSFERS_DEFAULT,
            slots: None,
            pinning: PinningPolicy::None,
            threads: ThreadCount::Auto,
            nics: Vec::new(),
        }
    }
}
