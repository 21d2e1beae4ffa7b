//! A diagnosis as people read it: `Display` of [`Diagnosis`] and [`DoctorPeer`].

use std::fmt;

use comfy_table::Table;
use comfy_table::presets::NOTHING;

use crate::core::doctor::diagnosis::{Diagnosis, list};
use crate::core::doctor::peer::DoctorPeer;
use crate::core::doctor::readings::NicReading;
use crate::core::units::{BitRate, human_bytes};

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Linux {}; data path: {}\n", self.kernel, self.path)?;
        if !self.nics.is_empty() {
            let mut table = Table::new();
            table.load_style(NOTHING).set_header(HEADINGS);
            for nic in &self.nics {
                table.add_row(cells(nic));
            }
            writeln!(f, "{}\n", table.trim_fmt())?;
        }
        if let Some(peer) = &self.peer {
            writeln!(f, "{peer}\n")?;
        }
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        match self.shortfalls() {
            0 => write!(f, "\nNothing was found that stands between this machine and line rate."),
            1 => write!(f, "\n1 shortfall stands between this machine and line rate."),
            more => write!(f, "\n{more} shortfalls stand between this machine and line rate."),
        }
    }
}

impl fmt::Display for DoctorPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(NOTHING).set_header([
            "rails",
            "payload",
            "rate",
            "of line",
            "carried here by",
            "there by",
        ]);
        for pair in &self.pairs {
            let or_dash = |nic: &Option<String>| nic.clone().unwrap_or_else(|| "-".into());
            let of_line = pair
                .line_gbit_per_s
                .map(|line| format!("{:.1} % of {line} Gbit/s", pair.gbit_per_s / line * 100.0));
            table.add_row([
                pair.to_string(),
                human_bytes(pair.bytes),
                BitRate((pair.gbit_per_s * 1e9) as u64).to_string(),
                or_dash(&of_line),
                or_dash(&pair.carried_by),
                or_dash(&pair.peer_carried_by),
            ]);
        }
        write!(f, "With {}, all rails at once:\n\n{}", self.name, table.trim_fmt())
    }
}

fn cells(nic: &NicReading) -> [String; COLUMNS] {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    [
        nic.name.clone(),
        nic.usage.to_string(),
        or_dash(nic.speed_mbit.map(|mbit| BitRate(u64::from(mbit) * 1_000_000).to_string())),
        nic.mtu.to_string(),
        or_dash(nic.numa_node.map(|node| node.to_string())),
        or_dash((!nic.cpus.is_empty()).then(|| list(&nic.cpus))),
        or_dash(nic.driver.clone()),
        format!("{} rx, {} tx", nic.rx_queues, nic.tx_queues),
        or_dash((!nic.addresses.is_empty()).then(|| nic.addresses.join(" "))),
    ]
}

const COLUMNS: usize = 9;
const HEADINGS: [&str; COLUMNS] =
    ["NIC", "used", "speed", "MTU", "NUMA node", "CPUs", "driver", "queues", "addresses"];
