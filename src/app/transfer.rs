//! The library's transfer: rows in, report out.
//!
//! The three calls of the CEP paper (Table 1) in this library's idiom: [`Transfer::schedule`] adds
//! a row, [`Transfer::transfer`] starts or resumes the transfer, and [`TransferHandle::data_sent`]
//! returns the bytes that have arrived. A [`TransferHandle`] also cancels, from any thread, at any
//! time.

use std::net::{IpAddr, SocketAddr, TcpListener, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::core::error::{Code, Error, Result};
use crate::core::launch::method::LaunchMethod;
use crate::core::master::attempt::{AttemptConfig, TransferIdentity};
use crate::core::master::coordinator::Coordinator;
use crate::core::master::roster::Roster;
use crate::core::master::summary;
use crate::core::options::{CheckKind, DataPath, TransferOptions, WireLevel};
use crate::core::report::Report;
use crate::core::spec::{NodeAddress, Row, Spec};
use crate::core::wire::limits::{NODES_MAX, TEXT_BYTES_MAX};
use crate::io::clock;
use crate::io::clock::Clock;
use crate::io::launch;
use crate::io::launch::{HostStarter, LaunchConfig, LaunchedNodes, NodePlace, NodeToStart};
use crate::io::master::file_limit;
use crate::io::master::local_socket::LocalSocket;
use crate::io::master::run;
use crate::io::master::run::{MasterSetup, MasterShared};
use crate::io::session::{DialKey, Key, SiteAccess};

/// Deadline for resolving the names of nodes.
const RESOLVE_WITHIN: Duration = Duration::from_secs(10);
/// Names that are resolved at once: on many machines a process may not have ten thousand threads.
const RESOLVERS_MAX: usize = 64;

/// Blocks that a limit must allow each receiver within the stall timeout, so that it does not count
/// as stalled.
const STALL_BLOCKS_MIN: f64 = 4.0;

/// Settings of a transfer: how its master reaches the nodes, and its options.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who starts the nodes. Whatever starts some here requires `program`.
    pub launch: LaunchMethod,
    /// The command of [`LaunchMethod::Ssh`] and [`LaunchMethod::Auto`], with options of its own.
    pub ssh: String,
    /// Send the program to hosts that have none of this version.
    pub deploy: bool,
    /// The `cep-fast` program of launched nodes on this machine.
    pub program: Option<PathBuf>,
    /// Root directory of launched nodes; daemons have their own.
    pub root: PathBuf,
    /// The file with the site key that the daemons share, or with the private key of this master.
    /// Without it, only nodes on loopback that run as the same user accept the master.
    pub key_file: Option<PathBuf>,
    /// The file with the public keys of the nodes, and of those who may ask this master; for a
    /// master with a private key.
    pub allow_file: Option<PathBuf>,
    /// Open a socket by which `cep-fast status` and `cancel` of the same user on this machine find
    /// the transfer without an address.
    pub findable: bool,
    /// Options of the transfer itself.
    pub options: TransferOptions,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            launch: LaunchMethod::None,
            ssh: "ssh".into(),
            deploy: true,
            program: None,
            root: "/".into(),
            key_file: None,
            allow_file: None,
            findable: false,
            options: TransferOptions::default(),
        }
    }
}

impl Settings {
    /// Returns what starts nodes on other hosts.
    fn starter(&self) -> Result<HostStarter> {
        match &self.launch {
            LaunchMethod::Command(command) => Ok(HostStarter::Command(command.clone())),
            _ => HostStarter::ssh(&self.ssh),
        }
    }

    /// Returns where the node of a row is started.
    fn place(&self, host: &NodeAddress) -> NodePlace {
        let is_here = || {
            host.host == "localhost" || host.host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
        };
        match &self.launch {
            LaunchMethod::None | LaunchMethod::Local => NodePlace::Loopback,
            LaunchMethod::Auto if is_here() => NodePlace::Here,
            LaunchMethod::Auto
            | LaunchMethod::Ssh
            | LaunchMethod::Slurm
            | LaunchMethod::Command(_) => NodePlace::Host { user: None },
        }
    }
}

