//! Plans of problems whose answers are known.

use super::*;
