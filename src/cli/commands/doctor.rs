//! `doctor`: what stands between this machine and line rate.

use std::process::ExitCode;

use super::print;
use crate::cli::args::DoctorArgs;
use crate::cli::exit_code;
use crate::doctor;
use crate::error::Code;

pub(super) fn doctor(args: &DoctorArgs) -> ExitCode {
    let diagnosis = doctor::examine();
    print(&if args.json { diagnosis.json() } else { diagnosis.to_string() });
    // The machine is what data comes from and goes to; docs/decisions/0013 says why this code.
    if diagnosis.is_well() { ExitCode::SUCCESS } else { exit_code(Code::Data) }
}
