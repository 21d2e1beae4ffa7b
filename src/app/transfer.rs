//! The library's transfer: rows in, report out.
//!
//! The three calls of the CEP paper (Table 1) in this library's idiom: [`Transfer::schedule`] adds
//! a row, [`Transfer::transfer`] starts or resumes the transfer, and [`TransferHandle::data_sent`]
//! returns the bytes that have arrived. A [`TransferHandle`] also cancels, from any thread, at any
//! time.

mod reach;
mod resolve;
mod settings;

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::core::error::{Code, Error, Result};
use crate::core::launch::method::LaunchMethod;
use crate::core::master::attempt::{AttemptConfig, TransferIdentity};
use crate::core::master::coordinator::Coordinator;
use crate::core::master::roster::Roster;
use crate::core::master::summary;
use crate::core::report::Report;
use crate::core::spec::{NodeAddress, Row, Spec};
use crate::core::wire::limits::{NODES_MAX, TEXT_BYTES_MAX};
use crate::io::clock;
use crate::io::clock::Clock;
use crate::io::launch::NodeToStart;
use crate::io::master::local_socket::LocalSocket;
use crate::io::master::run;
use crate::io::master::run::{MasterSetup, MasterShared};
use crate::io::session::{Key, SiteAccess};

pub(crate) use reach::ReachedNodes;
pub(crate) use resolve::{resolve_first, resolve_one};
pub use settings::Settings;

/// Blocks that a limit must allow each receiver within the stall timeout, so that it does not count
/// as stalled.
const STALL_BLOCKS_MIN: f64 = 4.0;

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
    /// All nodes, where they were reached before their rows were known; until the transfer runs.
    reached: Mutex<Option<Arc<ReachedNodes>>>,
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
        let (shared, reached) = (Arc::default(), Mutex::default());
        Transfer { spec, settings, shared, own_nodes: Vec::new(), reached }
    }

    /// Creates the transfer of a specification over nodes that were reached before. They end with
    /// the last who holds them.
    pub(crate) fn over(
        reached: impl Into<Arc<ReachedNodes>>,
        spec: Spec,
        settings: Settings,
    ) -> Transfer {
        let transfer = Transfer::from_spec(spec, settings);
        Transfer { reached: Mutex::new(Some(reached.into())), ..transfer }
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
        let mut roster = Roster::new(&self.spec);
        self.check_supported(&roster)?;
        let access = SiteAccess::load(
            self.settings.key_file.as_deref(),
            self.settings.allow_file.as_deref(),
        )?;
        let visitors = self.listen(&access)?;
        let identity = self.identity()?;
        let local = self.open_local(&identity);
        let reached = self.reach(&roster, &access)?;
        // Of a copy, before it was known what is to be moved.
        let began = reached.began().map_or(began, |reached| reached.min(began));
        let (nodes, keys) = reached.of(roster.entries.iter().map(|entry| &entry.address));
        roster.channels = reached.channels(roster.entries.iter().map(|entry| &entry.address));
        let terms = AttemptConfig::new(&self.spec, &roster, identity, self.settings.options);
        let clock = Clock::start();
        let coordinator = Coordinator::new(clock.now(), roster, terms);
        let setup = MasterSetup { nodes, keys, visitors, local, shared: Arc::clone(&self.shared) };
        let stopped_before = clock::stopped();
        let coordinator = run::conduct(clock, coordinator, setup, show)?;
        let stopped = clock::stopped().saturating_sub(stopped_before);
        let through_launcher = reached.warnings();
        drop(reached);
        let mut report = summary::report(&coordinator, began.elapsed());
        report.warnings.extend(through_launcher);
        report.warnings.extend(clock::stop_warning("the master", stopped));
        Ok(report)
    }

    /// Refuses a transfer that is too large, and options that do not fit it.
    fn check_supported(&self, roster: &Roster) -> Result<()> {
        self.settings.check()?;
        let options = &self.settings.options;
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

    /// Returns the nodes of a roster: those that were reached before, or as settings say.
    fn reach(&self, roster: &Roster, access: &SiteAccess) -> Result<Arc<ReachedNodes>> {
        let before = self.reached.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(reached) = before {
            return Ok(reached);
        }
        let hosts: Vec<NodeAddress> =
            roster.entries.iter().map(|entry| entry.address.clone()).collect();
        if self.settings.launch != LaunchMethod::None {
            let job = self.settings.job()?;
            let start = |host: &NodeAddress| NodeToStart {
                address: host.clone(),
                place: self.settings.place(host, None, job.as_ref()),
            };
            let nodes: Vec<NodeToStart> = hosts.iter().map(start).collect();
            let is_cancelled = || self.shared.was_cancelled.load(Ordering::Acquire);
            return ReachedNodes::launch(&nodes, &self.settings, &is_cancelled).map(Arc::new);
        }
        if let Some(ports) = self.settings.ports {
            let what = format!("--ports {ports} is for nodes that are started, and these run");
            return Err(Error::new(Code::Usage, what)
                .remedy("start the daemons with it, or add --launch ssh"));
        }
        access.check_allow()?;
        let own = |host: &NodeAddress| {
            let own = self.own_nodes.iter().find(|(address, _)| address == host);
            own.map(|(_, key)| key.into())
        };
        let resolved = ReachedNodes::resolved(&hosts, |host| {
            own(host).map_or_else(|| access.node_key(host), Ok)
        });
        Ok(Arc::new(resolved))
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
