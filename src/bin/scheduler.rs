//! See `corkboard::scheduler`.

fn main() {
    std::process::exit(corkboard::cgi::run(&corkboard::scheduler::PROGRAM));
}
