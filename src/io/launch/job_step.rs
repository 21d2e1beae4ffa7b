//! Nodes on hosts of a Slurm job: one step with a task on each.
//!
//! All tasks read one standard input. So they are asked one thing at a time: they look for the
//! program; where one has none, all are sent it, and those that run pass over it; once all run,
//! they get the orders and the key.

use std::collections::BTreeMap;
use std::io::{self, PipeReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::child::{self, ChildWords, StartedChild, pass_on};
use super::config::{HostConfig, LAUNCHED, LaunchConfig};
use super::deployment::ProgramDeployment;
use super::hosts::{HostNodes, LaunchHost, orders};
use super::lifeline::HostLifelines;
use crate::core::error::{Code, Error, Result};
use crate::core::launch::host_script::{self, HostLine};
use crate::core::launch::slurm_job::{SlurmJob, is_withheld, labelled};
use crate::core::launch::slurm_words::{ended, slurm_failure};
use crate::core::node::ready_line;
use crate::core::units::printable;
use crate::io::clock::{LOOK_EVERY, awake, wait_until};

/// Time in which a step must get on: it starts, a task speaks, bytes are taken.
const STEP_WITHIN: Duration = Duration::from_secs(8);
/// Time for a step in which something failed to say all and end.
const WORDS_WITHIN: Duration = Duration::from_secs(5);
/// Time for a step to end with its standard input, and then once more when it is asked to. A host
/// that does not answer would hold it up; the tasks of all others end by themselves.
const END_WITHIN: Duration = Duration::from_millis(800);
/// Hosts that a note names before it counts the others, and that say a line.
const NAMED_MAX: usize = 3;
/// Lines of nodes that are remembered.
const REMEMBERED_MAX: usize = 256;

/// What happened in the step.
enum StepEvent {
    /// A task said something.
    Said(usize, String),
    /// Slurm did.
    Note(String),
    /// A part of the program was taken.
    Progress,
    /// The program was sent, or not.
    Sent(Result<ChildStdin>),
    Ended,
}

/// How far a host is.
#[derive(Clone, PartialEq, Eq)]
enum TaskState {
    Silent,
    Needs { system: String, machine: String },
    Runs,
    Listens(Vec<SocketAddr>),
}

/// Starts a node on each of `hosts`, which are of the job.
///
/// # Errors
/// The first error of a host or of Slurm; everything that was started is ended.
pub(super) fn start(
    job: &SlurmJob,
    hosts: &[LaunchHost],
    config: &LaunchConfig<'_>,
    host_config: &HostConfig<'_>,
) -> Result<HostNodes> {
    let names: Vec<&str> = hosts.iter().map(|host| host.address.host.as_str()).collect();
    check(job, &names)?;
    raise_locked_memory();
    let (child, stdin, output) = open(job, &names, config)?;
    let (sender, events) = channel();
    let listener = sender.clone();
    let follow = move || follow(output, &listener);
    let lifelines = HostLifelines::start();
    let reader = thread::Builder::new().name("job step".into()).spawn(follow);
    let mut step = StepOpening {
        names: &names,
        config,
        host_config,
        child,
        stdin: Some(stdin),
        sender,
        tasks: BTreeMap::new(),
        states: vec![TaskState::Silent; hosts.len()],
        words: BTreeMap::new(),
        notes: ChildWords::default(),
        is_sent: false,
        lifelines: match (lifelines, reader) {
            (Ok(lifelines), Ok(_)) => lifelines,
            (Err(error), _) | (_, Err(error)) => {
                return Err(Error::new(Code::Internal, format!("no thread for a step: {error}"))
                    .remedy("raise the limit of threads: ulimit -u"));
            }
        },
    };
    match step.run(&events) {
        Ok(()) => {
            step.print_words();
            Ok(step.nodes())
        }
        Err(error) => {
            step.end();
            Err(error)
        }
    }
}

/// Refuses hosts that are not of the job, and more than one node on a host.
fn check(job: &SlurmJob, names: &[&str]) -> Result<()> {
    let mut seen = std::collections::BTreeSet::new();
    for name in names {
        job.check(name)?;
        if !seen.insert(*name) {
            let what = format!("{name}: a job has one node on a host, and here are two");
            return Err(Error::new(Code::Usage, what)
                .remedy("give its rows one port: in a job, ports of rows are only names"));
        }
    }
    Ok(())
}

/// Slurm gives tasks the soft limit of who starts the step.
fn raise_locked_memory() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_MEMLOCK)
        && soft < hard
    {
        // Without it, nodes register fewer buffers.
        let _ = setrlimit(Resource::RLIMIT_MEMLOCK, hard, hard);
    }
}

