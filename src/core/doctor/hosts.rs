//! Diagnoses of many hosts: what differs between them, and which shortfall is on which of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Diagnosis of a host, as its own program has told it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct HostDiagnosis {
    kernel: String,
    path: String,
    #[serde(default)]
    nics: Vec<HostNic>,
    findings: Vec<HostFinding>,
}

/// A NIC of a host.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct HostNic {
    name: String,
    #[serde(rename = "use")]
    usage: String,
    speed_mbit: Option<u64>,
    mtu: u64,
    driver: Option<String>,
}

/// A finding of a host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
struct HostFinding {
    level: String,
    about: String,
    found: String,
    cost: Option<String>,
    remedy: Option<String>,
}

/// Level of findings that keep a host from line rate.
const SHORTFALL: &str = "shortfall";
/// Use of NICs that carry data.
const RAIL: &str = "rail";

/// Comparison of hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct HostComparison {
    /// Shortfalls of all hosts together.
    pub(crate) shortfalls: usize,
    pub(crate) differences: Vec<HostDifference>,
    /// The most widespread first.
    pub(crate) findings: Vec<SharedFinding>,
}

/// A property that is not the same on all hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct HostDifference {
    pub(crate) about: String,
    /// The most widespread first.
    pub(crate) values: Vec<SharedValue>,
}

/// A value of a property, and the hosts that have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct SharedValue {
    pub(crate) value: String,
    pub(crate) hosts: Vec<String>,
}

/// A shortfall, and the hosts that have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct SharedFinding {
    pub(crate) hosts: Vec<String>,
    pub(crate) level: String,
    pub(crate) about: String,
    pub(crate) found: String,
    pub(crate) cost: Option<String>,
    pub(crate) remedy: Option<String>,
}

impl HostComparison {
    /// Compares hosts, in their order.
    pub(crate) fn of(hosts: &[(String, HostDiagnosis)]) -> HostComparison {
        let mut findings: BTreeMap<&HostFinding, Vec<String>> = BTreeMap::new();
        for (host, diagnosis) in hosts {
            let shortfalls = diagnosis.findings.iter().filter(|it| it.level == SHORTFALL);
            for finding in shortfalls {
                let hosts = findings.entry(finding).or_default();
                if hosts.last() != Some(host) {
                    hosts.push(host.clone());
                }
            }
        }
        let mut findings: Vec<SharedFinding> = findings
            .into_iter()
            .map(|(finding, hosts)| {
                let HostFinding { level, about, found, cost, remedy } = finding.clone();
                SharedFinding { hosts, level, about, found, cost, remedy }
            })
            .collect();
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.hosts.len()));
        let shortfalls = findings.iter().map(|finding| finding.hosts.len()).sum();
        HostComparison { shortfalls, differences: differences(hosts), findings }
    }
}

/// Returns what is not the same on all hosts.
fn differences(hosts: &[(String, HostDiagnosis)]) -> Vec<HostDifference> {
    let properties: Vec<BTreeMap<String, String>> =
        hosts.iter().map(|(_, diagnosis)| properties(diagnosis)).collect();
    let mut names: Vec<&String> = properties.iter().flat_map(BTreeMap::keys).collect();
    names.sort_unstable();
    names.dedup();
    let difference = |name: &&String| {
        let mut values: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for ((host, _), properties) in hosts.iter().zip(&properties) {
            let value = properties.get(*name).map_or("none", String::as_str);
            values.entry(value).or_default().push(host.clone());
        }
        let mut values: Vec<SharedValue> = values
            .into_iter()
            .map(|(value, hosts)| SharedValue { value: value.to_owned(), hosts })
            .collect();
        values.sort_by_key(|value| std::cmp::Reverse(value.hosts.len()));
        (values.len() > 1).then(|| HostDifference { about: (*name).clone(), values })
    };
    names.iter().filter_map(difference).collect()
}

/// Returns what should be the same on all hosts, by name.
fn properties(diagnosis: &HostDiagnosis) -> BTreeMap<String, String> {
    let mut properties = BTreeMap::from([
        ("data path".to_owned(), diagnosis.path.clone()),
        ("kernel".to_owned(), diagnosis.kernel.clone()),
    ]);
    for nic in diagnosis.nics.iter().filter(|nic| nic.usage == RAIL) {
        let mut add = |what: &str, value: String| {
            properties.insert(format!("{} {what}", nic.name), value);
        };
        let speed = nic.speed_mbit.map(|mbit| format!("{mbit} Mbit/s"));
        add("speed", speed.unwrap_or_else(|| "unknown".to_owned()));
        add("MTU", nic.mtu.to_string());
        add("driver", nic.driver.clone().unwrap_or_else(|| "unknown".to_owned()));
    }
    properties
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn host(name: &str, mtu: u32, findings: &str) -> (String, HostDiagnosis) {
        let json = format!(
            r#"{{"shortfalls":1,"kernel":"6.12","path":"plain","nics":[
                {{"name":"lo","use":"loopback","speed_mbit":null,"mtu":65536,"driver":null}},
                {{"name":"eth0","use":"rail","speed_mbit":10000,"mtu":{mtu},"driver":"ice"}}],
                "findings":[{findings}]}}"#
        );
        (name.to_owned(), serde_json::from_str(&json).unwrap())
    }

    const RING: &str = r#"{"level":"shortfall","about":"io_uring","found":"none","cost":"CPU",
        "remedy":"sysctl"}"#;
    const NOTE: &str = r#"{"level":"note","about":"MTU","found":"1500","cost":null,"remedy":null}"#;
    const LOCKED: &str = r#"{"level":"shortfall","about":"memlock","found":"little","cost":null,
        "remedy":null}"#;

    #[test]
    fn what_differs_is_told_with_the_hosts_that_have_it() {
        let hosts = [host("a", 9000, ""), host("b", 1500, NOTE), host("c", 9000, "")];
        let compared = HostComparison::of(&hosts);
        assert_eq!((compared.shortfalls, &compared.findings[..]), (0, &[][..]));
        let [only] = &compared.differences[..] else { panic!("{compared:?}") };
        let value = |value: &str, hosts: &[&str]| SharedValue {
            value: value.to_owned(),
            hosts: hosts.iter().map(ToString::to_string).collect(),
        };
        assert_eq!(only.about, "eth0 MTU");
        assert_eq!(only.values, [value("9000", &["a", "c"]), value("1500", &["b"])]);
    }

    #[test]
    fn a_shortfall_of_several_hosts_is_told_once() {
        let both = format!("{RING},{LOCKED}");
        let hosts = [host("a", 1500, LOCKED), host("b", 1500, &both), host("c", 1500, NOTE)];
        let compared = HostComparison::of(&hosts);
        assert_eq!((compared.shortfalls, compared.differences.len()), (3, 0));
        let told: Vec<(&str, usize)> =
            compared.findings.iter().map(|it| (it.about.as_str(), it.hosts.len())).collect();
        assert_eq!(told, [("memlock", 2), ("io_uring", 1)]);
        assert_eq!(compared.findings[1].hosts, ["b"]);
    }

    #[test]
    fn a_nic_that_a_host_lacks_differs() {
        let (name, mut without) = host("b", 1500, "");
        without.nics.pop();
        let compared = HostComparison::of(&[host("a", 1500, ""), (name, without)]);
        let about: Vec<&str> = compared.differences.iter().map(|it| it.about.as_str()).collect();
        assert_eq!(about, ["eth0 MTU", "eth0 driver", "eth0 speed"]);
        assert_eq!(compared.differences[0].values[1].value, "none");
    }
}
