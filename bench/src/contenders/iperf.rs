//! iperf3: the usual measure of TCP between two processes.

use anyhow::{Context, Result};
use serde_json::Value;

use super::contender::{Contender, RunTiming, missing_program, program};
use crate::lab::WorkDir;
use crate::process;
use crate::scenario::{BenchScenario, WorkItem};

pub(super) struct IperfContender {
    pub(super) streams: StreamCount,
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
            StreamCount::One => "iperf3",
            StreamCount::Two => "iperf3-p2",
            StreamCount::Four => "iperf3-p4",
        }
    }

    fn plays(&self, scenario: BenchScenario) -> bool {
        scenario == BenchScenario::MemoryToMemory
    }

    fn missing(&self) -> Option<String> {
        missing_program(&["iperf3"])
    }

    fn run(&self, lab: &WorkDir, work: &WorkItem) -> Result<RunTiming> {
        let port = process::free_port()?;
        let mut server = process::command(program("iperf3"));
        server.args(["-s", "-1", "-B", "127.0.0.1", "-p", &port.to_string()]);
        let server = lab.start("iperf3-server", server)?;
        server.until_listening(port)?;
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
