//! `run`: runs a specification with this process as the master.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use super::output::{print, print_apart, print_json, transfer_failed, warn};
use super::spec_file::read_spec;
use crate::app::cli::args::{DeployMode, ProgressMode, RunArgs, TransferArgs, VerifyArg};
use crate::app::cli::events::{EventStream, is_stdout};
use crate::app::cli::signals::cancel_on_signals;
use crate::app::cli::{NodeProgress, ProgressDisplay, ProgressSnapshot, fail};
use crate::app::transfer::{Settings, Transfer};
use crate::core::error::{Error, Result};
use crate::core::master::coordinator::Coordinator;
use crate::core::master::peer::PeerRecord;
use crate::core::options::{CheckKind, Scheduler, TransferOptions, WireLevel};
use crate::core::report::Report;
use crate::core::units::BitRate;
use crate::io::session::is_loopback;

pub(super) fn run(args: &RunArgs) -> ExitCode {
    let spec = match read_spec(&args.spec) {
        Ok(spec) => spec,
        Err(error) => return failed("", &args.transfer, &error),
    };
    if let Err(error) = spec.validate() {
        return failed(&spec.id, &args.transfer, &error.at(args.spec.display()));
    }
    carry_out(&Transfer::from_spec(spec, settings(&args.transfer)), &args.transfer, Vec::new())
}

/// Runs a transfer with progress, and prints the result. `noticed` are warnings from before it
/// began.
pub(super) fn carry_out(
    transfer: &Transfer,
    args: &TransferArgs,
    noticed: Vec<String>,
) -> ExitCode {
    match EventStream::open(args.events.as_deref()) {
        Ok(events) => carry_out_with(transfer, args, noticed, events),
        Err(error) => not_begun(&transfer.spec().id, args, &error, None),
    }
}

/// Like [`carry_out`], with events that are written already.
pub(super) fn carry_out_with(
    transfer: &Transfer,
    args: &TransferArgs,
    noticed: Vec<String>,
    mut events: Option<EventStream>,
) -> ExitCode {
    let handle = transfer.handle();
    let ended = cancel_on_signals(move || handle.cancel())
        .and_then(|()| watch(transfer, args.progress, events.as_mut()));
    let mut report = match ended {
        Ok(report) => report,
        Err(error) => return not_begun(&transfer.spec().id, args, &error, events),
    };
    report.warnings.splice(0..0, noticed);
    end_events(events, &report);
    let written = if args.json {
        report.warnings.iter().for_each(|warning| warn(warning));
        print_json(&report.json())
    } else if report.tells() && args.events.as_deref().is_some_and(is_stdout) {
        print_apart(&report.tables());
        Ok(())
    } else if report.tells() {
        print(&report.tables())
    } else {
        report.warnings.iter().for_each(|warning| warn(warning));
        Ok(())
    };
    // The first error decides the exit status.
    let ended = report.into_result().map(drop);
    ended.and(written).map_or_else(|error| fail(&error), |()| ExitCode::SUCCESS)
}

/// Prints the error of a transfer that did not begin, and returns its exit status.
pub(super) fn failed(id: &str, args: &TransferArgs, error: &Error) -> ExitCode {
    // The first error is the one to tell.
    let events = EventStream::open(args.events.as_deref()).unwrap_or_default();
    not_begun(id, args, error, events)
}

/// Like [`failed`], with the events to which the end belongs.
pub(super) fn not_begun(
    id: &str,
    args: &TransferArgs,
    error: &Error,
    events: Option<EventStream>,
) -> ExitCode {
    let report = Report::failed(id, args.scheduler.name(), args.check.name(), error);
    end_events(events, &report);
    transfer_failed(args.json, &report, error)
}

fn end_events(events: Option<EventStream>, report: &Report) {
    if let Some(mut events) = events {
        events.end(report);
        events.finish();
    }
}

/// Like [`failed`], for a wrong command line that requests JSON.
pub(super) fn mistyped(error: &Error) -> ExitCode {
    let (scheduler, check) = (Scheduler::default().name(), CheckKind::default().name());
    transfer_failed(true, &Report::failed("", scheduler, check, error), error)
}

