//! Progress on standard error: bars on a terminal, else a plain line every few seconds.
//!
//! Snapshots and the time are arguments; drawing never delays the transfer.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::args::ProgressMode;
use crate::core::master::recent_rate::RecentRate;
use crate::core::options::WireLevel;
use crate::core::units::{BitRate, Moment, human_bytes};

/// Progress of a transfer.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ProgressSnapshot {
    /// Bytes delivered so far, summed over receivers.
    pub bytes_done: u64,
    /// Total of bytes to deliver.
    pub bytes_total: u64,
    /// During a comparison of replicas: bytes that senders have read for it, and their total.
    pub comparison: Option<(u64, u64)>,
    /// Protection that the transfer asks for, or gets by its nodes' addresses; `None` until they
    /// are known. A node may demand more.
    pub wire: Option<WireLevel>,
    /// Progress of each node.
    pub per_node: Vec<NodeProgress>,
}

impl ProgressSnapshot {
    /// Returns the finished and total bytes of the current phase.
    fn counted(&self) -> (u64, u64) {
        self.comparison.unwrap_or((self.bytes_done, self.bytes_total))
    }
}

/// Progress of one node.
#[derive(Clone, PartialEq, Debug)]
pub struct NodeProgress {
    /// Its host:port.
    pub name: String,
    /// Bytes that it has sent and received.
    pub bytes: u64,
    /// Its recent rate.
    pub rate: BitRate,
}

/// Draws snapshots. Call [`ProgressDisplay::show`] whenever there is news, and
/// [`ProgressDisplay::finish`] before the result.
pub struct ProgressDisplay {
    view: ProgressView,
    began: Option<Instant>,
    recent: RecentRate,
}

enum ProgressView {
    /// Draws nothing.
    Silent,
    /// Redraws in place.
    Bars(ProgressBars),
    /// Writes one line at a time.
    Lines(ProgressLines<Box<dyn Write + Send>>),
}

impl ProgressDisplay {
    /// Creates the display for the kind of standard error.
    #[must_use]
    pub fn new(mode: ProgressMode) -> ProgressDisplay {
        let view = match mode {
            ProgressMode::Never => ProgressView::Silent,
            ProgressMode::Auto if io::stderr().is_terminal() => {
                ProgressView::Bars(ProgressBars::new(ProgressDrawTarget::stderr()))
            }
            ProgressMode::Auto => ProgressView::Lines(ProgressLines::new(Box::new(io::stderr()))),
        };
        ProgressDisplay { view, began: None, recent: RecentRate::default() }
    }

    /// Draws the snapshot if it is due.
    pub fn show(&mut self, now: Instant, snapshot: &ProgressSnapshot) {
        let elapsed = now.saturating_duration_since(*self.began.get_or_insert(now));
        self.recent.add(Moment(0) + elapsed, snapshot.bytes_done);
        let rate = self.recent.bytes_per_second();
        match &mut self.view {
            ProgressView::Silent => {}
            ProgressView::Bars(bars) => bars.draw(snapshot, rate),
            ProgressView::Lines(lines) => lines.draw(now, snapshot, rate),
        }
    }

    /// Removes the bars from the terminal before the result.
    pub fn finish(self) {
        if let ProgressView::Bars(bars) = self.view {
            bars.clear();
        }
    }
}

/// One bar for the transfer, and below it a line for each of the first nodes.
struct ProgressBars {
    all: MultiProgress,
    whole: ProgressBar,
    nodes: Vec<ProgressBar>,
}

impl ProgressBars {
    fn new(target: ProgressDrawTarget) -> ProgressBars {
        let all = MultiProgress::with_draw_target(target);
        let style = ProgressStyle::with_template("[{bar:40}] {percent:>3} % {msg}")
            .expect("the template is well-formed");
        let whole = all.add(ProgressBar::new(0).with_style(style.progress_chars("=> ")));
        ProgressBars { all, whole, nodes: Vec::new() }
    }

