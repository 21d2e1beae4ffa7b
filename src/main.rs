//! The binary: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    cep_fast::cli::main()
}
