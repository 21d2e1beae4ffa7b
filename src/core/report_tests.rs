//! The JSON object to the letter.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use crate::core::report::*;

fn node(
    name: &str,
    role: NodeRole,
    bytes_sent: u64,
    bytes_received: u64,
    line: Option<f64>,
) -> NodeReport {
    let rail = RailReport {
        nic: "eth0".into(),
        threads: 2,
        bytes_sent,
        bytes_received,
        line_gbit_per_s: line,
        efficiency: line.map(|_| 0.8),
        path: Some(if bytes_sent > 0 { "splice" } else { "recv+direct" }.into()),
        driver: Some("io_uring".into()),
        wire: Some("sealed".into()),
        cipher: Some("aes-256-gcm".into()),
        mtu: Some(1500),
        address: None,
        counted: None,
        faults: 0,
    };
    let (cpu_seconds, memory_bytes_max) = (0.25, 48 << 20);
    let name = name.into();
    NodeReport {
        name,
        role,
        bytes_sent,
        bytes_received,
        cpu_seconds,
        memory_bytes_max,
        seconds: 0.5,
        load: None,
        rails: vec![rail],
    }
}

pub(crate) fn report() -> Report {
    Report {
        transfer: "My Data File".into(),
        state: TransferState::Complete,
        bytes: 1_000_000_000,
        resumed_bytes: 0,
        seconds: 1.0,
        wall_seconds: 1.5,
        phases: Some(PhaseReport {
            connect_seconds: 0.03,
            prepare_seconds: 0.01,
            preallocate_seconds: 0.25,
            move_seconds: 1.0,
            commit_seconds: 0.2,
            finish_seconds: 0.01,
        }),
        gbit_per_s: gbit_per_s(1_000_000_000, 1.0),
        bound_seconds: Some(0.8),
        bottleneck: Some("node6:55558".into()),
        scheduler: "greedy".into(),
        block_bytes: Some(1 << 20),
        check: "crc64".into(),
        digest: Some("0123456789abcdef".into()),
        wire: Some("sealed".into()),
        wasted_bytes: 0,
        stolen_bytes: 1 << 20,
        retries: 2,
        replicas: Some(ReplicaReport {
            compared_bytes: 1 << 20,
            of_bytes: 1_000_000_000,
            mode: ReplicaComparison::Sample,
        }),
        nodes: vec![
            node("node1:55553", NodeRole::Sender, 1_000_000_000, 0, Some(10.0)),
            node("node6:55558", NodeRole::Receiver, 0, 1_000_000_000, None),
        ],
        warnings: vec!["node1:55553: eth0 is short of bytes".into()],
        error: None,
    }
}

pub(crate) fn failed() -> Report {
    let missing = (0..20).map(|i| Span::of(i * 10, 5)).collect();
    let error = Error::new(Code::Unreachable, "node1:55553 was lost")
        .remedy("run again to resume")
        .missing(missing);
    let error = Some(ReportError::from(&error));
    Report {
        state: TransferState::Failed,
        digest: None,
        bound_seconds: None,
        bottleneck: None,
        nodes: vec![],
        error,
        ..report()
    }
}

#[test]
fn json_has_exactly_the_promised_fields_in_one_line() {
    let json = report().json();
    assert!(!json.contains('\n'));
    let expected = concat!(
        r#"{"transfer":"My Data File","state":"complete","bytes":1000000000,"#,
        r#""resumed_bytes":0,"seconds":1.0,"#,
        r#""wall_seconds":1.5,"phases":{"connect_seconds":0.03,"prepare_seconds":0.01,"#,
        r#""preallocate_seconds":0.25,"move_seconds":1.0,"commit_seconds":0.2,"#,
        r#""finish_seconds":0.01},"gbit_per_s":8.0,"bound_seconds":0.8,"#,
        r#""bottleneck":"node6:55558","scheduler":"greedy","block_bytes":1048576,"#,
        r#""check":"crc64","digest":"0123456789abcdef","wire":"sealed","#,
        r#""wasted_bytes":0,"#,
        r#""stolen_bytes":1048576,"retries":2,"#,
        r#""replicas":{"compared_bytes":1048576,"of_bytes":1000000000,"mode":"sample"},"#,
        r#""nodes":[{"name":"node1:55553","role":"sender","#,
        r#""bytes_sent":1000000000,"bytes_received":0,"#,
        r#""cpu_seconds":0.25,"memory_bytes_max":50331648,"#,
        r#""rails":[{"nic":"eth0","threads":2,"bytes_sent":1000000000,"#,
        r#""bytes_received":0,"line_gbit_per_s":10.0,"efficiency":0.8,"#,
        r#""path":"splice","driver":"io_uring","wire":"sealed","cipher":"aes-256-gcm"}]},"#,
    );
    assert!(json.starts_with(expected), "{json}");
    assert!(json.contains(r#""line_gbit_per_s":null,"efficiency":null"#));
    assert!(
        json.ends_with(r#"],"warnings":["node1:55553: eth0 is short of bytes"],"error":null}"#),
        "{json}"
    );
}

#[test]
fn a_failure_in_json_has_code_message_and_ranges() {
    let value: serde_json::Value = serde_json::from_str(&failed().json()).unwrap();
    assert_eq!(value["state"], "failed");
    assert_eq!(value["error"]["code"], 3);
    assert_eq!(value["error"]["message"], "node1:55553 was lost (run again to resume)");
    assert_eq!(value["error"]["missing_ranges"][1], "10-14");
    assert!(value["digest"].is_null() && value["bound_seconds"].is_null());
}
