//! Has the linker put side by side what ordinary work runs: `scripts/order`, docs/performance.md.

fn main() {
    let Ok(package) = std::env::var("CARGO_MANIFEST_DIR") else { return };
    for program in ["scheduler", "processor", "nodemgr", "poller"] {
        println!("cargo::rerun-if-changed=link/{program}.ld");
        println!("cargo::rustc-link-arg-bin={program}=-Wl,-T,{package}/link/{program}.ld");
    }
    // Small programs of the same library: a floor that is measured deserves the same care.
    println!("cargo::rustc-link-arg-examples=-Wl,-T,{package}/link/scheduler.ld");
}
