//! Conversion of the questions and answers of a survey.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::fields::{key, list, required, text_within, within};
use crate::core::error::Error;
use crate::core::wire::control::{
    SurveyAnswer, SurveyQuestion, SurveySubject, SurveyedDestination, SurveyedSource, WireMessage,
};
use crate::core::wire::limits::{DIAGNOSIS_BYTES_MAX, PATH_BYTES_MAX, SURVEY_MAX};
use crate::core::wire::{WireError, proto};

pub(super) fn questions_to_proto(questions: &[SurveyQuestion]) -> proto::Survey {
    proto::Survey { questions: questions.iter().map(WireMessage::to_proto).collect() }
}

pub(super) fn questions(survey: proto::Survey) -> Result<Vec<SurveyQuestion>, WireError> {
    list("the questions of a survey", survey.questions, SURVEY_MAX)
}

pub(super) fn answers_to_proto(answers: &[SurveyAnswer]) -> proto::Surveyed {
    proto::Surveyed { answers: answers.iter().map(WireMessage::to_proto).collect() }
}

pub(super) fn answers(surveyed: proto::Surveyed) -> Result<Vec<SurveyAnswer>, WireError> {
    list("the answers of a survey", surveyed.answers, SURVEY_MAX)
}

impl WireMessage for SurveyQuestion {
    type Proto = proto::SurveyQuestion;

    fn to_proto(&self) -> proto::SurveyQuestion {
        let (subject, token) = match &self.subject {
            SurveySubject::Source => (1, Vec::new()),
            SurveySubject::Destination => (2, Vec::new()),
            SurveySubject::MakeToken(token) => (3, token.to_vec()),
            SurveySubject::FindToken(token) => (4, token.to_vec()),
            SurveySubject::RemoveToken(token) => (5, token.to_vec()),
            SurveySubject::Diagnosis => (6, Vec::new()),
        };
        proto::SurveyQuestion { path: bytes_of(&self.path), subject, token }
    }

    fn from_proto(proto: proto::SurveyQuestion) -> Result<SurveyQuestion, WireError> {
        let token = || key("a token", &proto.token);
        let subject = match proto.subject {
            1 => SurveySubject::Source,
            2 => SurveySubject::Destination,
            3 => SurveySubject::MakeToken(token()?),
            4 => SurveySubject::FindToken(token()?),
            5 => SurveySubject::RemoveToken(token()?),
            6 => SurveySubject::Diagnosis,
            other => {
                let field = "the subject of a question";
                return Err(WireError::Unknown { field, value: other.into() });
            }
        };
        Ok(SurveyQuestion { path: path("the path of a question", proto.path)?, subject })
    }
}

impl WireMessage for SurveyAnswer {
    type Proto = proto::SurveyAnswer;

    fn to_proto(&self) -> proto::SurveyAnswer {
        match self {
            SurveyAnswer::Source(source) => proto::SurveyAnswer {
                kind: SOURCE,
                path: bytes_of(&source.path),
                bytes: source.bytes,
                modified_seconds: source.modified_seconds,
                identity: Some(source.identity),
                ..proto::SurveyAnswer::default()
            },
            SurveyAnswer::Destination(destination) => proto::SurveyAnswer {
                kind: if destination.is_directory { DIRECTORY } else { DESTINATION },
                path: bytes_of(&destination.path),
                identity: destination.identity,
                ..proto::SurveyAnswer::default()
            },
            SurveyAnswer::Token(is_there) => proto::SurveyAnswer {
                kind: if *is_there { TOKEN } else { NO_TOKEN },
                ..proto::SurveyAnswer::default()
            },
            SurveyAnswer::Diagnosis(json) => proto::SurveyAnswer {
                kind: DIAGNOSIS,
                message: json.clone(),
                ..proto::SurveyAnswer::default()
            },
            SurveyAnswer::Failed(error) => {
                let proto::Failure { code, message, remedy, .. } = error.to_proto();
                let unset = proto::SurveyAnswer::default();
                proto::SurveyAnswer { kind: FAILED, code, message, remedy, ..unset }
            }
        }
    }

    fn from_proto(proto: proto::SurveyAnswer) -> Result<SurveyAnswer, WireError> {
        let field = "the path of an answer";
        Ok(match proto.kind {
            SOURCE => SurveyAnswer::Source(SurveyedSource {
                path: path(field, proto.path)?,
                bytes: proto.bytes,
                modified_seconds: proto.modified_seconds,
                identity: required("the identity of a source", proto.identity)?,
            }),
            DESTINATION | DIRECTORY => SurveyAnswer::Destination(SurveyedDestination {
                path: path(field, proto.path)?,
                is_directory: proto.kind == DIRECTORY,
                identity: proto.identity,
            }),
            TOKEN | NO_TOKEN => SurveyAnswer::Token(proto.kind == TOKEN),
            DIAGNOSIS => {
                let field = "the diagnosis of a machine";
                let json = text_within(field, proto.message, DIAGNOSIS_BYTES_MAX)?;
                SurveyAnswer::Diagnosis(json)
            }
            FAILED => {
                let proto::SurveyAnswer { code, message, remedy, .. } = proto;
                let unset = proto::Failure::default();
                let failure = proto::Failure { code, message, remedy, ..unset };
                SurveyAnswer::Failed(Error::from_proto(failure)?)
            }
            other => {
                let field = "the kind of an answer";
                return Err(WireError::Unknown { field, value: other.into() });
            }
        })
    }
}

const SOURCE: u32 = 1;
const DESTINATION: u32 = 2;
const DIRECTORY: u32 = 3;
const TOKEN: u32 = 4;
const NO_TOKEN: u32 = 5;
const FAILED: u32 = 6;
const DIAGNOSIS: u32 = 7;

fn bytes_of(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

fn path(field: &'static str, bytes: Vec<u8>) -> Result<PathBuf, WireError> {
    within(field, bytes.len(), PATH_BYTES_MAX)?;
    if bytes.contains(&0) {
        return Err(WireError::Contradiction { field });
    }
    Ok(PathBuf::from(OsString::from_vec(bytes)))
}
