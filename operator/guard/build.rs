//! regent-gate is copied into every pod's volume: without symbols it is a third smaller.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg-bin=regent-gate=-Wl,--strip-all");
}