fn open(
    job: &SlurmJob,
    names: &[&str],
    config: &LaunchConfig<'_>,
) -> Result<(Child, ChildStdin, PipeReader)> {
    let mut script = host_script::words(env!("CARGO_PKG_VERSION")).to_vec();
    // Most clusters have file systems in common: the own program is likely there, too.
    let own = config.program.and_then(|program| program.canonicalize().ok());
    let own = own.and_then(|program| program.into_os_string().into_string().ok());
    script.extend(["cep-fast".into(), own.unwrap_or_default()]);
    let words = job.step(names, &script);
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).env_remove(LAUNCHED);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_withheld) {
            command.env_remove(name);
        }
    }
    let failed = |error: io::Error| {
        Error::new(Code::Usage, format!("{} cannot be started: {error}", words[0])).remedy(
            "put Slurm's commands into the search path, or have ssh start the nodes: --launch ssh",
        )
    };
    tracing::debug!("starts a step on {} hosts", names.len());
    let StartedChild { child, stdin, output } = child::start(command).map_err(failed)?;
    Ok((child, stdin, output))
}

/// Reads what the step says, to its end. What nobody waits for any more is for people.
fn follow(output: PipeReader, events: &Sender<StepEvent>) {
    let mut hosts: BTreeMap<usize, String> = BTreeMap::new();
    let mut repeats = RepeatedLines::default();
    for line in child::lines(output) {
        let (task, text) = labelled(&line);
        if let (Some(task), Some(HostLine::Runs { host: Some(host) })) =
            (task, HostLine::parse(text))
        {
            hosts.insert(task, host);
        }
        let event = match task {
            Some(task) => StepEvent::Said(task, text.to_owned()),
            None => StepEvent::Note(line.clone()),
        };
        if events.send(event).is_err() && repeats.is_worth_saying(text) {
            pass_on(text, task.and_then(|task| hosts.get(&task)).map(String::as_str));
        }
    }
    let _ = events.send(StepEvent::Ended);
}

/// Lines that many nodes say alike: a thousand nodes with one limit would fill the terminal.
#[derive(Default)]
struct RepeatedLines(BTreeMap<String, usize>);

impl RepeatedLines {
    /// Returns true for a line that few have said, of those that are remembered.
    fn is_worth_saying(&mut self, line: &str) -> bool {
        if self.0.len() >= REMEMBERED_MAX && !self.0.contains_key(line) {
            return true;
        }
        let count = self.0.entry(line.to_owned()).or_default();
        *count += 1;
        *count <= NAMED_MAX
    }
}

struct StepOpening<'a> {
    names: &'a [&'a str],
    config: &'a LaunchConfig<'a>,
    host_config: &'a HostConfig<'a>,
    child: Child,
    /// While nobody writes to it, until it is a lifeline.
    stdin: Option<ChildStdin>,
    sender: Sender<StepEvent>,
    /// The place of each task's host.
    tasks: BTreeMap<usize, usize>,
    states: Vec<TaskState>,
    /// Other lines of tasks.
    words: BTreeMap<usize, ChildWords>,
    /// Lines of Slurm.
    notes: ChildWords,
    /// The program was sent, or is being sent.
    is_sent: bool,
    lifelines: HostLifelines,
}

