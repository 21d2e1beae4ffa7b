//! Rights of one public key.

use std::collections::BTreeSet;

use crate::core::spec::{RootName, RowRole};

/// Rights of the holder of one public key.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct KeyRights {
    /// Run transfers here.
    pub(crate) master: bool,
    /// Ask a master for its status.
    pub(crate) status: bool,
    /// Cancel the transfer of a master.
    pub(crate) cancel: bool,
    pub(super) read: RootNames,
    pub(super) write: RootNames,
}

/// Roots of a node that a right is for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) enum RootNames {
    #[default]
    None,
    Some(BTreeSet<RootName>),
    All,
}

impl KeyRights {
    /// Returns the right that is missing for a row of this role with data below `root`; `None` as
    /// root stands for data outside every root, such as shared memory.
    pub(crate) fn missing(&self, role: RowRole, root: Option<&RootName>) -> Option<String> {
        let (word, roots) = match role {
            RowRole::Sender => ("read", &self.read),
            RowRole::Receiver => ("write", &self.write),
        };
        let name = || root.map_or_else(|| ALL_ROOTS.into(), RootName::to_string);
        (!roots.contain(root)).then(|| format!("{word}={}", name()))
    }
}

impl RootNames {
    fn contain(&self, root: Option<&RootName>) -> bool {
        match self {
            RootNames::None => false,
            RootNames::Some(names) => root.is_some_and(|root| names.contains(root)),
            RootNames::All => true,
        }
    }

    /// Parses `/`, `*` or names, separated by commas.
    pub(super) fn parse(text: &str) -> Result<RootNames, String> {
        if text == ALL_ROOTS {
            return Ok(RootNames::All);
        }
        let mut names = BTreeSet::new();
        for name in text.split(',') {
            let root: RootName = name
                .parse()
                .map_err(|expected| format!("{name:?} is not the name of a root: {expected}"))?;
            if !names.insert(root) {
                return Err(format!("{name} stands twice in one right"));
            }
        }
        Ok(RootNames::Some(names))
    }
}

const ALL_ROOTS: &str = "*";
