//! Time from Enter to the end of a small copy, beside what ssh itself takes.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::login::{LoopbackHosts, SshFixture};
use crate::bar::Threshold;
use crate::cases::book::BenchResults;
use crate::lab::WorkDir;
use crate::process;
use crate::report::median;

/// Bytes of the file: its moving takes no time to speak of.
const BYTES: usize = 64 << 10;
/// Sessions that xargs opens at once.
const SESSIONS: &str = "8";

/// One small file to one host.
pub(super) fn one_host(bench: SshFixture<'_>, book: &mut BenchResults) -> Result<()> {
    let SshFixture { options, lab, .. } = bench;
    let hosts = [("begin".to_owned(), "127.0.0.1".to_owned())];
    fs::write(lab.path("small"), vec![7; BYTES])?;
    for sends_program in [false, true] {
        let there = bench.loopback(&hosts, !sends_program)?;
        if let (true, Some(program)) = (sends_program, &options.sent_program) {
            let name = format!("cep-fast-static-{}", std::env::consts::ARCH);
            fs::copy(program, there.remote.program.with_file_name(name))?;
        }
        let (mut login, mut ours, mut sent) = (Vec::new(), Vec::new(), Vec::new());
        for round in 1..=options.rounds {
            book.now(&format!("round {round}, sends the program: {sends_program}"));
            let mut nothing = process::command(there.ssh.client());
            nothing.args(["begin", "true"]);
            login.push(lab.start("ssh", nothing)?.finish()?.seconds);
            if sends_program {
                sent.push(time_to_send(bench, &there)?);
                empty(&there.remote.home)?;
            }
            ours.push(copy(lab, &there, "begin", 1)?);
        }
        let figure = |figures| median(figures).unwrap_or_default();
        let (login, ours, sent) = (figure(login), figure(ours), figure(sent));
        let (what, most) = match sends_program {
            false => ("found there", 0.3),
            true => ("sent first", 1.0),
        };
        book.figure(format!("ssh HOST true, {what}"), login, "s", "");
        book.figure(format!("copy of 64 KiB, {what}"), ours, "s", "the whole command");
        if sends_program {
            book.figure("the program through ssh alone", sent, "s", "cat into a file");
        }
        let beyond = ours - login.max(sent);
        book.ratio(format!("beyond, in seconds, {what}"), beyond, Threshold::AtMost(most), "");
    }
    Ok(())
}

/// One small file to many hosts at once.
pub(super) fn many_hosts(bench: SshFixture<'_>, book: &mut BenchResults) -> Result<()> {
    let SshFixture { options, lab, .. } = bench;
    let count = options.hosts;
    let name = |at: u32| format!("h{at:03}");
    let hosts: Vec<(String, String)> =
        (1..=count).map(|at| (name(at), format!("127.1.0.{at}"))).collect();
    let there = bench.loopback(&hosts, true)?;
    fs::write(lab.path("small"), vec![7; BYTES])?;
    let list: String = hosts.iter().map(|(name, _)| format!("{name}\n")).collect();
    fs::write(lab.path("hosts"), list)?;
    let (mut logins, mut ours) = (Vec::new(), Vec::new());
    for round in 1..=options.rounds {
        book.now(&format!("{count} hosts, round {round}"));
        let mut xargs = process::command("xargs");
        xargs.args(["-P", SESSIONS, "-I", "{}", "-a"]).arg(lab.path("hosts"));
        xargs.arg(there.ssh.client()).args(["{}", "true"]);
        logins.push(lab.start("xargs", xargs)?.finish()?.seconds);
        ours.push(copy(lab, &there, &format!("h[001-{count:03}]"), count as usize)?);
    }
    let (logins, ours) = (median(logins).unwrap_or_default(), median(ours).unwrap_or_default());
    book.figure(format!("xargs -P {SESSIONS} ssh HOST true"), logins, "s", "");
    book.figure("copy of 64 KiB to all", ours, "s", "the whole command");
    book.ratio("copy / xargs", ours / logins, Threshold::AtMost(1.5), "");
    Ok(())
}

/// Copies the small file, and returns the seconds that the command took. Each host has its own
/// home in a real cluster; here they share one, so that one file is written.
fn copy(lab: &WorkDir, there: &LoopbackHosts, hosts: &str, count: usize) -> Result<f64> {
    let LoopbackHosts { remote, ssh } = there;
    let target = lab.path("copied");
    let mut command = process::command(&remote.program);
    command.args(["copy", "--json", "--progress", "never", "--overwrite", "--no-resume", "--ssh"]);
    command.arg(ssh.client()).arg(lab.path("small"));
    command.arg(format!("{hosts}:{}", target.display()));
    let finished = lab.start("copy", command)?.finish()?;
    let report: serde_json::Value = serde_json::from_str(finished.output.trim())?;
    ensure!(report["state"] == "complete", "{report}");
    let receivers = report["nodes"].as_array().map_or(0, |nodes| nodes.len() - 1);
    ensure!(receivers == count, "{receivers} of {count} hosts took part");
    ensure!(fs::read(&target)? == vec![7; BYTES], "the copy differs");
    fs::remove_file(&target)?;
    Ok(finished.seconds)
}

/// Returns the seconds that ssh takes to carry the program's bytes.
fn time_to_send(bench: SshFixture<'_>, there: &LoopbackHosts) -> Result<f64> {
    let SshFixture { options, lab, .. } = bench;
    let LoopbackHosts { remote, ssh } = there;
    let program = options.sent_program.as_deref().unwrap_or(&remote.program);
    let mut shell = process::command("sh");
    shell.args(["-c", "exec \"$1\" begin 'cat > sent && rm sent' < \"$2\"", "sh"]);
    shell.arg(ssh.client()).arg(program);
    Ok(lab.start("cat", shell)?.finish()?.seconds)
}

/// Makes the home of who logs in empty.
fn empty(home: &Path) -> Result<()> {
    fs::remove_dir_all(home)?;
    fs::create_dir(home).with_context(|| format!("cannot make {}", home.display()))
}