    fn draw(&mut self, snapshot: &ProgressSnapshot, rate: Option<f64>) {
        let (done, total) = snapshot.counted();
        self.whole.set_length(total);
        self.whole.set_position(done);
        self.whole.set_message(whole_line(snapshot, rate));
        let lines = node_lines(&snapshot.per_node);
        while self.nodes.len() < lines.len() {
            let style =
                ProgressStyle::with_template("  {msg}").expect("the template is well-formed");
            self.nodes.push(self.all.add(ProgressBar::new_spinner().with_style(style)));
        }
        for (bar, line) in self.nodes.iter().zip(lines) {
            bar.set_message(line);
        }
    }

    fn clear(self) {
        self.nodes.iter().chain([&self.whole]).for_each(ProgressBar::finish_and_clear);
    }
}

/// Plain lines for logs.
struct ProgressLines<W> {
    out: W,
    last: Option<Instant>,
}

impl<W: Write> ProgressLines<W> {
    fn new(out: W) -> ProgressLines<W> {
        ProgressLines { out, last: None }
    }

    fn draw(&mut self, now: Instant, snapshot: &ProgressSnapshot, rate: Option<f64>) {
        // The first line comes after one interval: a transfer that is faster needs none.
        let last = *self.last.get_or_insert(now);
        if now.saturating_duration_since(last) < LINE_INTERVAL {
            return;
        }
        self.last = Some(now);
        // A log that is full or closed must not end the transfer.
        let _ = writeln!(self.out, "cep-fast: {}", plain_line(snapshot, rate));
    }
}

fn plain_line(snapshot: &ProgressSnapshot, rate: Option<f64>) -> String {
    let percent = match snapshot.counted() {
        (_, 0) => 100.0,
        (done, total) => done as f64 * 100.0 / total as f64,
    };
    let nodes: String =
        node_lines(&snapshot.per_node).into_iter().map(|line| format!("; {line}")).collect();
    format!("{percent:.0} % {}{nodes}", whole_line(snapshot, rate))
}

/// Formats bytes, rate and remaining time.
fn whole_line(snapshot: &ProgressSnapshot, rate: Option<f64>) -> String {
    let (done, total) = snapshot.counted();
    let (done, total) = (human_bytes(done), human_bytes(total));
    if snapshot.comparison.is_some() {
        return format!("comparing replicas: {done} of {total}");
    }
    let Some(rate) = rate else { return format!("{done} of {total}") };
    let left_bytes = snapshot.bytes_total.saturating_sub(snapshot.bytes_done);
    let left = time_left(left_bytes as f64 / rate);
    let wire = snapshot.wire.map_or(String::new(), |level| format!(", {}", level.name()));
    format!("{done} of {total}, {}, {left} left{wire}", BitRate((rate * 8.0) as u64))
}

/// Formats seconds for people; the remaining time of a stalled transfer is unknown.
fn time_left(seconds: f64) -> String {
    if seconds.is_nan() || seconds > LEFT_SECONDS_MAX {
        return "unknown time".into();
    }
    match seconds.ceil() as u64 {
        seconds @ 3600.. => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        seconds @ 60.. => format!("{}m{:02}s", seconds / 60, seconds % 60),
        seconds => format!("{seconds}s"),
    }
}

/// Returns a line for each of the first nodes, and one for all others.
fn node_lines(nodes: &[NodeProgress]) -> Vec<String> {
    let shown = nodes.iter().take(NODES_SHOWN_MAX);
    let mut lines: Vec<String> = shown
        .map(|node| format!("{} {} at {}", node.name, human_bytes(node.bytes), node.rate))
        .collect();
    let rest = nodes.len().saturating_sub(NODES_SHOWN_MAX);
    if rest > 0 {
        lines.push(format!("and {rest} more nodes"));
    }
    lines
}

/// Interval of lines: short enough to see a stall, long enough for a log.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Ten days: for a longer time, the rate is no basis for a forecast.
const LEFT_SECONDS_MAX: f64 = 864_000.0;

/// Number of nodes that fit below the bar on a screen.
const NODES_SHOWN_MAX: usize = 8;

#[cfg(test)]
#[path = "progress_tests.rs"]
mod tests;
