//! Answers of hosts about the paths of a copy.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::core::error::{Code, Error, Result};
use crate::core::wire::control::{
    SurveyAnswer, SurveyQuestion, SurveySubject, SurveyToken, SurveyedDestination, SurveyedSource,
};

/// A question to a host.
pub(super) type HostQuestion = (String, SurveyQuestion);

/// Answers of hosts, by host, path and subject of the question.
#[derive(Default)]
pub(super) struct SurveyFacts {
    answers: BTreeMap<(String, PathBuf, SurveySubject), SurveyAnswer>,
}

impl SurveyFacts {
    pub(super) fn add(&mut self, question: HostQuestion, answer: SurveyAnswer) {
        let (host, SurveyQuestion { path, subject }) = question;
        self.answers.insert((host, path, subject), answer);
    }

    /// Returns the file at a path of a host.
    ///
    /// # Errors
    /// The reason why it cannot be read.
    pub(super) fn source(&self, host: &str, path: &Path) -> Result<&SurveyedSource> {
        match self.answer(host, path, SurveySubject::Source)? {
            SurveyAnswer::Source(source) => rooted(&source.path).map(|()| source),
            other => Err(unfit(other)),
        }
    }

    /// Returns the destination at a path of a host.
    ///
    /// # Errors
    /// The reason why nothing can be made there.
    pub(super) fn destination(&self, host: &str, path: &Path) -> Result<&SurveyedDestination> {
        match self.answer(host, path, SurveySubject::Destination)? {
            SurveyAnswer::Destination(found) => rooted(&found.path).map(|()| found),
            other => Err(unfit(other)),
        }
    }

    /// Returns true if a host has made a token in a directory, or sees it there.
    ///
    /// # Errors
    /// The reason why the host has not.
    pub(super) fn token(&self, host: &str, path: &Path, subject: SurveySubject) -> Result<bool> {
        match self.answer(host, path, subject)? {
            SurveyAnswer::Token(is_there) => Ok(*is_there),
            other => Err(unfit(other)),
        }
    }

    fn answer(&self, host: &str, path: &Path, subject: SurveySubject) -> Result<&SurveyAnswer> {
        let key = (host.to_owned(), path.to_path_buf(), subject);
        match self.answers.get(&key) {
            Some(SurveyAnswer::Failed(error)) => Err(error.clone()),
            Some(answer) => Ok(answer),
            None => Err(Error::new(Code::Internal, "nobody asked about it")),
        }
    }
}

/// Refuses a path of a node that rows cannot have.
fn rooted(path: &Path) -> Result<()> {
    if path.is_absolute() {
        return Ok(());
    }
    Err(Error::new(Code::Internal, "the node names a path that does not begin at its root")
        .remedy("run the same version of cep-fast on both nodes"))
}

fn unfit(answer: &SurveyAnswer) -> Error {
    Error::new(Code::Internal, format!("{answer:?} answers another question"))
}

/// Returns a question to a host.
pub(super) fn question(host: &str, path: &Path, subject: SurveySubject) -> HostQuestion {
    (host.to_owned(), SurveyQuestion { path: path.to_path_buf(), subject })
}

/// A directory of a host, and the token that the host makes there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct HostToken {
    pub(super) host: String,
    pub(super) directory: PathBuf,
    pub(super) token: SurveyToken,
}

impl HostToken {
    /// Returns the question that has the host make it.
    pub(super) fn make(&self) -> HostQuestion {
        question(&self.host, &self.directory, SurveySubject::MakeToken(self.token))
    }

    /// Returns the question that has the host remove it.
    pub(super) fn remove(&self) -> HostQuestion {
        question(&self.host, &self.directory, SurveySubject::RemoveToken(self.token))
    }

    /// Returns the question whether the host of `self` sees the token of another.
    pub(super) fn find(&self, other: &HostToken) -> HostQuestion {
        question(&self.host, &self.directory, SurveySubject::FindToken(other.token))
    }
}

/// Returns the hosts that see each other's tokens, as sets in the order of their first hosts. A
/// host that shares nothing is a set of its own.
///
/// # Errors
/// The reason why a host cannot make its token, or look for others, with the host's directory.
pub(super) fn shares(tokens: &[HostToken], facts: &SurveyFacts) -> Result<Vec<Vec<String>>> {
    let mut set_of: Vec<usize> = (0..tokens.len()).collect();
    for (at, own) in tokens.iter().enumerate() {
        let named = |error: Error| error.at(format!("{}:{}", own.host, own.directory.display()));
        let made = SurveySubject::MakeToken(own.token);
        facts.token(&own.host, &own.directory, made).map_err(named)?;
        for (other_at, other) in tokens.iter().enumerate().filter(|(other, _)| *other != at) {
            let sought = SurveySubject::FindToken(other.token);
            if facts.token(&own.host, &own.directory, sought).map_err(named)? {
                let (kept, joined) = (set_of[at], set_of[other_at]);
                let (kept, joined) = (kept.min(joined), kept.max(joined));
                set_of.iter_mut().filter(|set| **set == joined).for_each(|set| *set = kept);
            }
        }
    }
    let mut sets: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for (token, set) in tokens.iter().zip(set_of) {
        sets.entry(set).or_default().push(token.host.clone());
    }
    Ok(sets.into_values().collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn tokens(count: u8) -> Vec<HostToken> {
        let one =
            |at: u8| HostToken { host: format!("h{at}"), directory: "/d".into(), token: [at; 16] };
        (0..count).map(one).collect()
    }

    /// Answers where `sees` says which host sees whose token.
    fn seen(tokens: &[HostToken], sees: &[(u8, u8)]) -> SurveyFacts {
        let mut facts = SurveyFacts::default();
        for (at, own) in (0..).zip(tokens) {
            facts.add(own.make(), SurveyAnswer::Token(true));
            for (other_at, other) in (0..).zip(tokens) {
                let is_seen = sees.contains(&(at, other_at));
                facts.add(own.find(other), SurveyAnswer::Token(is_seen));
            }
        }
        facts
    }

    #[test]
    fn hosts_that_see_a_token_of_each_other_are_one_set() {
        let tokens = tokens(5);
        /// Who sees whose token, and the sets of hosts.
        type SharesRow = (&'static [(u8, u8)], &'static [&'static [&'static str]]);
        let table: [SharesRow; 5] = [
            (&[], &[&["h0"], &["h1"], &["h2"], &["h3"], &["h4"]]),
            (&[(1, 0)], &[&["h0", "h1"], &["h2"], &["h3"], &["h4"]]),
            (&[(0, 1)], &[&["h0", "h1"], &["h2"], &["h3"], &["h4"]]),
            (&[(4, 2), (2, 4), (3, 1)], &[&["h0"], &["h1", "h3"], &["h2", "h4"]]),
            (&[(4, 3), (2, 1), (3, 2), (0, 1)], &[&["h0", "h1", "h2", "h3", "h4"]]),
        ];
        for (sees, expected) in table {
            assert_eq!(shares(&tokens, &seen(&tokens, sees)).unwrap(), expected, "{sees:?}");
        }
    }

    #[test]
    fn a_directory_that_takes_no_token_is_named_with_its_host() {
        let tokens = tokens(2);
        let mut facts = seen(&tokens, &[]);
        let full = Error::new(Code::Data, "the disk is full");
        facts.add(tokens[1].make(), SurveyAnswer::Failed(full));
        let error = shares(&tokens, &facts).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (Code::Data, "h1:/d: the disk is full"));
    }
}
