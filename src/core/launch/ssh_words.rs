//! Words of ssh: what it says when it fails, as errors that name the host and a remedy.
//!
//! OpenSSH ends with 255 for everything that goes wrong before the command runs, so that only its
//! words tell a refused key from a wrong name. They are in English under every locale.

use crate::core::error::{Code, Error};
use crate::core::units::printable;

/// Limit on what an error quotes of a line.
const QUOTED_MAX: usize = 240;

/// Kind of failure, known by a line that contains all of `words`.
pub(super) struct FailureKind {
    pub(super) words: &'static [&'static str],
    pub(super) code: Code,
    pub(super) what: &'static str,
    /// `HOST` stands for the name of the host.
    pub(super) remedy: &'static str,
}

impl FailureKind {
    /// Returns true for a line that contains all of its words.
    pub(super) fn fits(&self, line: &str) -> bool {
        self.words.iter().all(|word| line.contains(word))
    }
}

pub(super) const fn kind(
    words: &'static [&'static str],
    code: Code,
    what: &'static str,
    remedy: &'static str,
) -> FailureKind {
    FailureKind { words, code, what, remedy }
}

const CHANGED: &str = "ask whether it was installed anew; if it was: ssh-keygen -R HOST, then ssh \
                       HOST true";
const UNKNOWN_KEY: &str = "confirm the key once with ssh HOST true, or add it to known_hosts";
const NO_KEY: &str = "add your key to its authorized_keys and to your agent (ssh-add), or keep a \
                      session of yours open (ControlMaster); no password is asked for";
const MANY_KEYS: &str = "name the one key for it in ~/.ssh/config (IdentityFile, IdentitiesOnly \
                         yes)";
const NO_ACCOUNT: &str = "log in once with ssh HOST; if that fails, ask for an account with a \
                          shell there";
const NAME: &str = "check the name: ssh HOST true has to work";
const PORT: &str = "look whether sshd runs there, or name its port in ~/.ssh/config";
const ROUTE: &str = "look whether it is up and reached from here: ssh HOST true has to work";
const JUMP: &str = "look at ProxyJump and ProxyCommand in ~/.ssh/config: ssh HOST true has to work";
const STARTUPS: &str = "try again; if this goes on, raise MaxStartups in its sshd_config, or look \
                        for a firewall that cuts connections";
const ENDED: &str = "run the same again, which resumes; the log of its sshd says why";
const CONFIGURATION: &str = "correct ~/.ssh/config or --ssh: ssh HOST true has to work";
const ALGORITHMS: &str = "allow what it offers in ~/.ssh/config, or update its sshd";
const RESTRICTED: &str = "ask for a shell there that runs /bin/sh";
const ROOM: &str = "make room or rights in your home there, or install cep-fast there";
const UNCLEAR: &str = "look what ssh -v HOST true says";

/// The first that fits a line is meant: what names a cause comes before what only follows from it.
const KINDS: [FailureKind; 33] = [
    kind(
        &["IDENTIFICATION HAS CHANGED"],
        Code::Refused,
        "its host key is not the one that is known",
        CHANGED,
    ),
    kind(&["has changed and you"], Code::Refused, "its host key is not the known one", CHANGED),
    kind(
        &["Host key verification failed"],
        Code::Refused,
        "its host key is not known here",
        UNKNOWN_KEY,
    ),
    kind(
        &["Too many authentication failures"],
        Code::Refused,
        "it refused before the right key was tried",
        MANY_KEYS,
    ),
    kind(&["Permission denied ("], Code::Refused, "it refused to log in", NO_KEY),
    kind(&["Permission denied, please"], Code::Refused, "it refused to log in", NO_KEY),
    kind(
        &["account is currently not available"],
        Code::Refused,
        "this account has no shell there",
        NO_ACCOUNT,
    ),
    kind(&["account has expired"], Code::Refused, "this account has expired there", NO_ACCOUNT),
    kind(&["assword change required"], Code::Refused, "it wants a new password", NO_ACCOUNT),
    kind(&["assword has expired"], Code::Refused, "it wants a new password", NO_ACCOUNT),
    kind(&["administratively prohibited"], Code::Refused, "the way to it is forbidden", JUMP),
    kind(&["no matching "], Code::Refused, "it and ssh have no algorithm in common", ALGORITHMS),
    kind(&["restricted"], Code::Refused, "its shell is restricted", RESTRICTED),
    kind(&["Bad configuration option"], Code::Usage, "ssh is configured wrongly", CONFIGURATION),
    kind(&["Bad owner or permissions"], Code::Usage, "ssh is configured wrongly", CONFIGURATION),
    kind(&["open user config file"], Code::Usage, "ssh is configured wrongly", CONFIGURATION),
    kind(&["Bad port "], Code::Usage, "ssh is configured wrongly", CONFIGURATION),
    kind(&["unknown option -- "], Code::Usage, "ssh takes no such option", CONFIGURATION),
    kind(&["Could not resolve hostname"], Code::Unreachable, "ssh does not know the name", NAME),
    kind(
        &["connect to host", "Connection refused"],
        Code::Unreachable,
        "nothing listens for ssh there",
        PORT,
    ),
    kind(&["No route to host"], Code::Unreachable, "no way leads to it", ROUTE),
    kind(&["Network is unreachable"], Code::Unreachable, "no way leads to it", ROUTE),
    kind(&["during banner exchange"], Code::Unreachable, "its sshd did not answer", ROUTE),
    kind(&["timed out"], Code::Unreachable, "it did not answer", ROUTE),
    kind(&["stdio forwarding failed"], Code::Unreachable, "its jump host did not reach it", JUMP),
    kind(&["UNKNOWN port"], Code::Unreachable, "the command that leads to it ended", JUMP),
    kind(
        &["kex_exchange_identification"],
        Code::Unreachable,
        "it closed the connection before the log-in",
        STARTUPS,
    ),
    kind(
        &["connect to host", "reset by peer"],
        Code::Unreachable,
        "it closed the connection before the log-in",
        STARTUPS,
    ),
    kind(&["No space left"], Code::Data, "there is no room for the program", ROOM),
    kind(&["quota exceeded"], Code::Data, "there is no room for the program", ROOM),
    kind(&["Read-only file system"], Code::Data, "the program cannot be stored", ROOM),
    kind(&["Connection to ", "closed by remote"], Code::Unreachable, "its session ended", ENDED),
    kind(&["Timeout, server"], Code::Unreachable, "its session ended", ENDED),
];

