//! Tables of rows and errors that follow from answers.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::super::files::group;
use super::*;
use crate::core::wire::control::{SurveyAnswer, SurveyedDestination};

fn operand(hosts: &str, path: &str) -> CopyOperand {
    CopyOperand {
        hosts: hosts.split(',').map(String::from).collect(),
        path: path.into(),
        typed: format!("{hosts}:{path}"),
        user: None,
        is_local: false,
    }
}

/// What hosts say.
#[derive(Default)]
struct Said(SurveyFacts);

impl Said {
    fn source(mut self, host: &str, path: &str, bytes: u64, identity: u64) -> Said {
        let found = SurveyedSource {
            path: Path::new("/home").join(path),
            bytes,
            modified_seconds: 7,
            identity,
        };
        let question = question(host, Path::new(path), SurveySubject::Source);
        self.0.add(question, SurveyAnswer::Source(found));
        self
    }

    fn modified(mut self, host: &str, path: &str, bytes: u64, modified_seconds: i64) -> Said {
        let (path, identity) = (PathBuf::from(path), bytes);
        let found = SurveyedSource { path: path.clone(), bytes, modified_seconds, identity };
        self.0.add(question(host, &path, SurveySubject::Source), SurveyAnswer::Source(found));
        self
    }

    fn destination(
        mut self,
        host: &str,
        path: &str,
        is_directory: bool,
        identity: Option<u64>,
    ) -> Said {
        let rooted = Path::new("/home").join(path);
        let found = SurveyedDestination { path: rooted, is_directory, identity };
        let question = question(host, Path::new(path), SurveySubject::Destination);
        self.0.add(question, SurveyAnswer::Destination(found));
        self
    }

    fn failed(mut self, host: &str, path: &str, subject: SurveySubject) -> Said {
        let error = Error::new(Code::Refused, "it is secret").remedy("ask its owner");
        self.0.add(question(host, Path::new(path), subject), SurveyAnswer::Failed(error));
        self
    }
}

/// Rows in short: role, host, path, range, group.
fn made(
    sources: &[CopyOperand],
    destination: &CopyOperand,
    shares: &[&[&str]],
    said: &Said,
) -> Result<(Vec<String>, Vec<String>)> {
    let files = group(sources.to_vec()).unwrap();
    let shares: Vec<Vec<String>> =
        shares.iter().map(|set| set.iter().map(ToString::to_string).collect()).collect();
    let targets = targets(&files, destination, &said.0)?;
    let address = |host: &str| NodeAddress { host: host.to_owned(), port: 1 };
    let CopyRows { rows, warnings } = rows(&files, &targets, &shares, &said.0, address)?;
    let short = |row: Row| {
        let role = if row.role == RowRole::Sender { "from" } else { "to" };
        let group = row.group.map(|group| format!(" [{group}]")).unwrap_or_default();
        format!("{role} {} {} {}{group}", row.node, row.uri, row.range.end - row.range.start)
    };
    Ok((rows.into_iter().map(short).collect(), warnings))
}

#[test]
fn a_file_goes_to_the_path_or_into_the_directory_that_is_there() {
    let source = [operand("a", "/x")];
    for (is_directory, expected) in [(false, "file:///d"), (true, "file:///d/x")] {
        let said =
            Said::default().source("a", "/x", 5, 1).destination("b", "/d", is_directory, None);
        let (rows, warnings) = made(&source, &operand("b", "/d"), &[], &said).unwrap();
        assert_eq!(rows, ["from a:1 file:///x 5".to_owned(), format!("to b:1 {expected} 5")]);
        assert!(warnings.is_empty(), "{warnings:?}");
    }
    // Relative paths are where the hosts say.
    let said = Said::default().source("a", "x", 5, 1).destination("b", "", true, None);
    let (rows, _) = made(&[operand("a", "x")], &operand("b", ""), &[], &said).unwrap();
    assert_eq!(rows, ["from a:1 file:///home/x 5", "to b:1 file:///home/x 5"]);
}

#[test]
fn every_host_holds_a_replica_and_every_destination_gets_a_copy() {
    let said = Said::default()
        .source("a", "/x", 5, 1)
        .source("b", "/x", 5, 2)
        .source("c", "/e/x", 5, 3)
        .source("a", "/y", 0, 4)
        .destination("d", "/d", true, None)
        .destination("e", "/d", true, None);
    let sources = [operand("a,b", "/x"), operand("c", "/e/x"), operand("a", "/y")];
    let (rows, _) = made(&sources, &operand("d,e", "/d"), &[&["d"], &["e"]], &said).unwrap();
    assert_eq!(
        rows,
        [
            "from a:1 file:///x 5",
            "from b:1 file:///x 5",
            "from c:1 file:///e/x 5",
            "to d:1 file:///d/x 5",
            "to e:1 file:///d/x 5",
            "from a:1 file:///y 0",
            "to d:1 file:///d/y 0",
            "to e:1 file:///d/y 0",
        ]
    );
}

#[test]
fn hosts_that_share_the_destination_are_a_group_and_the_others_are_none() {
    let hosts = ["b", "c", "d", "e", "f"];
    let mut said = Said::default().source("a", "/x", 5, 1).source("a", "/empty", 0, 2);
    for host in hosts {
        said = said.destination(host, "/d", true, None);
    }
    let sources = [operand("a", "/x"), operand("a", "/empty")];
    let shares: [&[&str]; 3] = [&["b", "d"], &["c"], &["e", "f"]];
    let (rows, _) = made(&sources, &operand("b,c,d,e,f", "/d"), &shares, &said).unwrap();
    assert_eq!(
        rows[1..6],
        [
            "to b:1 file:///d/x 5 [shared 1]",
            "to c:1 file:///d/x 5",
            "to d:1 file:///d/x 5 [shared 1]",
            "to e:1 file:///d/x 5 [shared 3]",
            "to f:1 file:///d/x 5 [shared 3]",
        ]
    );
    assert!(rows[7..].iter().all(|row| row.ends_with("empty 0")), "a part of nothing: {rows:?}");
}

