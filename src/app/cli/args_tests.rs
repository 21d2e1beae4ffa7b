//! Valid command lines, their meaning, and refused ones.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use clap::error::ErrorKind;

use crate::app::cli::args::*;
use crate::core::launch::method::LaunchMethod;
use crate::core::options::{CheckKind, DataPath};
use crate::core::units::BitRate;

fn typed(line: &str) -> Result<CliCommand, clap::Error> {
    Args::try_parse_from(["cep-fast"].into_iter().chain(line.split_whitespace()))
        .map(|args| args.command)
}

#[test]
fn the_definition_holds_together() {
    Args::command().debug_assert();
}

#[test]
fn defaults_are_the_promised_ones() {
    let CliCommand::Run(RunArgs { spec, transfer }) = typed("run cluster.spec").unwrap() else {
        panic!("not run")
    };
    assert_eq!(spec, PathBuf::from("cluster.spec"));
    assert_eq!(
        (transfer.launch.launch, transfer.scheduler, transfer.check),
        (None, Scheduler::Auto, CheckKind::Crc64)
    );
    assert_eq!((transfer.path, transfer.progress), (DataPath::Auto, ProgressMode::Auto));
    assert_eq!((transfer.timeout, transfer.stall_timeout), (None, Duration::from_secs(30)));
    assert_eq!(
        (transfer.limit, transfer.slots, transfer.launch.root, transfer.keys.key_file),
        (None, None, None, None)
    );
    assert!(!(transfer.json || transfer.fsync || transfer.overwrite || transfer.no_resume));

    let CliCommand::Node(node) = typed("node --listen [::1]:0").unwrap() else {
        panic!("not node")
    };
    assert_eq!(node.listen, NodeAddress { host: "::1".into(), port: 0 });
    assert_eq!(
        (node.roots.len(), node.pin, node.threads_per_nic),
        (0, PinArg::Auto, ThreadsPerNic::Auto)
    );
    assert!(!node.launched && !node.insecure_no_key && node.nics.is_empty());
}

#[test]
fn every_option_of_a_transfer() {
    let line = "copy --launch local --root /d --key-file k --scheduler lp --check blake3 --json \
                --progress never --limit 2.5G --path splice --slots 4 --fsync --overwrite \
                --no-resume --timeout 2h --stall-timeout 5 dtn[01-02]:/x b:/x /y";
    let CliCommand::Copy(copy) = typed(line).unwrap() else { panic!("not copy") };
    assert_eq!(copy.sources()[0].hosts, ["dtn01", "dtn02"]);
    assert_eq!((copy.sources().len(), copy.destination().path.to_str()), (2, Some("/y")));
    let transfer = &copy.transfer;
    assert_eq!(transfer.launch.launch, Some(LaunchMethod::Local));
    assert_eq!(
        (transfer.launch.starter.deploy, transfer.scheduler),
        (DeployMode::Auto, Scheduler::Lp)
    );
    assert_eq!(
        (transfer.check, transfer.path, transfer.progress),
        (CheckKind::Blake3, DataPath::Splice, ProgressMode::Never)
    );
    assert_eq!((transfer.limit, transfer.slots), (Some(BitRate(2_500_000_000)), Some(4)));
    assert_eq!(transfer.timeout, Some(Duration::from_secs(7200)));
    assert_eq!(transfer.stall_timeout, Duration::from_secs(5));
    assert!(transfer.json && transfer.fsync && transfer.overwrite && transfer.no_resume);
}

#[test]
fn the_other_commands() {
    let line = "node --listen 10.0.0.1:7000 --root /d --key-file k --nic eth0 --nic eth1 --slots 8 \
                --pin 0-1 --threads-per-nic 2 --launched";
    let CliCommand::Node(node) = typed(line).unwrap() else { panic!("not node") };
    assert_eq!((node.nics.len(), node.slots, node.pin), (2, Some(8), PinArg::List(vec![0, 1])));
    assert!(node.launched);

    let CliCommand::Status(status) = typed("status m:1 --json --key-file k").unwrap() else {
        panic!("not status")
    };
    assert!(status.json && status.master.keys.key_file.is_some());
    assert!(matches!(typed("cancel m:1").unwrap(), CliCommand::Cancel(_)));
    let CliCommand::Cancel(cancel) = typed("cancel --transfer 7").unwrap() else {
        panic!("not cancel")
    };
    assert!(cancel.master.address.is_none() && cancel.transfer.as_deref() == Some("7"));
    let CliCommand::Doctor(doctor) = typed("doctor --json").unwrap() else { panic!("not doctor") };
    assert!(doctor.json);
    assert!(matches!(typed("keygen k").unwrap(), CliCommand::Keygen(_)));
    assert!(matches!(typed("plan s --scheduler uniform").unwrap(), CliCommand::Plan(_)));
}

#[test]
fn mistakes_are_usage_errors() {
    let lines = [
        "",
        "fly",
        "copy",
        "copy /only",
        "copy a[2-1]:/x /y",
        "run",
        "run s --launch teleport",
        "run s --limit 0",
        "run s --limit fast",
        "run s --slots 1",
        "run s --slots 4097",
        "run s --timeout 0",
        "run s --stall-timeout soon",
        "run s --pin auto",
        "node",
        "node --listen nowhere",
        "node --listen a:1 --pin x",
        "node --listen a:1 --threads-per-nic 0",
        "node --listen a:1 --root / --key-file k --insecure-no-key",
        "status m",
        "cancel m",
        "cancel --all --transfer x",
        "cancel m:1 --all",
        "keygen",
        "bench --from a --to b:1",
        "bench --launch local --seconds 0",
    ];
    for line in lines {
        assert_eq!(typed(line).unwrap_err().exit_code(), 2, "{line}");
    }
}

#[test]
fn refused_values_come_with_what_was_expected() {
    let cases = [
        ("run s --limit 3X", "expected bits per second"),
        ("run s --timeout 3w", "expected a time such as 30s"),
        ("run s --slots x", "expected a number from 2 to 4096"),
        ("copy a[2-1]:/x /y", "expected a range that does not count down"),
        ("node --listen x", "expected host:port"),
        ("node --listen a:1 --pin x", "expected auto, none, or CPUs"),
        ("run s --launch teleport", "expected none, local, auto, ssh, slurm, or 'COMMAND"),
    ];
    for (line, expected) in cases {
        let message = typed(line).unwrap_err().to_string();
        assert!(message.contains(expected), "{line}: {message}");
    }
}

#[test]
fn help_is_no_error_and_hides_what_masters_use() {
    let help = typed("node --help").unwrap_err();
    assert_eq!((help.kind(), help.exit_code()), (ErrorKind::DisplayHelp, 0));
    assert!(!help.to_string().contains("--launched"));
}