/// Returns the error of a starter that ended with `status` before a node ran on `host`, from its
/// last lines; no status is a signal. The message begins with the host.
pub(crate) fn ssh_failure(host: &str, status: Option<i32>, words: &[String]) -> Error {
    let found = KINDS
        .iter()
        .find_map(|kind| words.iter().find(|line| kind.fits(line)).map(|line| (kind, line)));
    let (code, what, line, remedy) = match (found, status) {
        (Some((kind, line)), _) => {
            (kind.code, kind.what.to_owned(), Some(line.as_str()), kind.remedy)
        }
        (None, Some(126 | 127)) => (
            Code::Unreachable,
            "its shell could not run the command".to_owned(),
            last(words),
            RESTRICTED,
        ),
        (None, Some(255)) => {
            (Code::Unreachable, "its session ended".to_owned(), last(words), UNCLEAR)
        }
        (None, Some(status)) => {
            let what = format!("its session ended with status {status}");
            (Code::Unreachable, what, last(words), UNCLEAR)
        }
        (None, None) => {
            (Code::Unreachable, "its session was killed here".to_owned(), last(words), ENDED)
        }
    };
    let message = match line {
        Some(line) => format!("{what}: {}", quoted(line)),
        None => format!("{what}, and nothing was said"),
    };
    Error::new(code, message).remedy(remedy.replace("HOST", host)).at(host)
}

fn last(words: &[String]) -> Option<&str> {
    words.iter().map(String::as_str).rfind(|line| !line.trim().is_empty())
}