/// A transfer: rows and settings.
///
/// ```no_run
/// use cep_fast::{Settings, Transfer};
/// # fn main() -> Result<(), cep_fast::Error> {
/// let spec = cep_fast::Spec::parse("demo", r#"
/// id "demo"
/// writer a:5001 pattern:7 0 0-1M
/// reader b:5002 null:     0 0-1M
/// "#)?;
/// let settings = Settings { key_file: Some("site.key".into()), ..Settings::default() };
/// let mut transfer = Transfer::new("demo", settings);
/// for row in spec.rows {
///     transfer.schedule(row);
/// }
/// // Every transfer that began has a report. `into_result` turns a failure into an error.
/// let report = transfer.transfer()?.into_result()?;
/// println!("{report}");
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Transfer {
    spec: Spec,
    settings: Settings,
    shared: Arc<MasterShared>,
    /// Nodes that this process has started, each with a key of its own.
    own_nodes: Vec<(NodeAddress, Key)>,
}

/// Handle of a transfer for other threads: progress and cancellation.
#[derive(Clone, Debug)]
pub struct TransferHandle {
    shared: Arc<MasterShared>,
}

impl TransferHandle {
    /// Returns the bytes that have arrived and are written, summed over receivers; at most half a
    /// second old.
    #[must_use]
    pub fn data_sent(&self) -> u64 {
        self.shared.landed_bytes.load(Ordering::Relaxed)
    }

    /// Returns the address at which `cep-fast status` and `cancel` reach this transfer's master,
    /// once it runs, if its specification has a master row. If the row has port 0, this returns the
    /// actual port.
    #[must_use]
    pub fn master_address(&self) -> Option<SocketAddr> {
        self.shared.address.get().copied()
    }

    /// Cancels the transfer. [`Transfer::transfer`] returns with a report whose state is
    /// `cancelled`, once every node has cleaned up or its time for that has passed. A transfer that
    /// has not started yet ends as soon as it starts.
    pub fn cancel(&self) {
        self.shared.cancel();
    }

    /// Returns true if somebody has asked for the end: by [`TransferHandle::cancel`], or as a
    /// client of the master. The transfer may have completed nevertheless.
    pub(crate) fn was_cancelled(&self) -> bool {
        self.shared.was_cancelled.load(Ordering::Acquire)
    }
}

impl Transfer {
    /// Creates a transfer without rows. People see its id, and a later attempt finds its files by
    /// the id.
    #[must_use]
    pub fn new(id: impl Into<String>, settings: Settings) -> Transfer {
        Transfer::from_spec(Spec { id: id.into(), ..Spec::default() }, settings)
    }

    /// Creates the transfer of a specification.
    #[must_use]
    pub fn from_spec(spec: Spec, settings: Settings) -> Transfer {
        Transfer { spec, settings, shared: Arc::default(), own_nodes: Vec::new() }
    }

    /// Adds a row: a node offers or wants a range.
    pub fn schedule(&mut self, row: Row) {
        self.spec.rows.push(row);
    }

    /// Returns the rows and options so far.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Names a node that this process has started, and the key that it has handed to it.
    pub(crate) fn add_own_node(&mut self, address: NodeAddress, key: Key) {
        self.own_nodes.push((address, key));
    }

    /// Returns a handle for progress and cancellation.
    #[must_use]
    pub fn handle(&self) -> TransferHandle {
        TransferHandle { shared: Arc::clone(&self.shared) }
    }

    /// Runs the transfer, from its start or from the end of an earlier attempt, and returns when it
    /// has ended. A failed or cancelled transfer has a report, too, with the missing ranges: `Ok`
    /// does not mean that it completed. [`Report::into_result`] turns such a report into an error.
    ///
    /// # Errors
    /// Errors that prevent the start: contradictory rows, or launched nodes without a program
    /// (`Code::Usage`); a key file that is missing (`Code::Data`) or open to others
    /// (`Code::Refused`); the master's port in use, or a launched node that did not start
    /// (`Code::Unreachable`).
    pub fn transfer(&self) -> Result<Report> {
        self.run(&mut |_| {})
    }

