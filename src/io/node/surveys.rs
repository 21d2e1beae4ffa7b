//! Answers to a master's questions about paths. A worker looks at them: a file system that does not
//! answer keeps nobody else waiting.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use super::options::NodeOptions;
use crate::core::error::{Code, Error, Result};
use crate::core::node::machine::SessionIx;
use crate::core::spec::RootName;
use crate::core::wire::control::{
    SurveyAnswer, SurveyQuestion, SurveySubject, SurveyedDestination, SurveyedSource,
};
use crate::core::wire::limits::{DIAGNOSIS_BYTES_MAX, PATH_BYTES_MAX};
use crate::io::store::{
    DeclaredRoot, DirectoryToken, StoreRoots, survey_destination, survey_source,
};

/// Tokens of one session: a master makes one for each destination of its node.
const TOKENS_MAX: usize = 64;

/// Surveys of a node: how paths are understood, and the tokens that they have made, until their
/// sessions end.
pub(super) struct NodeSurveys {
    paths: PathRule,
    /// The machine's boot id.
    boot_id: String,
    /// What was found when the machine was examined, if the node was started for that.
    diagnosis: Option<String>,
    made: BTreeMap<SessionIx, Vec<DirectoryToken>>,
}

impl NodeSurveys {
    pub(super) fn new(options: &NodeOptions, boot_id: &str) -> NodeSurveys {
        NodeSurveys {
            paths: PathRule::of(options),
            boot_id: boot_id.to_owned(),
            diagnosis: options.diagnosis.clone(),
            made: BTreeMap::new(),
        }
    }

    /// Returns the work for the questions of a session, with the verdict about each.
    pub(super) fn job(
        &self,
        session: SessionIx,
        questions: Vec<(SurveyQuestion, Result<bool>)>,
    ) -> SurveyJob {
        let made = self.made.get(&session).map_or(0, Vec::len);
        let tokens_max = TOKENS_MAX.saturating_sub(made);
        let (paths, boot_id) = (self.paths, self.boot_id.clone());
        SurveyJob { questions, paths, boot_id, diagnosis: self.diagnosis.clone(), tokens_max }
    }

    /// Keeps the tokens of a worker's result, and returns its answers.
    pub(super) fn keep(&mut self, session: SessionIx, result: SurveyResult) -> Vec<SurveyAnswer> {
        if !result.tokens.is_empty() {
            self.made.entry(session).or_default().extend(result.tokens);
        }
        result.answers
    }

    /// Hands over the tokens of a session: dropping them removes their files, which may block.
    pub(super) fn take(&mut self, session: SessionIx) -> Vec<DirectoryToken> {
        self.made.remove(&session).unwrap_or_default()
    }

    /// Hands over all of them.
    pub(super) fn take_all(&mut self) -> Vec<DirectoryToken> {
        std::mem::take(&mut self.made).into_values().flatten().collect()
    }
}

/// A survey for a worker.
#[derive(Debug)]
pub(super) struct SurveyJob {
    /// Each question, and whether its asker may also read there, or why it is not answered.
    pub(super) questions: Vec<(SurveyQuestion, Result<bool>)>,
    pub(super) paths: PathRule,
    /// The machine's boot id.
    pub(super) boot_id: String,
    /// The machine's diagnosis, if there is one.
    pub(super) diagnosis: Option<String>,
    /// Number of tokens that may be made.
    pub(super) tokens_max: usize,
}

/// Answers of a worker, and what it has made.
#[derive(Debug)]
pub(super) struct SurveyResult {
    pub(super) answers: Vec<SurveyAnswer>,
    pub(super) tokens: Vec<DirectoryToken>,
}

/// Meaning of the paths of questions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PathRule {
    /// They are those of whoever launched this node: relative ones lie below that user's home, and
    /// `..` is what it is to the system.
    OfUser,
    /// All lie below the roots, and none has `..`.
    OfRoots,
}

impl PathRule {
    pub(super) fn of(options: &NodeOptions) -> PathRule {
        let has_all = |root: &DeclaredRoot| {
            root.place.name == RootName::Whole && root.place.directory == Path::new("/")
        };
        match &options.roots.declared[..] {
            [root] if options.launched && has_all(root) => PathRule::OfUser,
            _ => PathRule::OfRoots,
        }
    }

    /// The path from the root on. A source that is a link or lies behind one is what it leads to.
    fn resolve(self, path: &Path, subject: SurveySubject) -> Result<PathBuf> {
        match self {
            PathRule::OfRoots => Ok(from_root(path)),
            PathRule::OfUser => {
                let home = std::env::home_dir().filter(|home| home.is_absolute());
                let path = home.unwrap_or_else(|| "/".into()).join(path);
                match subject {
                    SurveySubject::Source => Ok(path.canonicalize().unwrap_or(path)),
                    _ => without_climbing(path),
                }
            }
        }
    }
}

/// The path from the root on that a question means, where it means one below a root.
pub(super) fn from_root(path: &Path) -> PathBuf {
    Path::new("/").join(path)
}

/// A path without `..`, which a node refuses: its directory is resolved by the system.
fn without_climbing(path: PathBuf) -> Result<PathBuf> {
    if path.components().all(|component| component != Component::ParentDir) {
        return Ok(path);
    }
    let entered = |directory: &Path| {
        directory.canonicalize().map_err(|error| {
            let what = format!("{} cannot be entered: {error}", directory.display());
            Error::new(Code::Data, what).remedy("make the directory, or check the path")
        })
    };
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => {
            let mut resolved = entered(parent)?.join(name);
            if path.as_os_str().as_encoded_bytes().ends_with(b"/") {
                resolved.push("");
            }
            Ok(resolved)
        }
        _ => entered(&path),
    }
}