/// Returns a line in a form that fits a sentence.
pub(super) fn quoted(line: &str) -> String {
    let line = line.trim_matches(|letter: char| letter == '@' || letter.is_whitespace());
    let short: String = line.chars().take(QUOTED_MAX).collect();
    let is_whole = short.len() == line.len();
    printable(short.trim_end_matches('.')).into_owned() + if is_whole { "" } else { "…" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(status: Option<i32>, words: &str) -> Error {
        let words: Vec<String> = words.lines().map(String::from).collect();
        ssh_failure("dtn1", status, &words)
    }

    /// The words are those of OpenSSH 9.2.
    #[test]
    fn every_failure_of_ssh_has_its_code_and_its_remedy() {
        let cases = [
            (
                "ssh: Could not resolve hostname dtn1: Name or service not known",
                Code::Unreachable,
                "check the name",
            ),
            (
                "ssh: connect to host dtn1 port 22: Connection refused",
                Code::Unreachable,
                "sshd runs there",
            ),
            (
                "ssh: connect to host dtn1 port 22: No route to host",
                Code::Unreachable,
                "reached from here",
            ),
            (
                "ssh: connect to host dtn1 port 22: Connection timed out",
                Code::Unreachable,
                "reached from here",
            ),
            (
                "Connection timed out during banner exchange\nConnection to 10.255.255.1 port 22 \
                 timed out",
                Code::Unreachable,
                "reached from here",
            ),
            ("Host key verification failed.", Code::Refused, "ssh dtn1 true"),
            (CHANGED_KEY, Code::Refused, "ssh-keygen -R dtn1"),
            (
                "root@dtn1: Permission denied (publickey,password,keyboard-interactive).",
                Code::Refused,
                "authorized_keys",
            ),
            (
                "Received disconnect from 127.9.9.9 port 22099:2: Too many authentication \
                 failures\nDisconnected from 127.9.9.9 port 22099",
                Code::Refused,
                "IdentitiesOnly",
            ),
            (
                "Unable to negotiate with 127.9.9.9 port 22099: no matching host key type found. \
                 Their offer: ssh-ed25519",
                Code::Refused,
                "offers",
            ),
            (
                "kex_exchange_identification: Connection closed by remote host\nConnection closed \
                 by 127.9.9.9 port 22099",
                Code::Unreachable,
                "MaxStartups",
            ),
            (
                "kex_exchange_identification: read: Connection reset by peer",
                Code::Unreachable,
                "MaxStartups",
            ),
            (
                "ssh: connect to host 127.9.9.9 port 22097: Connection reset by peer",
                Code::Unreachable,
                "MaxStartups",
            ),
            (
                "kex_exchange_identification: Connection closed by remote host\nConnection closed \
                 by UNKNOWN port 65535",
                Code::Unreachable,
                "ProxyJump",
            ),
            (
                "ssh: connect to host 127.9.9.9 port 1: Connection refused\n\
                 kex_exchange_identification: Connection closed by remote host\nConnection closed \
                 by UNKNOWN port 65535",
                Code::Unreachable,
                "sshd runs there",
            ),
            ("command-line: line 0: Bad configuration option: nosuch", Code::Usage, "--ssh"),
            (
                "Can't open user config file /nosuch: No such file or directory",
                Code::Usage,
                "--ssh",
            ),
            ("Bad port '99999'", Code::Usage, "--ssh"),
            ("unknown option -- Z\nusage: ssh [-46AaCfGgKkMNnqsTtVvXxYy]", Code::Usage, "--ssh"),
            ("Connection to 127.9.9.9 closed by remote host.", Code::Unreachable, "resumes"),
            ("Timeout, server 127.9.9.9 not responding.", Code::Unreachable, "resumes"),
        ];
        for (words, code, remedy) in cases {
            let error = failure(Some(255), words);
            assert_eq!(error.code, code, "{words}: {error}");
            assert!(error.message.starts_with("dtn1: "), "{error}");
            assert!(error.remedy.as_deref().is_some_and(|said| said.contains(remedy)), "{error}");
        }
    }

    /// What comes before the log-in, of a known name with another key.
    const CHANGED_KEY: &str = "\
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!
Someone could be eavesdropping on you right now (man-in-the-middle attack)!
It is also possible that a host key has just been changed.
The fingerprint for the ED25519 key sent by the remote host is
SHA256:7J3SQIApb94kSoXp1bcWXiHL9FLJesIbRG1O3zy8Bl0.
Please contact your system administrator.
Host key verification failed.";

    #[test]
    fn words_of_the_host_have_their_code_under_any_status() {
        let cases = [
            (1, "This account is currently not available.", Code::Refused),
            (127, "bash: /bin/sh: restricted: cannot specify `/' in command names", Code::Refused),
            (127, "fish: Unknown command: /bin/sh", Code::Unreachable),
            (126, "bash: /bin/sh: Permission denied", Code::Unreachable),
            (1, "head: write error: No space left on device", Code::Data),
            (1, "mkdir: cannot create directory '/home/u': Read-only file system", Code::Data),
        ];
        for (status, words, code) in cases {
            assert_eq!(failure(Some(status), words).code, code, "{words}");
        }
    }

    #[test]
    fn a_warning_before_the_cause_is_not_taken_for_it() {
        let words = "Control socket connect(/tmp/m): Connection refused\nssh: connect to host \
                     dtn1 port 22: Connection timed out";
        assert!(failure(Some(255), words).message.contains("it did not answer"));
    }

    #[test]
    fn what_is_said_is_bounded_and_printable() {
        let error = failure(Some(255), &format!("\x1b[2J{}", "x".repeat(100_000)));
        assert!(error.message.len() < 2 * QUOTED_MAX, "{}", error.message.len());
        assert!(!error.message.contains('\x1b'), "{error:?}");
        let silent = failure(Some(137), "\n\n");
        assert!(silent.message.contains("137") && silent.message.contains("nothing"), "{silent}");
        assert_eq!(failure(None, "").code, Code::Unreachable);
    }
}
