//! `doctor` of hosts: a node is started on each, which examines its machine, and all are asked at
//! once.

use std::fmt;
use std::process::ExitCode;

use serde::Serialize;

use super::hosts::{nodes_of, settings_without_files};
use super::output::{print, print_json};
use crate::app::cli::args::DoctorArgs;
use crate::app::cli::exit_code;
use crate::app::cli::host_operand::HostOperand;
use crate::app::transfer::ReachedNodes;
use crate::core::doctor::hosts::{HostComparison, HostDiagnosis, SharedFinding};
use crate::core::error::{Code, Error, Result};
use crate::core::launch::method::LaunchMethod;
use crate::core::spec::NodeAddress;
use crate::core::units::printable_lines;
use crate::core::wire::control::{SurveyAnswer, SurveyQuestion, SurveySubject};
use crate::io::launch::{LaunchPurpose, current_job};

/// Hosts that a line names before it counts the others.
const NAMED_MAX: usize = 8;

pub(super) fn examine_hosts(args: &DoctorArgs) -> Result<ExitCode> {
    let operands = args.hosts.iter().map(|text| {
        text.parse::<HostOperand>().map_err(|expected| {
            Error::new(Code::Usage, format!("{text}: expected {expected}"))
                .remedy("with --launch, hosts are examined, which need no port")
        })
    });
    let operands = operands.collect::<Result<Vec<HostOperand>>>()?;
    let launch = args.launch.clone().unwrap_or_default();
    if operands.is_empty() && launch != LaunchMethod::Slurm {
        let what = format!("--launch {launch} examines hosts, and none is named");
        return Err(Error::new(Code::Usage, what).remedy("name them: n[01-16], or @FILE"));
    }
    let settings = settings_without_files(launch, &args.starter);
    let nodes = nodes_of(&operands, &settings, &current_job)?;
    // Nothing is to be cleaned up: a signal ends the process, and with it the nodes.
    let reached = ReachedNodes::launch_to(LaunchPurpose::Examine, &nodes, &settings, &|| false)?;
    let addresses: Vec<NodeAddress> = nodes.into_iter().map(|node| node.address).collect();
    let examined = Examined::new(diagnoses(&reached, &addresses)?)?;
    if args.json {
        let json = serde_json::to_string(&examined);
        print_json(&json.expect("numbers, strings and lists have a form in JSON"))?;
    } else {
        print(&printable_lines(&examined.to_string()))?;
    }
    // As for one machine.
    let is_well = examined.compared.shortfalls == 0;
    Ok(if is_well { ExitCode::SUCCESS } else { exit_code(Code::Data) })
}

/// Asks all nodes for what was found on their machines.
fn diagnoses(reached: &ReachedNodes, addresses: &[NodeAddress]) -> Result<Vec<(String, String)>> {
    let mut sessions = reached.survey(addresses)?;
    let question = SurveyQuestion { path: "".into(), subject: SurveySubject::Diagnosis };
    let answers = sessions.ask(&vec![vec![question]; addresses.len()])?;
    sessions.close();
    let told =
        addresses.iter().zip(answers.into_iter().flatten()).map(|(address, answer)| match answer {
            SurveyAnswer::Diagnosis(json) => Ok((address.host.clone(), json)),
            SurveyAnswer::Failed(error) => Err(error.at(&address.host)),
            _ => Err(Error::new(Code::Internal, "its answer fits no question").at(&address.host)),
        });
    told.collect()
}

/// Diagnoses of hosts.
#[derive(Serialize)]
struct Examined {
    #[serde(flatten)]
    compared: HostComparison,
    hosts: Vec<ExaminedHost>,
}

/// Diagnosis of one host.
#[derive(Serialize)]
struct ExaminedHost {
    host: String,
    #[serde(flatten)]
    diagnosis: serde_json::Value,
}

impl Examined {
    fn new(told: Vec<(String, String)>) -> Result<Examined> {
        let (mut read, mut hosts) = (Vec::new(), Vec::new());
        for (host, json) in told {
            let unclear = |error: serde_json::Error| {
                Error::new(Code::Internal, format!("its diagnosis cannot be read: {error}"))
                    .at(&host)
                    .remedy("run the same version of cep-fast there as here")
            };
            let diagnosis: HostDiagnosis = serde_json::from_str(&json).map_err(unclear)?;
            let value = serde_json::from_str(&json).map_err(unclear)?;
            read.push((host.clone(), diagnosis));
            hosts.push(ExaminedHost { host, diagnosis: value });
        }
        Ok(Examined { compared: HostComparison::of(&read), hosts })
    }
}

impl fmt::Display for Examined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.hosts.len();
        writeln!(f, "{count} hosts examined.")?;
        for difference in &self.compared.differences {
            writeln!(f, "\n{} differs:", difference.about)?;
            for value in &difference.values {
                writeln!(f, "  {}: {}", value.value, listed(&value.hosts, count))?;
            }
        }
        for SharedFinding { hosts, about, found, cost, remedy, .. } in &self.compared.findings {
            write!(f, "\nSHORTFALL  {}: {about}: {found}", listed(hosts, count))?;
            if let Some(cost) = cost {
                write!(f, "\n           costs: {cost}")?;
            }
            if let Some(remedy) = remedy {
                write!(f, "\n           try: {remedy}")?;
            }
            writeln!(f)?;
        }
        match self.compared.shortfalls {
            0 => write!(f, "\nNothing was found that stands between these hosts and line rate."),
            1 => write!(f, "\n1 shortfall stands between these hosts and line rate."),
            more => write!(f, "\n{more} shortfalls stand between these hosts and line rate."),
        }
    }
}

/// Returns hosts for a line.
fn listed(hosts: &[String], of: usize) -> String {
    match hosts.len() {
        count if count == of && of > 1 => format!("all {of} hosts"),
        count if count > NAMED_MAX => {
            format!("{} and {} more", hosts[..NAMED_MAX].join(", "), count - NAMED_MAX)
        }
        _ => hosts.join(", "),
    }
}
