//! iperf3: the usual measure of TCP between two processes.

use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;

use super::contender::{Contender, RunTiming, missing_program, program};
use crate::lab::WorkDir;
use crate::process::{self, RunningProcess};
use crate::scenario::{BenchScenario, WorkItem};

pub(super) struct IperfContender {
    pub(super) streams: StreamCount,
    /// True for a connection through TLS: stunnel at both ends, with its default cipher.
    pub(super) tunnelled: bool,
}

/// Number of connections: a sender that is limited by one core gains from more.
#[derive(Clone, Copy)]
pub(super) enum StreamCount {
    One,
    Two,
    Four,
}

impl Contender for IperfContender {
    fn name(&self) -> &'static str {
        match self.streams {
            _ if self.tunnelled => "iperf3-tls",
            StreamCount::One => "iperf3",
            StreamCount::Two => "iperf3-p2",
            StreamCount::Four => "iperf3-p4",
        }
    }

    fn plays(&self, scenario: BenchScenario) -> bool {
        scenario == BenchScenario::MemoryToMemory
    }

    fn missing(&self) -> Option<String> {
        let tunnel: &[&str] = if self.tunnelled { &["stunnel", "openssl"] } else { &[] };
        missing_program(&[&["iperf3"], tunnel].concat())
    }

    fn run(&self, lab: &WorkDir, work: &WorkItem) -> Result<RunTiming> {
        let port = process::free_port()?;
        let mut server = process::command(program("iperf3"));
        server.args(["-s", "-1", "-B", "127.0.0.1", "-p", &port.to_string()]);
        let server = lab.start("iperf3-server", server)?;
        server.until_listening(port)?;
        let tunnel = self.tunnelled.then(|| TlsTunnel::start(lab, port)).transpose()?;
        let port = tunnel.as_ref().map_or(port, |tunnel| tunnel.port);
        let mut client = process::command(program("iperf3"));
        client.args([
            "-c",
            "127.0.0.1",
            "-p",
            &port.to_string(),
            "-l",
            "1M",
            "-J",
            "-n",
            &work.bytes.to_string(),
        ]);
        let streams = match self.streams {
            StreamCount::One => "1",
            StreamCount::Two => "2",
            StreamCount::Four => "4",
        };
        client.args(["-P", streams]);
        let client = lab.start("iperf3-client", client)?.finish()?;
        server.finish()?;
        let report: Value =
            serde_json::from_str(&client.output).context("iperf3 printed no JSON")?;
        let rate = report["end"]["sum_received"]["bits_per_second"]
            .as_f64()
            .context("iperf3 reports no rate")?;
        Ok(RunTiming {
            data_seconds: Some(work.bytes as f64 * 8.0 / rate),
            wall_seconds: client.seconds,
        })
    }
}

/// Two stunnels: connections to `port` reach the server encrypted.
struct TlsTunnel {
    port: u16,
    _ends: [RunningProcess; 2],
}

impl TlsTunnel {
    fn start(lab: &WorkDir, server: u16) -> Result<TlsTunnel> {
        let certificate = lab.path("tunnel.pem");
        if !certificate.exists() {
            let mut openssl = process::command(program("openssl"));
            openssl.args(["req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=bench"]);
            openssl.arg("-keyout").arg(&certificate).arg("-out").arg(&certificate);
            lab.start("openssl", openssl)?.finish()?;
        }
        let (near, far) = (process::free_port()?, process::free_port()?);
        let certificate = certificate.display();
        let far_end = format!("accept = 127.0.0.1:{far}\nconnect = 127.0.0.1:{server}\n");
        let near_end = format!("accept = 127.0.0.1:{near}\nconnect = 127.0.0.1:{far}\n");
        let start = |name: &str, client: &str, ends: &str, port| -> Result<RunningProcess> {
            let file = lab.path(name);
            let text = format!(
                "foreground = yes\npid =\n[bench]\nclient = {client}\ncert = {certificate}\n{ends}"
            );
            fs::write(&file, text)?;
            let mut stunnel = process::command(program("stunnel"));
            stunnel.arg(&file);
            let end = lab.start(name, stunnel)?;
            end.until_listening(port)?;
            Ok(end)
        };
        let far_end = start("tunnel-far", "no", &far_end, far)?;
        let near_end = start("tunnel-near", "yes", &near_end, near)?;
        Ok(TlsTunnel { port: near, _ends: [far_end, near_end] })
    }
}
