//! Finding a group by the name that a person would use.

use anyhow::{Result, bail};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use regent_api::FailoverGroup;

/// `shop`, `ireland/shop` or the object's own name.
pub async fn find(client: &Client, name: &str) -> Result<FailoverGroup> {
    let all = Api::<FailoverGroup>::all(client.clone()).list(&ListParams::default()).await?.items;
    let fits = |g: &&FailoverGroup| {
        g.name_any() == name || g.key().is_ok_and(|key| key.to_string() == name || key.name.as_str() == name)
    };
    let found: Vec<&FailoverGroup> = all.iter().filter(fits).collect();
    match found.as_slice() {
        [one] => Ok((*one).clone()),
        [] => {
            let known: Vec<String> = all.iter().filter_map(|g| g.key().ok()).map(|k| k.to_string()).collect();
            bail!(
                "no FailoverGroup {name:?} here; there is {}",
                if known.is_empty() { "none".into() } else { known.join(", ") }
            )
        }
        several => {
            let keys: Vec<String> = several.iter().filter_map(|g| g.key().ok()).map(|k| k.to_string()).collect();
            bail!("{name:?} names several groups: say which of {}", keys.join(", "))
        }
    }
}

/// The group's key, HOME/NAME.
pub fn key(group: &FailoverGroup) -> Result<String> {
    Ok(group.key()?.to_string())
}

/// Asks a person at the terminal before something that matters.
pub fn confirm(question: &str, yes: bool) -> Result<()> {
    use std::io::{IsTerminal, Write};
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        bail!("{question} There is no terminal to ask at: say --yes");
    }
    print!("{question} [y/N] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { bail!("not done: it was not confirmed") }
}