impl StepOpening<'_> {
    fn run(&mut self, events: &Receiver<StepEvent>) -> Result<()> {
        let mut deadline = awake() + STEP_WITHIN;
        loop {
            let event = self.next(events, deadline)?;
            // Slurm may say again and again that it waits.
            if !matches!(event, StepEvent::Note(_)) {
                deadline = awake() + STEP_WITHIN;
            }
            match event {
                StepEvent::Said(task, line) => self.take_in(task, line)?,
                StepEvent::Note(line) => {
                    let is_end = ended(&line).is_some();
                    self.notes.keep(line);
                    if is_end {
                        return Err(self.failed(events));
                    }
                }
                StepEvent::Progress => {}
                StepEvent::Sent(stdin) => self.stdin = Some(stdin?),
                StepEvent::Ended => return Err(self.failed(events)),
            }
            self.answer()?;
            if self.states.iter().all(|state| matches!(state, TaskState::Listens(_))) {
                return Ok(());
            }
        }
    }

    fn next(&self, events: &Receiver<StepEvent>, deadline: Instant) -> Result<StepEvent> {
        loop {
            let look = deadline.min(awake() + LOOK_EVERY);
            let heard = wait_until(look, |wait| events.recv_timeout(wait).ok());
            if (self.host_config.is_cancelled)() {
                return Err(Error::new(Code::Cancelled, "cancelled before all nodes were started"));
            }
            match heard {
                Some(event) => return Ok(event),
                None if awake() < deadline => {}
                None => return Err(self.late()),
            }
        }
    }

    fn take_in(&mut self, task: usize, line: String) -> Result<()> {
        match HostLine::parse(&line) {
            Some(HostLine::Runs { host }) => self.is_now(task, host.as_deref(), TaskState::Runs),
            Some(HostLine::Needs { system, machine, host }) => {
                let place = self.place(task, host.as_deref())?;
                if self.is_sent && self.states[place] != TaskState::Silent {
                    let what = "the program that was sent there is not of this version";
                    return Err(Error::new(Code::Unreachable, what).at(self.names[place]).remedy(
                        "put a static build of this version beside this program (tools/release)",
                    ));
                }
                self.states[place] = TaskState::Needs { system, machine };
                Ok(())
            }
            Some(HostLine::Dialled | HostLine::Stored) => Ok(()),
            None => match ready_line::parse_all(&line) {
                Some(Ok(addresses)) => self.is_now(task, None, TaskState::Listens(addresses)),
                Some(Err(_)) => {
                    let place = self.place(task, None)?;
                    let what = format!("the node said {} instead of its address", printable(&line));
                    Err(Error::new(Code::Unreachable, what)
                        .at(self.names[place])
                        .remedy("install the same version there as here"))
                }
                None => {
                    self.words.entry(task).or_default().keep(line);
                    Ok(())
                }
            },
        }
    }

    fn is_now(&mut self, task: usize, host: Option<&str>, state: TaskState) -> Result<()> {
        let place = self.place(task, host)?;
        tracing::debug!(host = self.names[place], task, "goes on");
        self.states[place] = state;
        Ok(())
    }

    /// Returns the place of a task's host, which it names when it first speaks.
    fn place(&mut self, task: usize, named: Option<&str>) -> Result<usize> {
        if let Some(place) = self.tasks.get(&task) {
            return Ok(*place);
        }
        let place = named.and_then(|host| self.names.iter().position(|name| *name == host));
        let Some(place) = place else {
            let named = printable(named.unwrap_or("no host")).into_owned();
            let what = format!("task {task} of the step names {named}, which was not asked for");
            return Err(Error::new(Code::Unreachable, what)
                .remedy("look whether SLURMD_NODENAME is set in srun env"));
        };
        self.tasks.insert(task, place);
        Ok(place)
    }

    /// Says what comes next, once all hosts have come to the same point.
    fn answer(&mut self) -> Result<()> {
        let needs = self.states.iter().enumerate().find_map(|(place, state)| match state {
            TaskState::Needs { system, machine } => Some((place, system.clone(), machine.clone())),
            _ => None,
        });
        let all_spoke = !self.states.contains(&TaskState::Silent);
        match needs {
            Some(needs) if all_spoke && !self.is_sent => self.send_program(needs),
            None if all_spoke => self.give_orders(),
            _ => Ok(()),
        }
    }

    /// Sends the program to all tasks, from a thread of its own: they may take their time.
    fn send_program(&mut self, (place, system, machine): (usize, String, String)) -> Result<()> {
        let Some(mut stdin) = self.stdin.take() else { return Ok(()) };
        self.is_sent = true;
        let deployment = ProgramDeployment::new(self.host_config.deploys, self.config.program);
        let (events, name) = (self.sender.clone(), self.names[place].to_owned());
        let send = move || {
            let progress = || drop(events.send(StepEvent::Progress));
            let sent = deployment.answer((&system, &machine), true, &mut stdin, progress);
            let sent = sent.map(|_| stdin).map_err(|error| error.at(name));
            let _ = events.send(StepEvent::Sent(sent));
        };
        thread::Builder::new().name("deployment".into()).spawn(send).map(drop).map_err(|error| {
            Error::new(Code::Internal, format!("no thread to send the program: {error}"))
        })
    }

    fn give_orders(&mut self) -> Result<()> {
        let Some(mut stdin) = self.stdin.take() else { return Ok(()) };
        // Tasks that have ended say why by themselves.
        let text = format!("{}{}\n", orders(self.config, 0)?.line(), self.config.secret);
        if stdin.write_all(zeroize::Zeroizing::new(text).as_bytes()).is_ok() {
            self.lifelines.holder().hold(stdin);
        }
        Ok(())
    }

    /// Returns the error of a step in which something has ended: that of the first task that said
    /// why, or Slurm's. All others are ended, and what they still say is heard.
    fn failed(&mut self, events: &Receiver<StepEvent>) -> Error {
        self.stdin = None;
        self.lifelines.end();
        let deadline = awake() + WORDS_WITHIN;
        while let Some(event) = wait_until(deadline, |wait| events.recv_timeout(wait).ok()) {
            match event {
                StepEvent::Said(task, line) => {
                    if let Some(HostLine::Runs { host } | HostLine::Needs { host, .. }) =
                        HostLine::parse(&line)
                    {
                        // A name that fits none is no worse here than what ended the step.
                        let _ = self.place(task, host.as_deref());
                    } else {
                        self.words.entry(task).or_default().keep(line);
                    }
                }
                StepEvent::Note(line) => self.notes.keep(line),
                StepEvent::Ended => break,
                StepEvent::Progress | StepEvent::Sent(_) => {}
            }
        }
        child::wait_for(std::slice::from_mut(&mut self.child), deadline);
        let status = self.child.try_wait().ok().flatten().and_then(|status| status.code());
        let ours = self.words.iter().find(|(_, words)| words.are_ours());
        match ours {
            Some((task, words)) => {
                let host = self.tasks.get(task).map_or("a task", |place| self.names[*place]);
                words.error(status).at(host)
            }
            None => {
                let said = self.words.values().flat_map(ChildWords::lines);
                let lines: Vec<String> = self.notes.lines().iter().chain(said).cloned().collect();
                slurm_failure(&self.list(|_| true), status, &lines)
            }
        }
    }

    fn late(&self) -> Error {
        let lines = self.notes.lines();
        let stages: [fn(&TaskState) -> bool; 3] = [
            |state| *state == TaskState::Silent,
            |state| matches!(state, TaskState::Needs { .. }),
            |state| *state == TaskState::Runs,
        ];
        // All wait for those that are furthest behind.
        let behind = stages.into_iter().find(|stage| self.states.iter().any(stage));
        let hosts = self.list(behind.unwrap_or(stages[0]));
        let seconds = STEP_WITHIN.as_secs();
        let is_begun = self.states.iter().any(|state| *state != TaskState::Silent);
        let slurms = slurm_failure(&hosts, None, lines);
        if !is_begun && !lines.is_empty() {
            let what = format!("{} (waited {seconds} s)", slurms.message);
            return Error { message: what, ..slurms };
        }
        Error::new(Code::Unreachable, format!("{hosts}: no node came to listen in {seconds} s"))
            .remedy("look whether srun --overlap true works in this job, and whether they are busy")
    }

    /// Returns the hosts in a state, the first ones by name.
    fn list(&self, of: impl Fn(&TaskState) -> bool) -> String {
        let with_states = self.names.iter().zip(&self.states);
        let names: Vec<&str> =
            with_states.filter(|(_, state)| of(state)).map(|(name, _)| *name).collect();
        list(&names)
    }

    /// Prints what tasks have said before all listened: equal lines once.
    fn print_words(&self) {
        let mut said: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (task, words) in &self.words {
            let host = self.tasks.get(task).map_or("", |place| self.names[*place]);
            words.lines().iter().for_each(|line| said.entry(line).or_default().push(host));
        }
        for (line, hosts) in said {
            pass_on(line, Some(&list(&hosts)));
        }
    }

    fn nodes(self) -> HostNodes {
        let addresses = self.states.into_iter().map(|state| match state {
            TaskState::Listens(addresses) => addresses,
            _ => Vec::new(),
        });
        let addresses = addresses.collect();
        HostNodes { children: vec![self.child], lifelines: self.lifelines, addresses }
    }

    /// Ends the step: its tasks by the end of their standard input, and then srun.
    fn end(&mut self) {
        self.stdin = None;
        self.lifelines.end();
        let children = std::slice::from_mut(&mut self.child);
        if !child::wait_for(children, awake() + END_WITHIN) {
            child::ask_to_end(children);
        }
        child::end(children, awake() + END_WITHIN);
    }
}

/// Returns names of hosts for a sentence.
fn list(names: &[&str]) -> String {
    match names.len().checked_sub(NAMED_MAX) {
        Some(more @ 1..) => format!("{} and {more} more", names[..NAMED_MAX].join(", ")),
        _ => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_named_until_there_are_too_many() {
        assert_eq!(list(&["a", "b", "c"]), "a, b, c");
        assert_eq!(list(&["a", "b", "c", "d", "e"]), "a, b, c and 2 more");
        assert_eq!(list(&[]), "");
    }

    #[test]
    fn a_line_of_many_nodes_is_said_a_few_times() {
        let mut lines = RepeatedLines::default();
        let said = (0..1000).filter(|_| lines.is_worth_saying("one limit")).count();
        assert_eq!(said, NAMED_MAX);
        for line in 0..2 * REMEMBERED_MAX {
            assert!(lines.is_worth_saying(&line.to_string()));
        }
        assert!(lines.0.len() <= REMEMBERED_MAX);
    }
}
