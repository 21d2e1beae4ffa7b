//! `tools/netlab`: the rates that it was told hold, a fault is felt, and a healed NIC is as it was.
//! Skipped, with a word on it, where namespaces are not permitted.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
#![allow(clippy::print_stderr, reason = "a skipped test says so")]

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use netlab::{LabScript, NetworkLab, address};

/// Creates a lab of these options; `None` where that is not permitted.
fn up(options: &[&str]) -> Option<NetworkLab> {
    let script = LabScript::of_repository();
    if let Some(obstacle) = script.obstacle().unwrap() {
        eprintln!("skipped: {obstacle}");
        return None;
    }
    Some(script.up("n", options).unwrap())
}

/// Returns a connection over NIC 1, from node 1 to node 2; `None` where node 2 is silent.
fn connection(lab: &NetworkLab) -> Option<(TcpStream, TcpStream)> {
    let bind = || TcpListener::bind((address(2, 1), 0)).unwrap();
    let listener = lab.inside(2, bind).unwrap();
    let address = listener.local_addr().unwrap();
    let connect = || TcpStream::connect_timeout(&address, Duration::from_secs(1));
    let stream = lab.inside(1, connect).unwrap().ok()?;
    Some((stream, listener.accept().unwrap().0))
}

#[test]
fn rates_are_of_nics_or_of_nodes() {
    let Some(lab) = up(&["--nodes", "2", "--rates", "1gbit,250mbit,100mbit"]) else {
        return;
    };
    assert_eq!(lab.rates(1).unwrap(), ["1Gbit", "250Mbit", "100Mbit"]);
    assert_eq!(lab.rates(2).unwrap(), lab.rates(1).unwrap());
    assert!(lab.rates(0).unwrap().is_empty(), "the master's NICs are not shaped");
    lab.lay_out(&["--node-rates", "1gbit,100mbit", "--nics", "2"]).unwrap();
    assert_eq!(
        (lab.rates(1).unwrap(), lab.rates(2).unwrap()),
        (vec!["1Gbit".to_owned(); 2], vec!["100Mbit".to_owned(); 2])
    );
    for wrong in [
        ["--rates", "1gbit", "--nics", "2"],
        ["--rate", "1gbit", "--rates", "1gbit"],
        ["--rate", "5", "--nics", "1"],
    ] {
        assert!(lab.lay_out(&[&["--nodes", "1"], &wrong[..]].concat()).is_err(), "{wrong:?}");
    }
}

#[test]
fn a_fault_is_felt_and_healed() {
    let Some(lab) = up(&["--nodes", "2", "--rate", "1gbit", "--nics", "2"]) else {
        return;
    };
    for fault in ["down", "drop"] {
        assert!(connection(&lab).is_some());
        lab.fault(2, 1, &[fault]).unwrap();
        assert!(connection(&lab).is_none(), "{fault}");
        lab.fault(2, 1, &["heal"]).unwrap();
    }
    let (mut from, mut to) = connection(&lab).unwrap();
    lab.fault(2, 1, &["reset"]).unwrap();
    // Written bytes are answered with a reset, which both ends see.
    from.write_all(b"any").unwrap();
    assert_eq!(from.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    to.write_all(b"any").unwrap();
    assert_eq!(to.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(connection(&lab).is_none());
    lab.fault(2, 1, &["heal"]).unwrap();
    assert!(connection(&lab).is_some());
    lab.fault(2, 1, &["rate", "100mbit"]).unwrap();
    assert_eq!(lab.rates(2).unwrap(), ["1Gbit", "100Mbit"]);
    lab.fault(2, 1, &["heal"]).unwrap();
    assert_eq!(lab.rates(2).unwrap(), ["1Gbit", "1Gbit"]);
    for wrong in [&["burn"][..], &["rate"], &["rate", "fast"]] {
        assert!(lab.fault(2, 1, wrong).is_err(), "{wrong:?}");
    }
}