    /// Like [`Transfer::transfer`]; calls `show` a few times a second with the state of the
    /// transfer.
    pub(crate) fn run(&self, show: &mut dyn FnMut(&Coordinator)) -> Result<Report> {
        let began = Instant::now();
        self.spec.validate()?;
        let roster = Roster::new(&self.spec);
        self.check_supported(&roster)?;
        let access = SiteAccess::load(
            self.settings.key_file.as_deref(),
            self.settings.allow_file.as_deref(),
        )?;
        let visitors = self.listen(&access)?;
        let identity = self.identity()?;
        let local = self.open_local(&identity);
        let ReachedNodes { nodes, keys, launched } = self.reach(&roster, &access)?;
        for (entry, addresses) in roster.entries.iter().zip(&nodes).filter(|_| launched.is_some()) {
            let at = addresses.iter().flatten().map(ToString::to_string).collect::<Vec<_>>();
            tracing::debug!("{}: started, listens at {}", entry.address, at.join(", "));
        }
        let terms = AttemptConfig::new(&self.spec, &roster, identity, self.settings.options);
        let clock = Clock::start();
        let coordinator = Coordinator::new(clock.now(), roster, terms);
        let setup = MasterSetup { nodes, keys, visitors, local, shared: Arc::clone(&self.shared) };
        let stopped_before = clock::stopped();
        let coordinator = run::conduct(clock, coordinator, setup, show)?;
        let stopped = clock::stopped().saturating_sub(stopped_before);
        drop(launched);
        let mut report = summary::report(&coordinator, began.elapsed());
        report.warnings.extend(clock::stop_warning("the master", stopped));
        Ok(report)
    }

    /// Refuses features of a specification that this version does not implement.
    fn check_supported(&self, roster: &Roster) -> Result<()> {
        let options = &self.settings.options;
        if options.verify && options.check == CheckKind::None {
            let what = "--verify disk needs a check to compare the bytes on disk with";
            return Err(Error::new(Code::Usage, what).remedy("use --check crc64 or --check blake3"));
        }
        if let (DataPath::Splice, Some(level @ (WireLevel::Signed | WireLevel::Sealed))) =
            (options.path, options.wire)
        {
            let what = format!(
                "--path splice sends files as they lie in the page cache, which --wire {} cannot",
                level.name()
            );
            return Err(Error::new(Code::Usage, what).remedy("use --wire clear, or another --path"));
        }
        if let Some(entry) = roster.entries.get(NODES_MAX) {
            let what =
                format!("line {}: too many nodes with {}", entry.rows[0].line, entry.address);
            return Err(Error::new(Code::Usage, what)
                .remedy(format!("split the transfer: the limit is {NODES_MAX} nodes")));
        }
        let stall_seconds = options.stall_timeout.as_secs_f64();
        let allowed = options.limit.map(|limit| limit.bytes_per_second() * stall_seconds);
        let receivers = roster.entries.iter().filter(|entry| entry.receives()).count().max(1);
        let block_bytes = roster.grid.block_bytes() as f64;
        if allowed
            .is_some_and(|allowed| allowed < STALL_BLOCKS_MIN * block_bytes * receivers as f64)
        {
            let what = "the limit is so low that a block may take longer than the stall timeout";
            return Err(Error::new(Code::Usage, what).remedy(
                "take smaller blocks (`option block 64K` in the specification) or a longer \
                 --stall-timeout",
            ));
        }
        Ok(())
    }

