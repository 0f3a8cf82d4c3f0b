//! See `corkboard::poller`.

fn main() {
    std::process::exit(corkboard::poller::program::main());
}
