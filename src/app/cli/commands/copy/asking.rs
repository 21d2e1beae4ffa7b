//! Questions to the hosts of a copy, on sessions that last until all is known.

use std::collections::BTreeMap;

use super::facts::{HostQuestion, HostToken, SurveyFacts, shares};
use super::operands::{CopyNode, CopyRequest};
use super::rows::{self, CopyRows, HostTargets};
use crate::app::transfer::ReachedNodes;
use crate::core::error::{Code, Error, Result};
use crate::core::spec::NodeAddress;
use crate::core::wire::control::SurveyQuestion;
use crate::io::master::survey::SurveySessions;

/// A survey of the hosts of a copy.
struct CopySurvey<'a> {
    nodes: &'a [CopyNode],
    /// Place of each node by its name.
    places: BTreeMap<&'a str, usize>,
    sessions: SurveySessions,
    facts: SurveyFacts,
}

/// Asks the hosts of a copy what its paths are, and makes its rows.
///
/// # Errors
/// Those of hosts that cannot be met or do not answer, of their paths, and of the rows.
pub(super) fn rows_of(
    request: &CopyRequest,
    reached: &ReachedNodes,
    split: bool,
) -> Result<CopyRows> {
    let addresses: Vec<NodeAddress> =
        request.nodes.iter().map(|node| node.address.clone()).collect();
    let places = request.nodes.iter().enumerate().map(|(at, node)| (node.name.as_str(), at));
    let mut survey = CopySurvey {
        nodes: &request.nodes,
        places: places.collect(),
        sessions: reached.survey(&addresses)?,
        facts: SurveyFacts::default(),
    };
    let made = survey.rows(request, split);
    // The nodes remove what they have made for it.
    survey.sessions.close();
    made
}

impl CopySurvey<'_> {
    fn rows(&mut self, request: &CopyRequest, split: bool) -> Result<CopyRows> {
        let CopyRequest { files, destination, .. } = request;
        self.ask(rows::questions(files, destination))?;
        let targets = rows::targets(files, destination, &self.facts)?;
        let sources = files.iter().flat_map(|file| &file.places).flat_map(|place| &place.hosts);
        let machines: Vec<&str> = sources.filter_map(|host| self.machine(host)).collect();
        let may_be = |host: &str| self.machine(host).is_none_or(|it| machines.contains(&it));
        self.ask(rows::target_questions(&targets, may_be))?;
        let shares = self.shares(&targets)?;
        if split {
            rows::check_split(&shares, &destination.typed)?;
        }
        let address = |host: &str| self.nodes[self.places[host]].address.clone();
        let mut made = rows::rows(files, &targets, &shares, &self.facts, address)?;
        made.warnings.extend(rows::share_notes(&shares, &targets));
        Ok(made)
    }

    /// Returns the boot id of a host's machine.
    fn machine(&self, host: &str) -> Option<&str> {
        let advert = self.sessions.advert(*self.places.get(host)?)?;
        Some(&advert.boot_id)
    }

    /// Asks questions, and keeps the answers.
    fn ask(&mut self, questions: Vec<HostQuestion>) -> Result<()> {
        let mut by_node: Vec<Vec<SurveyQuestion>> = vec![Vec::new(); self.nodes.len()];
        for (host, question) in questions {
            by_node[self.places[host.as_str()]].push(question);
        }
        let answers = self.sessions.ask(&by_node)?;
        for ((node, questions), answers) in self.nodes.iter().zip(by_node).zip(answers) {
            for (question, answer) in questions.into_iter().zip(answers) {
                self.facts.add((node.name.clone(), question), answer);
            }
        }
        Ok(())
    }

    /// Finds out which hosts of the destination see one directory, if there are several: each makes
    /// a token, and then looks for those of the others.
    fn shares(&mut self, targets: &[HostTargets]) -> Result<Vec<Vec<String>>> {
        if targets.len() < 2 {
            return Ok(Vec::new());
        }
        let token = |target: &HostTargets| {
            let mut token = [0; 16];
            getrandom::fill(&mut token).map_err(|error| {
                Error::new(Code::Internal, format!("the system gives no randomness: {error}"))
            })?;
            let (host, directory) = (target.host.clone(), target.directory.clone());
            Ok(HostToken { host, directory, token })
        };
        let tokens = targets.iter().map(token).collect::<Result<Vec<HostToken>>>()?;
        self.ask(tokens.iter().map(HostToken::make).collect())?;
        let others = |own: &HostToken| {
            let others = tokens.iter().filter(|other| other.host != own.host);
            others.map(|other| own.find(other)).collect::<Vec<_>>()
        };
        let found = self.ask(tokens.iter().flat_map(others).collect());
        // Once it is answered nothing is left, also where the copy does not take place.
        self.ask(tokens.iter().map(HostToken::remove).collect())?;
        found?;
        shares(&tokens, &self.facts)
    }
}
