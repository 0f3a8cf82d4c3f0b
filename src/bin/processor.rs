//! `processor`: runs jobs on this machine. CGI program and command.

fn main() {
    std::process::exit(corkboard::processor::main());
}
