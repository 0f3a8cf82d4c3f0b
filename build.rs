//! Has the linker put side by side what ordinary work runs: `scripts/order`, docs/performance.md.

fn main() {
    let order = "link/order.ld";
    println!("cargo::rerun-if-changed={order}");
    if let Ok(package) = std::env::var("CARGO_MANIFEST_DIR") {
        for kind in ["bins", "examples"] {
            println!("cargo::rustc-link-arg-{kind}=-Wl,-T,{package}/{order}");
        }
    }
}
