//! See `corkboard::nodemgr`.

fn main() {
    std::process::exit(corkboard::cgi::run(&corkboard::nodemgr::PROGRAM));
}