#[test]
fn what_cannot_be_copied_is_refused_by_name() {
    use SurveySubject::{Destination, Source};
    let said = Said::default;
    let one = || said().source("a", "/x", 5, 1);
    type Case = (
        &'static [(&'static str, &'static str)],
        (&'static str, &'static str),
        Said,
        Code,
        &'static str,
    );
    let cases: [Case; 11] = [
        (
            &[("a", "/x")],
            ("b", "/d"),
            said().failed("a", "/x", Source).destination("b", "/d", false, None),
            Code::Refused,
            "a:/x: it is secret",
        ),
        (
            &[("a,c", "/x")],
            ("b", "/d"),
            one().failed("c", "/x", Source).destination("b", "/d", false, None),
            Code::Refused,
            "c:/x: it is secret",
        ),
        (
            &[("a", "/x")],
            ("b,c", "/d"),
            one().destination("b", "/d", true, None).failed("c", "/d", Destination),
            Code::Refused,
            "c:/d: it is secret",
        ),
        (
            &[("a", "/x")],
            ("b", "/d/"),
            one().destination("b", "/d/", false, None),
            Code::Data,
            "b:/d/ is no directory",
        ),
        (
            &[("a", "/x")],
            ("b,c", "/d"),
            one().destination("b", "/d", true, None).destination("c", "/d", false, None),
            Code::Usage,
            "c:/d is no directory, and it is",
        ),
        (
            &[("a", "/x"), ("a", "/y")],
            ("b", "/d"),
            one().source("a", "/y", 1, 2).destination("b", "/d", false, None),
            Code::Usage,
            "x and y are two files, and b:/d is no directory",
        ),
        (
            &[("a,c", "/x")],
            ("b", "/d"),
            one().source("c", "/x", 6, 2).destination("b", "/d", false, None),
            Code::Integrity,
            "a:/x has 5 bytes and c:/x has 6: they are not replicas",
        ),
        (
            &[("a", "/x"), ("c", "/e/x")],
            ("b", "/d"),
            one().source("c", "/e/x", 6, 2).destination("b", "/d", false, None),
            Code::Integrity,
            "a:/x has 5 bytes and c:/e/x has 6",
        ),
        (
            &[("a", "/x")],
            ("b", "/d"),
            one().destination("b", "/d", false, Some(1)),
            Code::Usage,
            "a:/x is both source and destination",
        ),
        (
            &[("a", "/x")],
            ("b", "/d"),
            one()
                .destination("b", "/d", true, None)
                .destination("b", "/home/d/x", false, Some(2))
                .destination("b", "/d/x", false, Some(1)),
            Code::Usage,
            "a:/x is both source and destination",
        ),
        (
            &[("a", "/x"), ("a", "/y")],
            ("b", "/d"),
            said()
                .source("a", "/x", u64::MAX - (1 << 20), 1)
                .source("a", "/y", 1 << 20, 2)
                .destination("b", "/d", true, None),
            Code::Usage,
            "more than 2^64 bytes",
        ),
    ];
    for (sources, (hosts, path), said, code, expected) in cases {
        let sources: Vec<CopyOperand> =
            sources.iter().map(|(hosts, path)| operand(hosts, path)).collect();
        let error = made(&sources, &operand(hosts, path), &[], &said).unwrap_err();
        assert_eq!(error.code, code, "{error}");
        assert!(error.message.contains(expected), "{expected}: {error}");
        assert!(error.remedy.is_some(), "{error}");
    }
}

#[test]
fn replicas_of_different_times_are_a_warning() {
    let said = Said::default()
        .modified("a", "/x", 5, 1)
        .modified("b", "/x", 5, 2)
        .modified("c", "/x", 5, 1)
        .destination("d", "/d", false, None);
    let (_, warnings) = made(&[operand("a,b,c", "/x")], &operand("d", "/d"), &[], &said).unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].starts_with("a:/x and b:/x were modified at different times"));
}

#[test]
fn only_hosts_that_may_have_a_source_are_asked_what_is_there() {
    let said =
        Said::default().destination("b", "/d", true, None).destination("c", "/d", true, None);
    let files = group(vec![operand("a", "/x"), operand("a", "/y")]).unwrap();
    let targets = targets(&files, &operand("b,c", "/d"), &said.0).unwrap();
    let asked = target_questions(&targets, |host| host == "c");
    let asked: Vec<String> =
        asked.iter().map(|(host, it)| format!("{host}:{}", it.path.display())).collect();
    assert_eq!(asked, ["c:/d/x", "c:/d/y"]);
}

#[test]
fn hosts_that_are_to_share_and_do_not_are_named() {
    let sets = |sets: &[&[&str]]| -> Vec<Vec<String>> {
        sets.iter().map(|set| set.iter().map(ToString::to_string).collect()).collect()
    };
    check_split(&sets(&[&["a", "b", "c"]]), "a,b,c:/d").unwrap();
    let error = check_split(&sets(&[&["a", "c"], &["b"]]), "a,b,c:/d").unwrap_err();
    assert_eq!(error.code, Code::Usage);
    assert!(error.message.contains("b does not see what a makes there"), "{error}");
}
