//! Generates the gRPC code; protox compiles the files, so nobody needs protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["lease", "federation", "hub", "guard", "csi", "pluginregistration"]
        .map(|name| format!("regent/v1/{name}.proto"));
    println!("cargo:rerun-if-changed=proto");
    let set = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure().compile_fds(set)?;
    Ok(())
}
