//! Moves a logical range of bytes from N sender nodes to M receiver nodes as fast as their NICs
//! allow.
//!
//! Senders hold overlapping, partial replicas of a *data space*; receivers want arbitrary parts of
//! it. The calling process is the master: it reads the rows, makes the plan, and coordinates the
//! nodes. The bytes go from node to node.
//!
//! ```
//! use cep_fast::{Settings, Spec, Transfer};
//!
//! // Positions 0 to 1,048,575, from two replicas to one reader that checks and discards.
//! let spec = Spec::parse("example", r#"
//!     id "example"
//!     writer a:5001 pattern:7 0 0-1048575
//!     writer b:5002 pattern:7 0 0-524287
//!     reader c:5003 null:     0 0-1048575
//! "#)?;
//! spec.validate()?;
//!
//! // The nodes are running daemons (`cep-fast node`) at the hosts and ports of the rows.
//! let settings = Settings { key_file: Some("site.key".into()), ..Settings::default() };
//! let transfer = Transfer::from_spec(spec, settings);
//! let handle = transfer.handle();
//! assert_eq!(handle.data_sent(), 0);
//! // `transfer.transfer()?.into_result()?` runs it and returns the `Report` of a completed
//! // transfer; `handle.cancel()` ends it from any thread.
//! # Ok::<(), cep_fast::Error>(())
//! ```
//!
//! - [`Spec`] and [`spec`]: rows as text (Figure 2 of the CEP paper) or built in code
//! - [`Transfer`]: the paper's three calls, `schedule`, `transfer` and `data_sent`
//! - [`Report`]: the result, beside the lower bound of any schedule
//! - [`ready_line`]: the line by which a launcher knows that a daemon listens
//! - [`Error`] and [`Code`]: cause, culprit, remedy and exit status
//!
//! It implements the Composite Endpoint Protocol (CEP: transfer specification, N-to-M schedules,
//! soft limits) and the parallel protocol stacks of Jiang and Yeung (one logical connection over
//! many, one protocol engine per network interface). `docs/ARCHITECTURE.md` describes its design.

// Only the command line starts a node and examines a machine: without it the library is a master.
#![cfg_attr(not(feature = "cli"), allow(dead_code, unused_imports))]

mod app;
mod core;
mod io;
#[cfg(any(test, feature = "fuzzing", feature = "stand-ins"))]
#[doc(hidden)]
pub mod testing;

#[cfg(feature = "cli")]
#[doc(hidden)]
pub use crate::app::cli;
pub use crate::core::node::ready_line;
pub use crate::core::{error, report, spec, units};

pub use crate::app::transfer::{Settings, Transfer, TransferHandle};
pub use crate::core::launch::method::{LaunchCommand, LaunchMethod};
pub use crate::core::launch::port_range::PortRange;
pub use crate::core::options::{
    CheckKind, Cipher, DataPath, Scheduler, TransferOptions, WireLevel,
};
pub use crate::io::store::PatternReader;
pub use error::{Code, Error, Result};
pub use report::Report;
pub use spec::Spec;
