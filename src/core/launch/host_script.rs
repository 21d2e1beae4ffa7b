//! Host script: the command that a starter runs on a host. It is the same for every host: names,
//! paths and secrets go over its standard input.
//!
//! It looks for the program, in the search path and in the user's cache, and becomes it. Where
//! there is none of this version it says so, and stores the one that it is sent.
//!
//! The login shell reads it, whichever that is, and hands it to `sh`: between single quotes, with
//! nothing in it that csh or fish read there: no quote, no `!`, no backslash, no end of a line.

use crate::core::wire::version::VERSIONS;

/// Version of what a launcher and a started program say to each other.
const VERSION: u32 = 2;
/// First word of the lines by which the script speaks to the launcher.
const LEAD: &str = "cep-fast-launch";
/// Limit on a line of another host.
pub(crate) const LINE_BYTES_MAX: usize = 4096;

/// Returns the version of launching and of the protocol in one word: programs of one can start each
/// other.
pub(crate) fn dialect() -> String {
    format!("{VERSION}.{}", VERSIONS.max)
}

/// Returns the command for a host, as words, for the program of a release. A word for `$0` may
/// follow, and a path of the program, which is tried as well.
pub(crate) fn words(release: &str) -> [String; 3] {
    let script =
        SCRIPT.replace("DIALECT", &dialect()).replace("RELEASE", release).replace("LEAD", LEAD);
    // Lines are for readers of this file.
    let script = script.lines().map(str::trim).collect::<Vec<&str>>().join(" ");
    ["/bin/sh".into(), "-c".into(), script]
}

/// Statuses are those of the program; remedies follow its form. A program that is sent never
/// replaces one in place: it gets its name when it is whole and runs.
const SCRIPT: &str = r#"
u=$(umask); m=$(uname -m); d=${XDG_CACHE_HOME:-$HOME/.cache}/cep-fast;
f=$d/cep-fast-RELEASE-DIALECT-$m;
fail() { echo "cep-fast: $1" >&2; echo "  try: $2" >&2; exit "$3"; };
while :; do
for c in "$(command -v cep-fast)" "$1" "$f"; do
if [ -x "$c" ] && "$c" launched --speaks DIALECT </dev/null >/dev/null 2>&1; then
exec "$c" launched; fi; done;
echo "LEAD needs $(uname -s) $m $SLURMD_NODENAME"; read -r n h || exit 3;
if [ "$n" = again ]; then continue; fi;
umask 077; mkdir -p "$d" 2>/dev/null || fail "$d cannot be made"
"make it a directory that you can write to, or install cep-fast there" 5;
find "$d" -name ".new-*" -mmin +60 -exec rm -f {} + 2>/dev/null;
t=$d/.new-$h-$(uname -n)-$$; clean() { rm -f "$t"; }; trap clean HUP INT TERM EXIT;
{ echo : >"$t"; chmod 700 "$t"; "$t"; } 2>/dev/null; [ $? -ne 126 ] ||
fail "programs cannot run in $d" "allow them there, or install cep-fast" 5;
{ head -c "$n" >"$t"; } 2>/dev/null;
[ "$(wc -c <"$t" 2>/dev/null)" -eq "$n" ] ||
fail "$d has no room for the program of $n bytes, or cannot be written"
"make room there, or install cep-fast" 5;
chmod 700 "$t";
"$t" launched --is "$h" </dev/null >/dev/null 2>&1; s=$?;
case $s in 0) ;;
126|127) fail "the program that was sent cannot run there ($d, $m)"
"allow programs in $d, put a static build beside the own program (tools/release),
or install cep-fast for $m" 5;;
*) fail "the program that was sent does not run there (status $s, $m)"
"put a static build beside the own program (tools/release), or install cep-fast there" 5;; esac;
mv -f "$t" "$f" || fail "$f cannot be written" "make it a file that you can write to" 5;
for o in "$d"/cep-fast-*-"$m"; do [ "$o" = "$f" ] || rm -f "$o"; done;
umask "$u"; echo "LEAD stored"; done
"#;