    /// Returns the addresses and keys of all nodes, as launched or from the rows.
    fn reach(&self, roster: &Roster, access: &SiteAccess) -> Result<ReachedNodes> {
        let hosts: Vec<NodeAddress> =
            roster.entries.iter().map(|entry| entry.address.clone()).collect();
        if self.settings.launch != LaunchMethod::None {
            let key = Key::generate()?;
            let launch_config = LaunchConfig {
                program: self.settings.program.as_deref(),
                root: &self.settings.root,
                secret: &key.to_hex(),
                slots: self.settings.options.slots,
                starter: &self.settings.starter()?,
                deploys: self.settings.deploy,
            };
            // Descriptors of a node: two pipes and its socket.
            file_limit::make(hosts.len(), 3)?;
            let nodes = hosts.iter().map(|host| NodeToStart {
                address: host.clone(),
                place: self.settings.place(host),
            });
            let launched = launch::start(&nodes.collect::<Vec<NodeToStart>>(), &launch_config)?;
            let nodes = launched.addresses().map(Ok).collect();
            let keys = hosts.iter().map(|_| Some(DialKey::from(&key))).collect();
            return Ok(ReachedNodes { nodes, keys, launched: Some(launched) });
        }
        access.check_allow()?;
        let mut nodes = resolve(&hosts);
        let mut keys = Vec::with_capacity(hosts.len());
        for (host, addresses) in hosts.iter().zip(&mut nodes) {
            let own = self.own_nodes.iter().find(|(address, _)| address == host);
            let key = own.map_or_else(|| access.node_key(host), |(_, key)| Ok(key.into()));
            let key = key.map_err(|error| *addresses = Err(error));
            keys.push(key.ok());
        }
        Ok(ReachedNodes { nodes, keys, launched: None })
    }

    /// Opens the master's own port, if the specification has one.
    fn listen(&self, access: &SiteAccess) -> Result<Option<(TcpListener, SiteAccess)>> {
        let Some(master) = &self.spec.master else { return Ok(None) };
        let address = resolve_first(master)?;
        let has_key = self.settings.key_file.is_some();
        crate::io::node::options::NodeOptions::check_key(address, has_key)?;
        let listener = TcpListener::bind(address).map_err(|error| {
            Error::new(Code::Unreachable, format!("the master cannot listen on {master}: {error}"))
                .remedy("choose another port in the master row; 0 takes any free one")
        })?;
        if let Ok(address) = listener.local_addr() {
            // If one transfer runs several times, the first address stays; they only differ for
            // port 0.
            let _ = self.shared.address.set(address);
        }
        Ok(Some((listener, access.clone())))
    }

    /// Opens the socket by which this user's commands find the transfer. Where that cannot be, the
    /// transfer runs without it.
    fn open_local(&self, identity: &TransferIdentity) -> Option<LocalSocket> {
        if !self.settings.findable {
            return None;
        }
        LocalSocket::open(&identity.attempt)
            .inspect_err(|why| {
                tracing::info!("status and cancel find this transfer only by an address: {why}");
            })
            .ok()
    }

    fn identity(&self) -> Result<TransferIdentity> {
        let mut random = [0; 64];
        getrandom::fill(&mut random).map_err(|error| {
            Error::new(Code::Internal, format!("the system gives no randomness: {error}"))
        })?;
        let part = |at: usize| *random[at..].first_chunk().expect("64 bytes hold it");
        let flow_key = *random[32..].first_chunk().expect("64 bytes hold it");
        Ok(TransferIdentity {
            id: name_within(&self.spec.id),
            transfer: part(0),
            attempt: part(16),
            flow_key,
        })
    }
}

/// The nodes of a transfer, as its master dials them.
struct ReachedNodes {
    nodes: ResolvedAddresses,
    /// The key of each that has addresses.
    keys: Vec<Option<DialKey>>,
    launched: Option<LaunchedNodes>,
}

/// The addresses of each name, or the error of resolving it.
type ResolvedAddresses = Vec<Result<Vec<SocketAddr>>>;

