//! Tables of the figures: one for each number of NICs or threads, and a summary if there are
//! several.

use std::fmt;

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};

use super::figures::{BenchFigures, BenchNode, BenchRail, BenchStep, LineUse};
use crate::core::report::NodeRole;
use crate::core::units::human_bytes;

impl fmt::Display for BenchFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.steps.iter().enumerate() {
            if at > 0 {
                writeln!(f)?;
            }
            step.fmt(f)?;
        }
        if self.steps.len() > 1 {
            self.write_growth(f)?;
        }
        if let Some(threads) = self.threads_per_nic {
            writeln!(f, "\n--threads-per-nic {threads}: the fewest that reach 95 % of the best")?;
        }
        Ok(())
    }
}

impl BenchFigures {
    /// Writes the gain of more NICs or threads.
    fn write_growth(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(NOTHING).set_header([
            "NICs",
            "threads",
            "Gbit/s",
            "gain",
            "of line",
            "of goodput",
            "CPU per Gbit/s",
        ]);
        let first = self.steps.first().map(|step| step.rate.gbit_per_s);
        for step in &self.steps {
            let gain =
                first.map(|first| step.rate.gbit_per_s / first).filter(|gain| gain.is_finite());
            table.add_row([
                step.nics.to_string(),
                step.threads.to_string(),
                format!("{:.3}", step.rate.gbit_per_s),
                gain.map_or_else(nothing, |gain| format!("×{gain:.2}")),
                percent(step.rate.efficiency),
                percent(step.rate.goodput_efficiency),
                cores(step.cost.cpu_per_gbit_per_s),
            ]);
        }
        table.column_iter_mut().for_each(|column| column.set_cell_alignment(CellAlignment::Right));
        writeln!(f, "\n{}", table.trim_fmt())
    }
}

impl fmt::Display for BenchStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nics = if self.nics == 1 { "1 NIC".to_owned() } else { format!("{} NICs", self.nics) };
        let threads = if self.threads == 1 {
            String::new()
        } else {
            format!(", {} threads each", self.threads)
        };
        write!(
            f,
            "{nics} a node{threads}: {:.3} Gbit/s, {} in {:.3} s",
            self.rate.gbit_per_s,
            human_bytes(self.bytes),
            self.seconds
        )?;
        if let (Some(line), Some(goodput)) =
            (self.rate.line_gbit_per_s, self.rate.goodput_limit_gbit_per_s)
        {
            let (of_line, of_goodput) =
                (percent(self.rate.efficiency), percent(self.rate.goodput_efficiency));
            write!(
                f,
                "; {of_line} of the line's {line} Gbit/s, {of_goodput} of the {goodput:.3} that \
                 packets leave of it"
            )?;
        }
        writeln!(f, "; {} CPU per Gbit/s", cores(self.cost.cpu_per_gbit_per_s))?;
        let mut table = Table::new();
        table.load_style(NOTHING).set_header(HEADINGS);
        for node in &self.nodes {
            table.add_row(node_cells(node));
            for rail in &node.rails {
                table.add_row(rail_cells(rail));
            }
        }
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        writeln!(f, "{}", table.trim_fmt())
    }
}

fn node_cells(node: &BenchNode) -> [String; COLUMNS] {
    let role = match node.role {
        NodeRole::Sender => "sender",
        NodeRole::Receiver => "receiver",
        NodeRole::Both => "both",
    };
    let [sent, received, line, of_line, of_goodput] =
        rates(node.sent_gbit_per_s, node.received_gbit_per_s, &node.rate);
    let cost = [format!("{:.2}", node.cost.cpu_seconds), cores(node.cost.cpu_per_gbit_per_s)];
    let [cpu, per_gbit] = cost;
    [node.name.clone(), role.into(), sent, received, line, of_line, of_goodput, cpu, per_gbit]
}

fn rail_cells(rail: &BenchRail) -> [String; COLUMNS] {
    let [sent, received, line, of_line, of_goodput] =
        rates(rail.sent_gbit_per_s, rail.received_gbit_per_s, &rail.rate);
    let mtu = rail.mtu.map_or_else(nothing, |mtu| format!("MTU {mtu}"));
    [
        format!("  {}", rail.nic),
        mtu,
        sent,
        received,
        line,
        of_line,
        of_goodput,
        String::new(),
        String::new(),
    ]
}

fn rates(sent: f64, received: f64, rate: &LineUse) -> [String; 5] {
    let line = rate.line_gbit_per_s.map_or_else(nothing, |line| line.to_string());
    let (of_line, of_goodput) = (percent(rate.efficiency), percent(rate.goodput_efficiency));
    [format!("{sent:.3}"), format!("{received:.3}"), line, of_line, of_goodput]
}

fn percent(part: Option<f64>) -> String {
    part.map_or_else(nothing, |part| format!("{:.1} %", part * 100.0))
}

fn cores(cores: Option<f64>) -> String {
    cores.map_or_else(nothing, |cores| format!("{cores:.3}"))
}

fn nothing() -> String {
    "-".into()
}

const COLUMNS: usize = 9;
const HEADINGS: [&str; COLUMNS] = [
    "node",
    "",
    "sent Gbit/s",
    "received",
    "line",
    "of line",
    "of goodput",
    "CPU s",
    "CPU per Gbit/s",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::bench::figures::tests::report;

    #[test]
    fn people_read_rates_beside_lines() {
        let steps = vec![
            BenchStep::new(1, &report(None), None),
            BenchStep::new(2, &report(Some(10.0)), None),
        ];
        let text = BenchFigures {
            seconds_asked: 2.0,
            check: "crc64".into(),
            steps,
            threads_per_nic: None,
            error: None,
        }
        .to_string();
        let lines: Vec<String> = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(
            lines[0],
            "1 NIC a node: 14.000 Gbit/s, 3.26 GiB in 2.000 s; 0.107 CPU per Gbit/s"
        );
        assert!(
            lines.contains(&"a:1 sender 14.000 0.000 20 70.0 % 70.5 % 1.50 0.054".to_owned()),
            "{text}"
        );
        assert!(lines.contains(&"eth1 MTU 9000 0.000 6.000 10 60.0 % 60.4 %".to_owned()), "{text}");
        assert!(lines.contains(&"eth1 MTU 9000 0.000 6.000 - - -".to_owned()), "{text}");
        assert!(lines.contains(&"2 1 14.000 ×1.00 70.0 % 70.5 % 0.107".to_owned()), "{text}");
    }
}