/// A line of a host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum HostLine {
    /// The program runs, and waits for its orders. In a job it says on which host.
    Runs { host: Option<String> },
    /// There is none: a program for this system and machine is needed.
    Needs { system: String, machine: String, host: Option<String> },
    /// The program was stored, and is looked for again.
    Stored,
    /// The program has dialled the node: what follows is the node's.
    Dialled,
}

impl HostLine {
    /// Parses a line; `None` if it is something else, such as a banner.
    pub(crate) fn parse(line: &str) -> Option<HostLine> {
        let mut words = line.split_ascii_whitespace();
        if words.next() != Some(LEAD) {
            return None;
        }
        let owned = |word: Option<&str>| word.map(str::to_owned);
        let heard = match (words.next()?, words.next(), words.next()) {
            ("runs", host, None) => HostLine::Runs { host: owned(host) },
            ("stored", None, None) => HostLine::Stored,
            ("dialled", None, None) => HostLine::Dialled,
            ("needs", Some(system), Some(machine)) => HostLine::Needs {
                system: system.to_owned(),
                machine: machine.to_owned(),
                host: owned(words.next()),
            },
            _ => return None,
        };
        words.next().is_none().then_some(heard)
    }
}

/// Returns the line by which the program says that it runs, on which host of a job if it is in one.
pub(crate) fn runs(host: Option<&str>) -> String {
    format!("{LEAD} runs {}", host.unwrap_or_default()).trim_end().to_owned()
}

/// Returns the line by which the program says that it has dialled a node.
pub(crate) fn dialled() -> String {
    format!("{LEAD} dialled")
}

/// Returns the answer to a host that needs the program, before its bytes.
pub(crate) fn sends(bytes: u64, hash: &str) -> String {
    format!("{bytes} {hash}\n")
}

/// Returns the number of bytes that follow, if a line is such an answer. Hosts that share one
/// standard input see what others are sent.
pub(crate) fn skips(line: &str) -> Option<u64> {
    let (bytes, hash) = line.split_once(' ')?;
    let is_hash = hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    bytes.parse().ok().filter(|_| is_hash)
}

/// The answer to a host that needs the program, when it may have come there another way.
pub(crate) const LOOK_AGAIN: &str = "again\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_shell_reads_anything_in_the_script() {
        let [.., script] = words("0.1.0");
        for forbidden in ["'", "!", "\\", "\n", "RELEASE", "DIALECT", "LEAD"] {
            assert!(!script.contains(forbidden), "{forbidden:?} in {script}");
        }
    }

    #[test]
    fn lines_of_the_script_and_of_banners_are_told_apart() {
        let needs = |host: Option<&str>| HostLine::Needs {
            system: "Linux".into(),
            machine: "x86_64".into(),
            host: host.map(String::from),
        };
        let host = Some("node1".to_owned());
        let cases = [
            (runs(None).as_str(), Some(HostLine::Runs { host: None })),
            (runs(Some("node1")).as_str(), Some(HostLine::Runs { host })),
            ("cep-fast-launch stored\r", Some(HostLine::Stored)),
            (dialled().as_str(), Some(HostLine::Dialled)),
            ("cep-fast-launch needs Linux x86_64 ", Some(needs(None))),
            ("cep-fast-launch needs Linux x86_64 node1", Some(needs(Some("node1")))),
            ("cep-fast-launch needs Linux x86_64 node1 x", None),
            ("cep-fast-launch needs Linux", None),
            ("cep-fast-launch runs far away", None),
            ("Welcome to cep-fast-launch runs", None),
            ("", None),
        ]
        .map(|(line, expected)| (line.to_owned(), expected));
        for (line, expected) in cases {
            assert_eq!(HostLine::parse(&line), expected, "{line}");
        }
    }

    #[test]
    fn bytes_for_other_hosts_are_skipped_and_orders_are_not() {
        let hash = "0f".repeat(32);
        assert_eq!(skips(sends(77, &hash).trim_end()), Some(77));
        for line in ["again", "{\"port\":0}", "77 abc", "x 0f", ""] {
            assert_eq!(skips(line), None, "{line}");
        }
    }
}
