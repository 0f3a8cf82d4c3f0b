//! See `corkboard::worker`.

fn main() {
    std::process::exit(corkboard::worker::program::main());
}
