//! Child processes: nodes here, and the commands that start nodes on other hosts.

use std::io::{self, BufRead, BufReader, PipeReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use crate::core::error::{Code, Error};
use crate::core::launch::host_script::LINE_BYTES_MAX;
use crate::core::units::{printable, printable_json};
use crate::io::clock::wait_until;

/// Time for children to end once they are asked to.
pub(super) const END_WITHIN: Duration = Duration::from_secs(5);
/// Number of lines kept of a node that does not listen: an error has three.
const WORDS_MAX: usize = 16;

/// A child, the way to it, and its output and errors, together.
pub(super) struct StartedChild {
    pub(super) child: Child,
    pub(super) stdin: ChildStdin,
    pub(super) output: PipeReader,
}

/// Starts a child in a process group of its own: a Ctrl-C is for the master, which then lets the
/// nodes clean up.
pub(super) fn start(mut command: Command) -> io::Result<StartedChild> {
    let (output, its_end) = io::pipe()?;
    command.stdin(Stdio::piped()).stdout(its_end.try_clone()?).stderr(its_end);
    let mut child = command.process_group(0).spawn()?;
    // It holds this side's copies of the child's end, which would keep the pipe open.
    drop(command);
    let stdin = child.stdin.take().expect("stdin is a pipe");
    Ok(StartedChild { child, stdin, output })
}

/// The lines of a child, to its end. One that is longer than any of ours comes in parts.
pub(super) fn lines(output: PipeReader) -> impl Iterator<Item = String> {
    let mut output = BufReader::new(output);
    std::iter::from_fn(move || {
        let mut line = Vec::new();
        let read = output.by_ref().take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut line);
        if !read.is_ok_and(|bytes| bytes > 0) {
            return None;
        }
        line.pop_if(|last| *last == b'\n');
        Some(String::from_utf8_lossy(&line).into_owned())
    })
}

/// Prints a line of a node on standard error, which may be closed.
pub(super) fn pass_on(line: &str, host: Option<&str>) {
    // A log may be JSON, which has its own escapes.
    let is_json = line.starts_with('{');
    let line = if is_json { printable_json(line) } else { printable(line) };
    let text = match host {
        Some(host) if !is_json => format!("{host}: {line}\n"),
        _ => format!("{line}\n"),
    };
    let _ = io::stderr().write_all(text.as_bytes());
}

/// What a child said before it came to listen.
#[derive(Default)]
pub(super) struct ChildWords {
    lines: Vec<String>,
}

impl ChildWords {
    /// Keeps a line: of many the first ones, and the last one.
    pub(super) fn keep(&mut self, line: String) {
        if self.lines.len() >= WORDS_MAX {
            self.lines.pop();
        }
        self.lines.push(line);
    }

    pub(super) fn lines(&self) -> &[String] {
        &self.lines
    }

    /// Returns true if the program, or the script that looks for it, has said why it ended.
    pub(super) fn are_ours(&self) -> bool {
        self.lines.iter().any(|line| line.starts_with("cep-fast: "))
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.lines.clear();
    }

    /// Returns the error of a node that ended before it listened, from its own error output.
    pub(super) fn error(&self, status: Option<i32>) -> Error {
        let code = status
            .and_then(|status| u32::try_from(status).ok())
            .map_or(Code::Unreachable, Code::of);
        let led_by = |lead: &str| self.lines.iter().find_map(|line| line.strip_prefix(lead));
        let message = match led_by("cep-fast: ") {
            Some(message) => message.to_owned(),
            None if self.lines.is_empty() => {
                "the node ended before it listened, without an error message".into()
            }
            None => {
                format!("the node ended before it listened; it said: {}", self.lines.join(" "))
            }
        };
        let error = Error::new(code, message);
        match led_by("  try: ") {
            Some(remedy) => error.remedy(remedy),
            None => error,
        }
    }
}

/// Asks children that still run to end.
pub(super) fn ask_to_end(children: &mut [Child]) {
    for child in children {
        // The id of a child is only valid until it has been waited for.
        if matches!(child.try_wait(), Ok(None)) {
            let _ = kill(pid(child), Signal::SIGTERM);
        }
    }
}

/// Waits for children until `deadline`, then kills those that have not ended by themselves.
pub(super) fn end(children: &mut [Child], deadline: Instant) {
    if !wait_for(children, deadline) {
        for child in children.iter_mut() {
            if matches!(child.try_wait(), Ok(None)) {
                let _ = kill(pid(child), Signal::SIGKILL);
            }
        }
    }
    // After a SIGKILL the wait ends.
    for child in children {
        let _ = child.wait();
    }
}

/// Waits for children until `deadline`, and returns true if all have ended. It does not reap them,
/// so that their ids stay valid.
pub(super) fn wait_for(children: &mut [Child], deadline: Instant) -> bool {
    let pids: Vec<Pid> = children
        .iter_mut()
        .filter_map(|child| matches!(child.try_wait(), Ok(None)).then(|| pid(child)))
        .collect();
    let (ended, wait) = channel();
    let waiter = thread::Builder::new().name("ends of nodes".into()).spawn(move || {
        for pid in pids {
            let _ = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
        }
        let _ = ended.send(());
    });
    // A thread that waits longer ends with the children.
    let is_over = |left| (wait.recv_timeout(left) != Err(RecvTimeoutError::Timeout)).then_some(());
    waiter.is_ok() && wait_until(deadline, is_over).is_some()
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("process ids fit 31 bits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_of_a_node_that_does_not_come_to_listen_is_its_own() {
        let said = |status, words: &[&str]| {
            let lines = words.iter().map(ToString::to_string).collect();
            ChildWords { lines }.error(status)
        };
        let error = said(
            Some(5),
            &["cep-fast: r is missing", "  try: name an existing directory with --root"],
        );
        let expected =
            Error::new(Code::Data, "r is missing").remedy("name an existing directory with --root");
        assert_eq!(error, expected);
        assert_eq!(said(None, &[]).code, Code::Unreachable);
        assert!(
            said(Some(101), &["thread 'main' panicked", "at x"])
                .message
                .ends_with("said: thread 'main' panicked at x")
        );
    }

    #[test]
    fn a_line_without_an_end_comes_in_parts() {
        let (output, mut its_end) = io::pipe().expect("a pipe");
        let long = "x".repeat(LINE_BYTES_MAX + 10);
        its_end.write_all(format!("a\n{long}\nb").as_bytes()).expect("it fits the pipe");
        drop(its_end);
        let sizes: Vec<usize> = lines(output).map(|line| line.len()).collect();
        assert_eq!(sizes, [1, LINE_BYTES_MAX, 10, 1]);
    }
}