/// Runs a transfer with progress and events, but for that of its end.
pub(super) fn watch(
    transfer: &Transfer,
    mode: ProgressMode,
    mut events: Option<&mut EventStream>,
) -> Result<Report> {
    if let Some(events) = &mut events
        && transfer.spec().validate().is_ok()
    {
        events.start(transfer.spec());
    }
    let mut progress = ProgressDisplay::new(mode);
    let mut rates = NodeRates::default();
    let handle = transfer.handle();
    let mut announce = transfer.spec().master.as_ref().is_some_and(|master| master.port == 0);
    let report = transfer.run(&mut |coordinator| {
        if let Some(address) = handle.master_address().filter(|_| std::mem::take(&mut announce)) {
            crate::io::log::print_error_line(&format!(
                "status and cancel reach this transfer at {address}"
            ));
        }
        if let Some(events) = &mut events {
            events.look(coordinator);
        }
        if mode != ProgressMode::Never {
            let now = Instant::now();
            progress.show(now, &rates.snapshot(now, coordinator));
        }
    });
    progress.finish();
    report
}

pub(super) fn settings(args: &TransferArgs) -> Settings {
    Settings {
        launch: args.launch.launch.clone().unwrap_or_default(),
        ssh: args.launch.starter.ssh.clone(),
        deploy: args.launch.starter.deploy == DeployMode::Auto,
        program: own_program(),
        ports: args.launch.starter.ports,
        root: args.launch.root.clone().unwrap_or_else(|| "/".into()),
        key_file: args.keys.key_file.clone(),
        allow_file: args.keys.allow_file.clone(),
        findable: true,
        options: TransferOptions {
            check: args.check,
            fsync: args.fsync,
            verify: args.verify.contains(&VerifyArg::Disk),
            verify_replicas: args.verify.contains(&VerifyArg::Replicas),
            overwrite: args.overwrite,
            resume: !args.no_resume,
            slots: args.slots,
            rails_max: None,
            threads_max: None,
            path: args.path,
            wire: args.wire,
            cipher: args.cipher,
            limit: args.limit,
            stall_timeout: args.stall_timeout,
            timeout: args.timeout,
            scheduler: args.scheduler,
        },
    }
}

/// Returns the path of this program, which nodes on this machine run. If it is unknown, starting a
/// node reports that.
pub(super) fn own_program() -> Option<PathBuf> {
    std::env::current_exe().ok()
}

/// Bytes of each node at the last update, and its rate since then.
#[derive(Default)]
struct NodeRates {
    nodes: BTreeMap<String, (Instant, u64, f64)>,
    wire: Option<WireLevel>,
}

impl NodeRates {
    fn snapshot(&mut self, now: Instant, coordinator: &Coordinator) -> ProgressSnapshot {
        let peers = coordinator.roster().entries.iter().zip(coordinator.peers());
        let per_node = peers.filter(|(entry, _)| entry.receives()).map(|(entry, peer)| {
            let name = entry.address.to_string();
            let (since, before, rate) =
                self.nodes.entry(name.clone()).or_insert((now, peer.landed_bytes, 0.0));
            if peer.landed_bytes > *before {
                *rate = (peer.landed_bytes - *before) as f64 * 8.0
                    / (now - *since).as_secs_f64().max(1e-3);
                (*since, *before) = (now, peer.landed_bytes);
            }
            NodeProgress { name, bytes: peer.landed_bytes, rate: BitRate(*rate as u64) }
        });
        let per_node = per_node.collect();
        let (bytes_done, bytes_total) = (coordinator.landed_bytes(), coordinator.wanted_bytes());
        self.wire = self.wire.or_else(|| usual_wire(coordinator));
        let (comparison, wire) = (coordinator.comparison(), self.wire);
        ProgressSnapshot { bytes_done, bytes_total, per_node, comparison, wire }
    }
}

/// Returns the protection that a transfer asks for, or that flows between its nodes' addresses have
/// by themselves; `None` until all nodes have told theirs.
fn usual_wire(coordinator: &Coordinator) -> Option<WireLevel> {
    let asked = coordinator.terms().options().wire;
    asked.or_else(|| {
        let adverts: Option<Vec<_>> = coordinator.peers().iter().map(PeerRecord::advert).collect();
        let adverts = adverts?;
        let mut rails = adverts.iter().flat_map(|advert| &advert.rails);
        Some(WireLevel::usual(rails.all(|rail| is_loopback(rail.address.ip()))))
    })
}
