//! `--events`: the events of a transfer as lines of JSON.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::core::error::Result;
use crate::core::master::coordinator::Coordinator;
use crate::core::master::events::{EventTeller, EventWatch, TransferEvent};
use crate::core::report::Report;
use crate::core::spec::Spec;
use crate::core::units::printable_json;
use crate::io::event_writer::EventWriter;
use crate::io::log;

/// Name and version of the shape of the lines. A version adds fields and events, and changes or
/// removes none.
const SCHEMA: &str = "cep-fast.events/1";

/// One line.
#[derive(Serialize)]
struct EventLine<'a> {
    schema: &'static str,
    time: String,
    seconds: f64,
    #[serde(flatten)]
    event: &'a TransferEvent,
}

/// The events of the transfers of one command, and where they go.
pub(super) struct EventStream {
    name: String,
    writer: EventWriter,
    watch: EventWatch,
    began: Instant,
    /// Events that were not taken since the last that was.
    dropped: u64,
    dropped_ever: u64,
    has_warned: bool,
}

impl EventStream {
    /// Opens the log that a command line asks for.
    ///
    /// # Errors
    /// `Data` if it cannot be written.
    pub(super) fn open(target: Option<&Path>) -> Result<Option<EventStream>> {
        let Some(path) = target else { return Ok(None) };
        let is_stdout = is_stdout(path);
        let name = if is_stdout { "standard output".into() } else { path.display().to_string() };
        let writer = if is_stdout { EventWriter::stdout() } else { EventWriter::file(path) }?;
        Ok(Some(EventStream {
            name,
            writer,
            watch: EventWatch::default(),
            began: Instant::now(),
            dropped: 0,
            dropped_ever: 0,
            has_warned: false,
        }))
    }

    /// Tells that a transfer begins, whose specification is valid.
    pub(super) fn start(&mut self, spec: &Spec) {
        (self.watch, self.began) = (EventWatch::default(), Instant::now());
        let teller = EventTeller { version: env!("CARGO_PKG_VERSION"), pid: std::process::id() };
        self.tell(&TransferEvent::start(teller, spec));
    }

    /// Tells what has happened since the last call.
    pub(super) fn look(&mut self, coordinator: &Coordinator) {
        let events = self.watch.look(self.began.elapsed(), coordinator);
        events.iter().for_each(|event| self.tell(event));
        if let Some(error) = self.writer.error().filter(|_| !self.has_warned) {
            warn(&self.name, error);
            self.has_warned = true;
        }
    }

    /// Tells how a transfer has ended.
    pub(super) fn end(&mut self, report: &Report) {
        // Nothing waits for the transfer any more, so the events may wait for room.
        let dropped = TransferEvent::Dropped { count: std::mem::take(&mut self.dropped) };
        let is_owed = dropped != TransferEvent::Dropped { count: 0 };
        for event in is_owed.then_some(dropped).into_iter().chain(self.watch.end(report)) {
            if !self.writer.push_last(line(self.began.elapsed(), &event)) {
                self.dropped_ever += 1;
                return;
            }
        }
    }

    /// Waits until all is written, as long as somebody takes it.
    pub(super) fn finish(self) {
        let error = self.writer.finish();
        let untold = (self.dropped_ever > 0)
            .then(|| format!("{} were not taken in time", self.dropped_ever));
        if let Some(why) = error.or(untold).filter(|_| !self.has_warned) {
            warn(&self.name, &why);
        }
    }

    fn tell(&mut self, event: &TransferEvent) {
        self.admit_dropped();
        if self.dropped > 0 || !self.writer.push(line(self.began.elapsed(), event)) {
            self.dropped += 1;
            self.dropped_ever += 1;
        }
    }

    /// Tells how many events were not taken, once there is room again.
    fn admit_dropped(&mut self) {
        let dropped = TransferEvent::Dropped { count: self.dropped };
        if self.dropped > 0 && self.writer.push(line(self.began.elapsed(), &dropped)) {
            self.dropped = 0;
        }
    }
}

fn warn(name: &str, why: &str) {
    log::print_error_line(&format!("warning: not all events are in {name}: {why}"));
}

/// Returns true for the name that stands for standard output.
pub(super) fn is_stdout(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn line(elapsed: Duration, event: &TransferEvent) -> String {
    let line =
        EventLine { schema: SCHEMA, time: log::time_now(), seconds: elapsed.as_secs_f64(), event };
    let json = serde_json::to_string(&line).expect("numbers and strings have a form in JSON");
    printable_json(&json).into_owned()
}