/// Answers the questions of a survey.
pub(super) fn carry_out(roots: &StoreRoots, job: SurveyJob) -> SurveyResult {
    let mut tokens = Vec::new();
    let SurveyJob { questions, paths, boot_id, diagnosis, tokens_max } = job;
    let identity = |(device, inode): (u64, u64)| {
        let mut hasher = blake3::Hasher::new();
        hasher.update(boot_id.as_bytes()).update(&[0]);
        hasher.update(&device.to_le_bytes()).update(&inode.to_le_bytes());
        u64::from_le_bytes(*hasher.finalize().as_bytes().first_chunk().expect("32 are enough"))
    };
    let mut answer = |question: SurveyQuestion, may_read: Result<bool>| {
        let may_read = may_read?;
        let path = paths.resolve(&question.path, question.subject)?;
        if path.as_os_str().len() > PATH_BYTES_MAX {
            let what = format!("its path has more than {PATH_BYTES_MAX} bytes");
            return Err(Error::new(Code::Data, what).remedy("choose a shorter one"));
        }
        Ok(match question.subject {
            SurveySubject::Diagnosis => diagnosed(diagnosis.as_ref())?,
            SurveySubject::Source => {
                let facts = survey_source(roots, &path)?;
                SurveyAnswer::Source(SurveyedSource {
                    path,
                    bytes: facts.bytes,
                    modified_seconds: facts.modified_seconds,
                    identity: identity(facts.identity),
                })
            }
            SurveySubject::Destination => {
                let facts = survey_destination(roots, &path)?;
                let may_read = may_read && roots.to_read(&path).is_ok();
                SurveyAnswer::Destination(SurveyedDestination {
                    path,
                    is_directory: facts.is_directory,
                    identity: facts.identity.filter(|_| may_read).map(identity),
                })
            }
            SurveySubject::MakeToken(_) if tokens.len() >= tokens_max => {
                let what = format!("a session may have {TOKENS_MAX} tokens");
                return Err(Error::new(Code::Refused, what));
            }
            SurveySubject::MakeToken(token) => {
                tokens.push(DirectoryToken::make(roots, &path, &token)?);
                SurveyAnswer::Token(true)
            }
            SurveySubject::RemoveToken(token) => {
                DirectoryToken::remove(roots, &path, &token)?;
                SurveyAnswer::Token(false)
            }
            SurveySubject::FindToken(token) => {
                SurveyAnswer::Token(DirectoryToken::is_there(roots, &path, &token)?)
            }
        })
    };
    let answers = questions.into_iter().map(|(question, may_read)| {
        answer(question, may_read).unwrap_or_else(SurveyAnswer::Failed)
    });
    let answers = answers.collect();
    SurveyResult { answers, tokens }
}

/// Returns the diagnosis of the machine.
fn diagnosed(diagnosis: Option<&String>) -> Result<SurveyAnswer> {
    match diagnosis {
        Some(json) if json.len() <= DIAGNOSIS_BYTES_MAX => {
            Ok(SurveyAnswer::Diagnosis(json.clone()))
        }
        Some(json) => {
            let what = format!("its diagnosis has {} bytes", json.len());
            Err(Error::new(Code::Refused, what).remedy("run cep-fast doctor on that host"))
        }
        None => {
            let what = "this node was not started to be examined";
            Err(Error::new(Code::Refused, what).remedy("run cep-fast doctor on that host"))
        }
    }
}

/// The same failure as the answer to each of `count` questions.
pub(super) fn all_failed(count: usize, error: &Error) -> SurveyResult {
    let answers = vec![SurveyAnswer::Failed(error.clone()); count];
    SurveyResult { answers, tokens: Vec::new() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn paths_of_a_user_are_those_of_the_system_and_others_begin_at_the_root() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().canonicalize().unwrap().join(name);
        fs::create_dir_all(at("d/e")).unwrap();
        fs::write(at("s"), "x").unwrap();
        std::os::unix::fs::symlink(at("d/e"), at("link")).unwrap();
        let destination =
            |path: PathBuf| PathRule::OfUser.resolve(&path, SurveySubject::Destination).unwrap();
        assert_eq!(destination(at("link/x")), at("link/x"), "links stay where nothing climbs");
        assert_eq!(destination(at("link/../x")), at("d/x"), "behind the link");
        assert_eq!(destination(at("link/..")), at("d"));
        let slash = destination(at("d/../d/"));
        assert_eq!(slash.as_os_str(), at("d/").as_os_str(), "a slash stays");
        let source = |path: &Path| PathRule::OfUser.resolve(path, SurveySubject::Source).unwrap();
        assert_eq!(source(&at("d/../s")), at("s"));
        assert_eq!(source(Path::new("x/y")), std::env::home_dir().unwrap().join("x/y"));
        let missing = PathRule::OfUser.resolve(&at("no/../x"), SurveySubject::Destination);
        assert!(missing.unwrap_err().message.contains("cannot be entered"));
        for (path, rooted) in [("x", "/x"), ("/x", "/x"), ("", "/"), ("../x", "/../x")] {
            let resolved = PathRule::OfRoots.resolve(path.as_ref(), SurveySubject::Source).unwrap();
            assert_eq!(resolved, Path::new(rooted), "{path}");
        }
    }
}