/// Resolves names, several at a time. A name that takes too long is an error and delays few others.
pub(crate) fn resolve(hosts: &[NodeAddress]) -> ResolvedAddresses {
    let deadline = clock::awake() + RESOLVE_WITHIN;
    let mut resolved: ResolvedAddresses = Vec::with_capacity(hosts.len());
    let mut names: Vec<(usize, NodeAddress)> = Vec::new();
    for (index, host) in hosts.iter().enumerate() {
        if let Ok(ip) = host.host.parse() {
            resolved.push(Ok(vec![SocketAddr::new(ip, host.port)]));
            continue;
        }
        let what = format!("the name {} was not resolved in time", host.host);
        resolved.push(Err(Error::new(Code::Unreachable, what)
            .remedy("check the name and this machine's resolver")));
        names.push((index, host.clone()));
    }
    let (answers, inbox) = channel();
    let asked = names.len();
    let asked_for: Vec<usize> = names.iter().map(|(index, _)| *index).collect();
    let names = Arc::new(Mutex::new(names.into_iter()));
    for made in 0..asked.min(RESOLVERS_MAX) {
        let (answers, names) = (answers.clone(), Arc::clone(&names));
        let next = move || names.lock().unwrap_or_else(PoisonError::into_inner).next();
        // The system's resolver has no deadline; a thread that hangs in it is abandoned.
        let resolver = thread::Builder::new().name("resolver".into()).spawn(move || {
            while let Some((index, host)) = next() {
                if answers.send((index, look_up(&host))).is_err() {
                    return;
                }
            }
        });
        match resolver {
            Ok(_) => {}
            Err(error) if made == 0 => {
                let what = format!("no thread can be made to resolve names: {error}");
                let error = Error::new(Code::Internal, what)
                    .remedy("raise the limit of threads: ulimit -u");
                asked_for.iter().for_each(|&index| resolved[index] = Err(error.clone()));
                return resolved;
            }
            // The threads that were created resolve all names, one after the other.
            Err(_) => break,
        }
    }
    for _ in 0..asked {
        let Some((index, answer)) =
            clock::wait_until(deadline, |wait| inbox.recv_timeout(wait).ok())
        else {
            break;
        };
        resolved[index] = answer;
    }
    resolved
}

/// Resolves one name to all its addresses.
pub(crate) fn resolve_one(host: &NodeAddress) -> Result<Vec<SocketAddr>> {
    resolve(std::slice::from_ref(host)).pop().expect("one name gives one answer")
}

/// Resolves one name to an address to listen on.
pub(crate) fn resolve_first(host: &NodeAddress) -> Result<SocketAddr> {
    Ok(resolve_one(host)?[0])
}

fn look_up(host: &NodeAddress) -> Result<Vec<SocketAddr>> {
    let found = (host.host.as_str(), host.port).to_socket_addrs().map(Iterator::collect::<Vec<_>>);
    let why = match found {
        Ok(addresses) if addresses.is_empty() => "it has no address".to_string(),
        Ok(addresses) => return Ok(in_turn(addresses)),
        Err(error) => error.to_string(),
    };
    Err(Error::new(Code::Unreachable, format!("the name {} cannot be resolved: {why}", host.host))
        .remedy("check the name; --launch local needs none"))
}

/// Returns the name of a transfer for messages. A name that is too long is cut and ends with its
/// hash.
fn name_within(id: &str) -> String {
    if id.len() <= TEXT_BYTES_MAX {
        return id.to_owned();
    }
    format!(
        "{}… {}",
        &id[..id.floor_char_boundary(TEXT_BYTES_MAX / 2)],
        blake3::hash(id.as_bytes()).to_hex()
    )
}

/// Returns addresses in dialling order: both families in turn, IPv4 first, because daemons listen
/// on IPv4 by default. Within a family the resolver's order stays.
fn in_turn(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let mut each: Vec<SocketAddr> = Vec::with_capacity(addresses.len());
    for address in addresses {
        if !each.contains(&address) {
            each.push(address);
        }
    }
    let (v4, v6): (Vec<_>, Vec<_>) = each.into_iter().partition(SocketAddr::is_ipv4);
    let (mut v4, mut v6) = (v4.into_iter(), v6.into_iter());
    let pairs =
        std::iter::from_fn(|| Some([v4.next(), v6.next()]).filter(|pair| *pair != [None, None]));
    pairs.flatten().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_families_take_turns_and_none_comes_twice() {
        let parse = |all: &[&str]| {
            all.iter().map(|it| it.parse().expect("an address")).collect::<Vec<SocketAddr>>()
        };
        let found =
            parse(&["[::1]:7", "[::2]:7", "10.0.0.1:7", "10.0.0.1:7", "10.0.0.2:7", "10.0.0.3:7"]);
        let ordered = parse(&["10.0.0.1:7", "[::1]:7", "10.0.0.2:7", "[::2]:7", "10.0.0.3:7"]);
        assert_eq!(in_turn(found), ordered.clone());
        assert_eq!(in_turn(ordered.clone()), ordered);
    }
}
