//! A private sshd with keys, homes and shells of its own, and the `ssh` that knows its hosts: the
//! settings of the machine and of the user have no effect. Prints a note and returns `None` where
//! there is no OpenSSH.
#![allow(clippy::print_stderr, reason = "a skipped test says so")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, User};

use super::{code, folder, run, stderr};

const SSHD: &str = "/usr/sbin/sshd";
/// Far longer than an sshd takes to listen.
const LISTENS_WITHIN: Duration = Duration::from_secs(30);
/// Number of servers that this process has started: each has loopback addresses of its own.
static SERVERS: AtomicU8 = AtomicU8::new(0);

/// A host to which the `ssh` leads.
pub(crate) struct SshHost {
    name: String,
    shell: String,
    first: String,
    client: String,
}

impl SshHost {
    /// A host whose shell is `/bin/sh`.
    pub(crate) fn new(name: &str) -> SshHost {
        SshHost {
            name: name.into(),
            shell: "/bin/sh".into(),
            first: String::new(),
            client: String::new(),
        }
    }

    /// Returns the name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Sets the shell that runs commands, such as `/bin/csh`.
    pub(crate) fn shell(mut self, program: &str) -> SshHost {
        self.shell = program.into();
        self
    }

    /// Adds a command that runs before the shell, as a profile does. It is a line of `sh`.
    pub(crate) fn first(mut self, command: &str) -> SshHost {
        self.first += &format!("{command}; ");
        self
    }

    /// Adds a line to what the client knows of the host. It comes before the usual lines, and so
    /// goes before them: `StrictHostKeyChecking yes`, `Port 1`. `FOLDER` is that of the server.
    pub(crate) fn client(mut self, line: &str) -> SshHost {
        self.client += &format!("  {line}\n");
        self
    }
}

/// Keys, configurations, homes and the server. The server and its sessions end with this.
pub(crate) struct Sshd {
    folder: tempfile::TempDir,
    server: Child,
    hosts: Vec<(String, Ipv4Addr)>,
    port: u16,
}

impl Sshd {
    /// Starts a server to which the names of `hosts` lead; each has a home of its own.
    pub(crate) fn start(hosts: &[SshHost]) -> Option<Sshd> {
        Sshd::with(hosts, "")
    }

    /// Starts a server with `more` lines of `sshd_config`.
    pub(crate) fn with(hosts: &[SshHost], more: &str) -> Option<Sshd> {
        if !Path::new(SSHD).exists() {
            eprintln!("skipped: {SSHD} is missing (tools/bootstrap installs openssh-server)");
            return None;
        }
        // Debian's sshd needs its empty folder, which a service usually creates.
        if Uid::effective().is_root() {
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let folder = folder();
        make_keys(folder.path());
        let addresses = addresses(hosts.len());
        let port = TcpListener::bind((addresses[0], 0)).unwrap().local_addr().unwrap().port();
        let places: Vec<Place> = hosts
            .iter()
            .zip(&addresses)
            .map(|(host, address)| Place { host, address: SocketAddrV4::new(*address, port) })
            .collect();
        let home_and_programs = |host: &SshHost| [home(&folder, host), programs(&folder, host)];
        hosts.iter().flat_map(home_and_programs).for_each(|path| fs::create_dir_all(path).unwrap());
        configure_server(&folder, &places, more);
        configure_client(&folder, &places);
        let mut server = Command::new(SSHD)
            .args(["-D", "-e", "-f"])
            .arg(folder.path().join("sshd_config"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        until_listening(&said(&mut server), hosts.len());
        let names = hosts.iter().map(|host| host.name.clone());
        Some(Sshd { server, hosts: names.zip(addresses).collect(), port, folder })
    }

    /// Returns the `ssh` that knows the hosts.
    pub(crate) fn ssh(&self) -> PathBuf {
        self.folder.path().join("ssh")
    }

    /// Returns a folder that is removed with the server.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the home of a host.
    pub(crate) fn home(&self, name: &str) -> PathBuf {
        self.folder.path().join("homes").join(name)
    }

    /// Returns the folder that is first in the search path of a host.
    pub(crate) fn programs(&self, name: &str) -> PathBuf {
        self.folder.path().join("programs").join(name)
    }

    /// Returns the address to which a name leads.
    pub(crate) fn address(&self, name: &str) -> Ipv4Addr {
        self.hosts.iter().find(|host| host.0 == name).unwrap().1
    }

    /// Returns the port of the server.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Returns the process that listens.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.server.id().cast_signed())
    }

    /// Returns the processes of the server that each serve one connection.
    pub(crate) fn sessions(&self) -> Vec<Pid> {
        children(self.pid())
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let sessions = self.sessions();
        let _ = self.server.kill();
        let _ = self.server.wait();
        for session in sessions {
            let _ = kill(session, Signal::SIGKILL);
        }
    }
}

/// Returns the processes whose parent is `parent`.
pub(crate) fn children(parent: Pid) -> Vec<Pid> {
    let parent_of = |pid: i32| -> Option<i32> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name of the program is between parentheses, and may contain anything.
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
    };
    let pids = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| parent_of(*pid) == Some(parent.as_raw())).map(Pid::from_raw).collect()
}

