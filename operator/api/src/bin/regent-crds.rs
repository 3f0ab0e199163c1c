//! Writes the definitions of all kinds, one file each, into a directory.

use std::path::PathBuf;

use anyhow::Context;

fn main() -> anyhow::Result<()> {
    let usage = "usage: regent-crds DIRECTORY";
    let dir = PathBuf::from(std::env::args_os().nth(1).context(usage)?);
    std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    for (name, text) in regent_api::crd_files()? {
        let path = dir.join(name);
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}