/// A host and where it is reached.
struct Place<'a> {
    host: &'a SshHost,
    address: SocketAddrV4,
}

fn home(folder: &tempfile::TempDir, host: &SshHost) -> PathBuf {
    folder.path().join("homes").join(&host.name)
}

fn programs(folder: &tempfile::TempDir, host: &SshHost) -> PathBuf {
    folder.path().join("programs").join(&host.name)
}

/// Returns loopback addresses that no other server of this process has. Nodes of `--launch local`
/// are at 127.16.0.0 and above.
fn addresses(count: usize) -> Vec<Ipv4Addr> {
    let server = SERVERS.fetch_add(1, Ordering::Relaxed);
    let process = (std::process::id() % 14) as u8;
    let address =
        |host: usize| Ipv4Addr::new(127, 2 + process, server, u8::try_from(host).unwrap());
    (1..=count).map(address).collect()
}

/// Creates a key of the host, one of the user, and one that the server does not know.
fn make_keys(folder: &Path) {
    for name in ["host", "user", "stranger"] {
        let mut keygen = Command::new("ssh-keygen");
        let made = run(keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(folder.join(name)));
        assert_eq!(code(&made), 0, "{}", stderr(&made));
    }
    fs::copy(folder.join("user.pub"), folder.join("authorized")).unwrap();
}

/// Writes the configuration of the server. Sessions begin in the home of their host, with its shell
/// and its search path, whatever the user's are.
fn configure_server(folder: &tempfile::TempDir, places: &[Place<'_>], more: &str) {
    let at = folder.path().display();
    let mut text: String =
        places.iter().map(|place| format!("ListenAddress {}\n", place.address)).collect();
    text += &format!(
        "HostKey {at}/host\nAuthorizedKeysFile {at}/authorized\nPidFile none\nStrictModes no\n\
         UsePAM no\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n\
         KbdInteractiveAuthentication no\nPermitUserRC no\nPrintMotd no\nMaxStartups 200\n\
         Subsystem sftp internal-sftp\n{more}\n"
    );
    for place in places {
        let (home, programs) = (home(folder, place.host), programs(folder, place.host));
        text += &format!(
            "Match LocalAddress {address}\n  SetEnv \"HOME={home}\" \
             \"PATH={programs}:/usr/local/bin:/usr/bin:/bin\"\n  ForceCommand cd; {first}exec \
             {shell} -c \"$SSH_ORIGINAL_COMMAND\"\n",
            address = place.address.ip(),
            home = home.display(),
            programs = programs.display(),
            first = place.host.first,
            shell = place.host.shell,
        );
    }
    fs::write(folder.path().join("sshd_config"), text).unwrap();
}

/// Writes the configuration of the client, and the `ssh` that reads it.
fn configure_client(folder: &tempfile::TempDir, places: &[Place<'_>]) {
    let at = folder.path().display();
    let user = User::from_uid(Uid::effective()).unwrap().unwrap().name;
    let mut text = String::new();
    for Place { host, address } in places {
        let client = host.client.replace("FOLDER", &at.to_string());
        text += &format!("Host {}\n{client}  HostName {}\n", host.name, address.ip());
    }
    text += &format!(
        "Host *\n  Port {port}\n  User {user}\n  IdentityFile {at}/user\n  IdentitiesOnly yes\n  \
         IdentityAgent none\n  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n  \
         GlobalKnownHostsFile /dev/null\n  LogLevel ERROR\n",
        port = places[0].address.port(),
    );
    fs::write(folder.path().join("ssh_config"), text).unwrap();
    let wrapper = folder.path().join("ssh");
    // Its own path is never an argument, so that no quoting is needed.
    let script = "#!/bin/sh\nexec ssh -F \"${0%/*}/ssh_config\" \"$@\"\n";
    fs::write(&wrapper, script).unwrap();
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o700)).unwrap();
}

/// Passes on the lines of a server. They are always read, so that it never waits for a full pipe.
fn said(server: &mut Child) -> Receiver<String> {
    let lines = BufReader::new(server.stderr.take().unwrap()).lines();
    let (sender, heard) = channel();
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            // The test only hears the first of them.
            let _ = sender.send(line);
        }
    });
    heard
}

fn until_listening(heard: &Receiver<String>, addresses: usize) {
    let mut words = Vec::new();
    while words.iter().filter(|line: &&String| line.contains("listening on")).count() < addresses {
        let line = heard.recv_timeout(LISTENS_WITHIN);
        words.push(line.unwrap_or_else(|error| panic!("sshd: {error}: {words:?}")));
    }
}
